"""A small YAML text as values that know their lines. Pure, and strict: it is a policy.

What YAML can do beyond mappings, lists and texts is refused: a policy that needs it is not read as
a person reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.model.yaml_scalars import plain_scalar

LEVELS_MAX = 10
"""How many mappings and lists may be within each other; a policy has six."""


class PolicyError(Exception):
    """A policy cannot be used. Its text is one line, and names the line of the file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")


@dataclass(slots=True)
class Node:
    """A value, and the line on which it begins, from 1."""

    value: str | list[Node] | dict[str, Node]
    line: int


def only_document(text: str) -> Node:
    """The one document of a text. Raises PolicyError."""
    building = _Building()
    documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            line = _line(event.start_mark)
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise PolicyError(line, "a second document begins; a policy is one")
            elif isinstance(event, NodeEvent | CollectionEndEvent):
                building.take(event, line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyError(_line(mark), f"is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise PolicyError(1, f"is not YAML: {str(error).splitlines()[0]}") from None
    if building.root is None:
        raise PolicyError(1, "the file is empty; to let nobody in, write `rules: []`")
    return building.root


def _line(mark: Any) -> int:
    """The line that a mark of libyaml is on; the first where there is none."""
    return 1 if mark is None else int(mark.line) + 1


class _Building:
    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Node] = []
        self._keys: list[str | None] = []

    def take(self, event: Event, line: int) -> None:
        if isinstance(event, CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
            return
        tag = getattr(event, "tag", None)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) or tag is not None:
            raise PolicyError(line, "has an anchor, alias or tag; write texts, lists and mappings")
        if self._open and isinstance(self._open[-1].value, dict) and self._keys[-1] is None:
            self._keys[-1] = self._key(event, line, self._open[-1].value)
            return
        if isinstance(event, ScalarEvent):
            self._put(Node(_text(event, line), line))
            return
        node = Node({} if isinstance(event, MappingStartEvent) else [], line)
        self._put(node)
        if len(self._open) == LEVELS_MAX:
            raise PolicyError(line, f"more than {LEVELS_MAX} levels are within each other")
        self._open.append(node)
        self._keys.append(None)

    def _key(self, event: Event, line: int, within: dict[str, Node]) -> str:
        if not isinstance(event, ScalarEvent):
            raise PolicyError(line, "a field has no text for its name")
        key = _text(event, line)
        if key in within:
            raise PolicyError(line, f"field {quoted(key)} is there twice")
        return key

    def _put(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        into = self._open[-1].value
        if isinstance(into, list):
            into.append(node)
        elif isinstance(into, dict):
            key = self._keys[-1]
            assert key is not None, "a value comes after its name"
            into[key] = node
            self._keys[-1] = None


def _text(event: ScalarEvent, line: int) -> str:
    text: str = event.value
    if event.implicit[0] and not isinstance(plain_scalar(text), str):
        shown = quoted(text) if text else "nothing"
        raise PolicyError(line, f"{shown} is no text to YAML; put it in quotes")
    return text
