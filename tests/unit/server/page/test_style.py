"""That the page can be read: contrasts of its colours, worked out from its style sheet."""

from __future__ import annotations

import re
from importlib import resources

import pytest

STYLE = resources.files("vmsvc_grpc.server.page").joinpath("static/page.css").read_text()

# WCAG 2.2, 1.4.3 for text, and 1.4.11 for what shows where the focus is.
TEXT, SHAPE = 4.5, 3.0

# Text, and the grounds that it is shown on.
PAIRS = [
    *(
        (text, ground, TEXT)
        for text in ("text", "quiet", "link", "good", "bad")
        for ground in ("ground", "raised")
    ),
    ("news-text", "news", TEXT),
    ("focus", "ground", SHAPE),
    ("focus", "raised", SHAPE),
]


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL)
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
    return found | (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark)) if scheme == "dark" else {}
    )


def luminance(colour: str) -> float:
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground", "least"), PAIRS)
def test_text_is_told_from_its_ground(text: str, ground: str, least: float, scheme: str) -> None:
    of = colours(scheme)
    assert contrast(of[text], of[ground]) >= least


def test_both_schemes_have_the_same_colours_and_no_rule_has_its_own() -> None:
    assert colours("light").keys() == colours("dark").keys()
    assert colours("light") != colours("dark")
    rules = re.sub(r":root \{.*?\}", "", STYLE, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|\brgb|\bhsl", rules) == []
