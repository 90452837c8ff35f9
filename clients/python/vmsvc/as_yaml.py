"""Plain values as YAML. Alone in knowing PyYAML, which takes a while to import."""

from __future__ import annotations

import math

import yaml


def dumped(value: object) -> str:
    """Lists, mappings and scalars as a document of YAML, in their order."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what another reader of YAML than PyYAML could take for a number or a truth value."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - of the base
        return True

    def text(self, text: str) -> yaml.ScalarNode:
        plain = text[:1].isalpha() and text.lower() not in ("y", "n")
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.text)
