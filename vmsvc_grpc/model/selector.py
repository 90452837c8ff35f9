"""Label selectors, as a Service has them: equality of every pair."""

from __future__ import annotations

from collections.abc import Mapping


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether `labels` carry every pair of a selector that is not empty.

    An empty selector selects nothing, as a Service's does.
    """
    return bool(selector) and selector.items() <= labels.items()
