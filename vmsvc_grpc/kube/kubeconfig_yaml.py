"""The values of a kubeconfig's text, as kubectl reads them.

PyYAML reads some scalars differently: `12:34:56` as a number, `2026-11-28` as a date. Manifests of
strangers have a reader of their own, which bounds what they may cost.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import yaml

from vmsvc_grpc.model.yaml_scalars import (
    MERGE_TAG,
    Scalar,
    TagError,
    key_text,
    plain_scalar,
    tagged_scalar,
)

_PLAIN = "!plain"


def first_document(text: str) -> Any:
    """The first document; kubectl reads no further. None if it is empty.

    Raises yaml.YAMLError.
    """
    loader = _Loader(text)
    try:
        return loader.get_data()
    finally:
        loader.dispose()


class _Loader(yaml.CSafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML declares it so.
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def value(self, node: yaml.Node) -> Any:
        """What a node stands for."""
        match node:
            case yaml.ScalarNode():
                value = self._scalar(node)
                if isinstance(value, float) and not math.isfinite(value):
                    raise _flaw("is a number that JSON has not", node)
                return value
            case yaml.SequenceNode():
                return self.construct_sequence(node, deep=True)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != MERGE_TAG:
                mapping[self._key(key_node)] = self.construct_object(value_node, deep=True)
                continue
            value = self.construct_object(value_node, deep=True)
            sources = value if isinstance(value_node, yaml.SequenceNode) else [value]
            if not all(isinstance(source, dict) for source in sources):
                raise _flaw("is no mapping, which '<<' merges", value_node)
            for source in reversed(sources):
                mapping.update(source)
        return mapping

    def _key(self, node: yaml.Node) -> str:
        value = self._scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if value is None:
            raise _flaw("is no text, which a key is", node)
        return key_text(value, node.value)

    def _scalar(self, node: yaml.ScalarNode) -> Scalar:
        text: str = node.value
        if node.tag == _PLAIN:
            return plain_scalar(text)
        try:
            return tagged_scalar(node.tag, text)
        except TagError:
            raise _flaw("is not what its tag says", node) from None


def _flaw(message: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


_Loader.add_implicit_resolver(MERGE_TAG, re.compile("<<$"), ["<"])
_Loader.add_implicit_resolver(_PLAIN, re.compile(""), None)
_Loader.add_constructor(None, _Loader.value)
