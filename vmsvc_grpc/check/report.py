"""Findings as a person or a program reads them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from vmsvc_grpc.check.findings import Finding, Grade
from vmsvc_grpc.standard_output import writing_output

_FAILED = "\N{MULTIPLICATION SIGN}"
_MARKS = {Grade.OK: "√", Grade.WARNING: "‼", Grade.FAILED: _FAILED, Grade.SKIPPED: "-"}
# For a terminal that cannot show these.
_WORDS = {Grade.OK: "ok ", Grade.WARNING: "!! ", Grade.FAILED: "BAD", Grade.SKIPPED: "-  "}

Sections = Mapping[str, Sequence[Finding]]
"""Findings by the title of their section, in order."""


def counts(sections: Sections) -> Counter[Grade]:
    """How many findings of each grade there are."""
    return Counter(each.grade for found in sections.values() for each in found)


def write(sections: Sections, form: str, out: TextIO) -> None:
    """Write all findings, as `text` or `json`. Raises OutputError."""
    text = json.dumps(_object(sections), indent=2) if form == "json" else _text(sections, out)
    with writing_output():
        print(text, file=out, flush=True)


def _object(sections: Sections) -> dict[str, Any]:
    number = counts(sections)
    return {
        "ok": not number[Grade.FAILED],
        "failed": number[Grade.FAILED],
        "warnings": number[Grade.WARNING],
        "checks": [
            {
                "section": title,
                "name": each.name,
                "status": each.grade.value,
                "message": each.text,
                **({"advice": each.advice} if each.advice else {}),
            }
            for title, found in sections.items()
            for each in found
        ],
    }


def _text(sections: Sections, out: TextIO) -> str:
    marks = _MARKS if _can_show("".join(_MARKS.values()), out) else _WORDS
    lines = []
    for title, found in sections.items():
        if found:
            lines.append(title)
            for each in found:
                lines.append(f"{marks[each.grade]} {each.text}")
                if each.advice:
                    lines.append(f"    {each.advice}")
            lines.append("")
    return "\n".join([*lines, _summary(counts(sections))])


def _summary(number: Counter[Grade]) -> str:
    parts = [
        f"{number[grade]} {name}"
        for grade, name in (
            (Grade.FAILED, "failed"),
            (Grade.SKIPPED, "could not be checked"),
            (Grade.WARNING, "to know of"),
        )
        if number[grade]
    ]
    return f"{number.total()} checks: {', '.join(parts) or 'nothing is missing'}"


def _can_show(text: str, out: TextIO) -> bool:
    try:
        text.encode(out.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
