"""The documents name only what there is."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from vmsvc.feed.report import Report
from vmsvc.feed.systemd import Notifier
from vmsvc_grpc.__main__ import main
from vmsvc_grpc.metrics import Metric

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in chain(
        ROOT.glob("*.md"),
        ROOT.glob("deploy/**/*.md"),
        ROOT.glob("docs/**/*.md"),
        ROOT.glob("examples/**/*.md"),
        ROOT.glob("tests/**/*.md"),
    )
)


def text(document: Path) -> str:
    return (ROOT / document).read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text(document))
    gone = [link for link in links if not (ROOT / document.parent / link).exists()]
    assert gone == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"(?m)^\.PHONY: (\S+)", text(Path("Makefile"))))
    # In code only: in a sentence, `make` is also a word.
    code = re.findall(r"```.*?```|`[^`]+`", text(document), flags=re.DOTALL)
    named = set(re.findall(r"(?m)(?:^|`|\d )make ([a-z][a-z-]*)", "\n".join(code)))
    assert named <= targets


def anchors(document: Path) -> set[str]:
    """What links within GitHub call the headings: small letters, digits and dashes."""
    headings = re.findall(r"(?m)^#+ (.*)$", text(document))
    return {re.sub(r"[^a-z0-9_ -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_to_a_heading_leads_to_one(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)", text(document))
    gone = [
        f"{file}#{anchor}"
        for file, anchor in links
        if anchor not in anchors((ROOT / document.parent / file).resolve() if file else document)
    ]
    assert gone == []


def test_every_flag_in_the_table_of_flags_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    table = re.findall(r"(?m)^\| `(--[a-z-]+)", text(Path("docs/configuration.md")))
    assert table
    assert set(table) <= known


def of_feeds() -> set[str]:
    """The metrics of `vmsvc feed`, which have a page of their own."""
    families = list(Report("prometheus", Notifier({})).registry.collect())
    totals = {f"{family.name}_total" for family in families if family.type == "counter"}
    return totals | {family.name for family in families if family.type != "counter"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_metric_exists(document: Path) -> None:
    """But those that an entry of the CHANGELOG says are replaced."""
    entries = re.split(r"(?m)^(?=- |\n)", text(document))
    still = "\n".join(each for each in entries if "Replaced:" not in each)
    named = set(re.findall(r"\bvmsvc_[a-z_]*[a-z]\b", still)) - {"vmsvc_grpc"}
    there = {metric.value[0] for metric in Metric} | of_feeds()
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in named} <= there


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "adr").iterdir())]
    assert numbers == list(range(1, len(numbers) + 1))
