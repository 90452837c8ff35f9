"""Finds promtool, building it once into a cache folder, and asks it about pages that were scraped.

    python -m tests.monitoring.promtool     build it, print where it is

Which version is built stands in `tests/tools/promtool/go.mod`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.go_programs import GoProgram, built, cache

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "chart" / "monitoring" / "prometheus-rule.yaml"
DASHBOARD = RULES.with_name("dashboard.json")
MONITOR = ROOT / "deploy" / "monitoring" / "pod-monitor.yaml"

_MODULE = "github.com/prometheus/prometheus"
_PROMTOOL = GoProgram(
    "promtool",
    ROOT / "tests" / "tools" / "promtool",
    _MODULE,
    f"{_MODULE}/cmd/promtool",
    # Service discovery, of which it checks nothing here, is three quarters of its code.
    flags=("-tags", "remove_all_sd"),
)
_RUN_TIMEOUT_S = 120

_NAME = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?")


class Scraped(NamedTuple):
    """What a scrape of a replica brought, `minute` minutes after the first; None: it failed.

    `at` is when that was, as a Unix timestamp.
    """

    minute: int
    values: Mapping[str, float] | None
    at: float


def promtool() -> Path:
    """Where promtool is. It is built if it has to be, in some minutes."""
    return built(_PROMTOOL, cache() / "bin" / _PROMTOOL.versioned_name)


def asked(*arguments: str | Path, given: str = "") -> tuple[int, str]:
    """What promtool said of `given`, and its exit status."""
    done = subprocess.run(
        (promtool(), *arguments),
        input=given,
        capture_output=True,
        text=True,
        timeout=_RUN_TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def rules() -> dict[str, Any]:
    """The alert rules, as Prometheus itself reads them."""
    found: dict[str, Any] = yaml.safe_load(RULES.read_text())["spec"]
    return found


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by their names."""
    return {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}


def firing(
    folder: Path, scrapes: Sequence[Scraped], minute: int, *, goes_on: bool = False
) -> list[str]:
    """The alerts that fire at that minute, if a replica was scraped so, and stays as it was then.

    `goes_on`: what it counted between two scrapes, it counts again in each minute. Raises
    AssertionError with promtool's words.
    """
    names = alerts()
    asked_of = [
        {
            "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": 0}],
        }
        for name in names
    ]
    said = _tested(folder, scrapes, asked_of, goes_on=goes_on)
    return [name for name in names if f'alertname=\\"{name}\\"' in said]


def empty(folder: Path, scrapes: Sequence[Scraped], minute: int, queries: Iterable[str]) -> str:
    """What promtool says of queries that bring no series at that minute; empty if all bring one."""
    asked_of = [
        {
            "expr": f"(count({query}) > bool 0) or vector(0)",
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for query in queries
    ]
    return _tested(folder, scrapes, asked_of)


def _tested(
    folder: Path,
    scrapes: Sequence[Scraped],
    asked_of: Sequence[Mapping[str, Any]],
    *,
    goes_on: bool = False,
) -> str:
    """What promtool has to say against expectations of queries; empty if they hold."""
    written, test = folder / "rules.yaml", folder / "test.yaml"
    written.write_text(yaml.safe_dump(rules()))
    test.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(written)],
                "evaluation_interval": "1m",
                "tests": [
                    {
                        "interval": "1m",
                        "input_series": [*_series(scrapes, goes_on=goes_on)],
                        "promql_expr_test": list(asked_of),
                    }
                ],
            }
        )
    )
    status, said = asked("test", "rules", test)
    assert status in (0, 1), said
    assert status == 0 or "got:" in said, said
    return said if status else ""


def _series(scrapes: Sequence[Scraped], *, goes_on: bool) -> Iterable[Mapping[str, str]]:
    (scrape,) = yaml.safe_load(MONITOR.read_text())["spec"]["podMetricsEndpoints"]
    honoured = scrape.get("honorLabels", False)
    names = {name for scraped in scrapes for name in scraped.values or ()}
    for name in sorted(names):
        found = _NAME.fullmatch(name)
        assert found is not None, name
        labels = _labels(found[2] or "", honoured=honoured)
        if goes_on and found[1].endswith(_COUNTED):
            yield {"series": f"{found[1]}{{{labels}}}", "values": _rising(scrapes, name)}
            continue
        values = [_shown(found[1], scraped, name) for scraped in scrapes]
        yield {"series": f"{found[1]}{{{labels}}}", "values": _over_time(scrapes, values)}
    up = [str(int(scraped.values is not None)) for scraped in scrapes]
    yield {"series": f"up{{{_labels('', honoured=honoured)}}}", "values": _over_time(scrapes, up)}


# What Prometheus Operator has each series of a PodMonitor say.
_TARGET = {
    "job": "vmsvc-grpc",
    "instance": "10.0.0.1:8080",
    "namespace": "vmsvc-grpc",
    "pod": "vmsvc-grpc-0",
    "container": "vmsvc-grpc",
    "endpoint": "http",
}
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _labels(scraped: str, *, honoured: bool) -> str:
    """The labels of a series, of which the target has some: Prometheus' `honor_labels`."""
    own = dict(_LABEL.findall(scraped))
    if not honoured:
        own = {f"exported_{name}" if name in _TARGET else name: own[name] for name in own}
    return ",".join(f'{name}="{value}"' for name, value in (_TARGET | own).items())


# After the last scrape all stays as it is for so long.
_MINUTES = 120


_COUNTED = ("_total", "_count", "_bucket", "_sum")


def _rising(scrapes: Sequence[Scraped], name: str) -> str:
    """Values that rise in each minute as they did between the two scrapes."""
    first, second = ((scraped.values or {}).get(name, 0.0) for scraped in scrapes)
    return f"{first:.9f}+{second - first:.9f}x{_MINUTES}"


def _shown(metric: str, scraped: Scraped, name: str) -> str:
    """A value as promtool reads it, whose time begins at 0; `_` for none."""
    value = (scraped.values or {}).get(name)
    if value is None:
        return "_"
    if metric.endswith("_timestamp_seconds") or metric == "process_start_time_seconds":
        value += 60 * scraped.minute - scraped.at
    return f"{value:.9f}"


def _over_time(scrapes: Sequence[Scraped], values: Sequence[str]) -> str:
    minutes = [scraped.minute for scraped in scrapes]
    lasts = [then - now for now, then in zip(minutes, [*minutes[1:], _MINUTES], strict=True)]
    # "1x2" is one value and two more, "_x2" is two that are missing.
    return " ".join(
        f"{value}x{last if value == '_' else last - 1}"
        for value, last in zip(values, lasts, strict=True)
    )


if __name__ == "__main__":
    print(promtool())
