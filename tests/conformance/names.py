"""A case's namespaces and uids, and those that stand for them on an API server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.conformance.case import CaseError, ObjectId

# What a namespace and a uid are made of, between what ends them in a text.
_WORD = re.compile(r"[A-Za-z0-9-]+")


class Names:
    """Translates between a case and an API server. Asks nobody: what stands for what is told it."""

    def __init__(self, namespaces: Mapping[str, str]) -> None:
        """`namespaces` maps those of the case to live ones, whose names occur nowhere else."""
        self.namespaces = namespaces
        self._live_uids: dict[str, str] = {}
        self._texts = {live: case for case, live in namespaces.items()}

    def stands_for(self, uid: str, live_uid: str) -> None:
        """An object of the case was made, with a uid of its own. No other has the case's now."""
        self._texts.pop(self._live_uids.get(uid, ""), None)
        self._live_uids[uid] = live_uid
        self._texts[live_uid] = uid

    def live_id(self, id_: ObjectId) -> ObjectId:
        """Where the object is on the API server. Raises CaseError for an unknown namespace."""
        if id_.namespace not in self.namespaces:
            raise CaseError(f"{id_} is in a namespace in which the case makes no object")
        return id_._replace(namespace=self.namespaces[id_.namespace])

    def live(self, value: Any) -> Any:
        """A part of a manifest, in the API server's words: values of `namespace`, and uids."""
        if isinstance(value, Mapping):
            return {
                key: self.namespaces.get(part, part)
                if key == "namespace" and isinstance(part, str)
                else self.live(part)
                for key, part in value.items()
            }
        if isinstance(value, list):
            return [self.live(part) for part in value]
        return self._live_uids.get(value, value) if isinstance(value, str) else value

    def as_in_case(self, value: Any) -> Any:
        """A part of a manifest, or a text, in the case's words; in the middle of texts too."""
        if isinstance(value, Mapping):
            return {key: self.as_in_case(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.as_in_case(part) for part in value]
        if isinstance(value, str):
            return _WORD.sub(lambda word: self._texts.get(word[0], word[0]), value)
        return value
