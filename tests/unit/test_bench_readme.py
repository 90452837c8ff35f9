"""The README's table of costs is made of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import readme, servers
from bench.results import Outcome, Results

REPO = Path(__file__).parents[2]


def outcome(server: servers.Server, date: str, *cpu_us: float) -> Outcome:
    measured = [
        {
            "cpu_us_a_message": us,
            "delivery_p50_ms": 5.25,
            "delivery_p99_ms": 1_030.0,
            "rss_mib": 47.0,
        }
        for us in cpu_us
    ]
    return Outcome("", {server.name: [*measured]}, {server.name: date})


def measured(*without: str) -> Results:
    outcomes = {
        key: outcome(servers.OURS, f"2026-11-{day} 08:00 UTC", 7.0, 6.0, 9.0)
        for key, day in (("a", 27), ("c", 28), ("h", 28), ("e", 28), ("o", 28))
    }
    outcomes["c"].measured[servers.GRPC_GO.name] = [{"cpu_us_a_message": 9.3}]
    outcomes["n"] = outcome(servers.OURS_TLS, "2026-11-28 08:00 UTC", 9.7)
    outcomes["i-c"] = outcome(servers.OURS_DELTA, "2026-11-28 08:00 UTC", 66.0)
    return Results({}, {key: each for key, each in outcomes.items() if key not in without})


def test_it_has_the_medians_of_what_was_measured() -> None:
    lines = readme.lines_of(measured())
    assert lines[0] == "Measured on 27 November 2026 to 28 November 2026, in the median:"
    assert lines[4:6] == [
        "| 1 stream |  | 5.25 ms | 1,030 ms | 47 MiB |",
        "| 1,000 streams, 5 changes/s | 7 µs (grpc-go: 9.30) | 5.25 ms | 1,030 ms | 47 MiB |",
    ]
    assert len(lines) == 4 + 7


def test_no_row_is_dropped_as_it_was_not_measured(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    text = f"{readme.BEGIN}\nold\n{readme.END}\n"
    file.write_text(text)
    assert not readme.rewrite(file, measured("n"))
    assert file.read_text() == text


def test_only_the_table_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    for _ in range(2):
        assert readme.rewrite(file, measured())
    lines = "\n".join(readme.lines_of(measured()))
    assert file.read_text() == f"before\n{readme.BEGIN}\n{lines}\n{readme.END}\nafter\n"


def test_a_file_without_a_place_for_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("nothing")
    with pytest.raises(ValueError, match="there is no place for the table"):
        readme.rewrite(file, measured())
    assert file.read_text() == "nothing"


def test_the_project_has_a_place_for_it() -> None:
    text = (REPO / "README.md").read_text()
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1
