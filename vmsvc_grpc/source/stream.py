"""The documents of a file's bytes, read as kubectl reads them.

Pure: knows no file. A text that begins with a brace is a stream of JSON values; if that fails
within the first two, the rest is YAML (`k8s.io/apimachinery`, YAMLOrJSONDecoder).
Every step is short, so that a large file holds up nobody. Only the bytes and one object are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vmsvc_grpc.source import json_documents, yaml_documents
from vmsvc_grpc.source.characters import Characters
from vmsvc_grpc.source.documents import ManifestError, Restart, Step
from vmsvc_grpc.source.json_documents import NotJSONError

# With more values than this, it is certainly a stream of JSON.
_JSON_VALUES_UNSURE = 1

_BLANKS = re.compile(r"[^\S\n]*+")


def document_steps(content: bytes) -> Iterator[Step]:
    """The documents, lists after their items; None for a step that completed none.

    Raises ManifestError at the first error, having yielded the documents before it.
    """
    characters = Characters(content)
    characters.more()
    read, end = 0, 0
    if characters.text.lstrip()[:1] == "{":
        try:
            while True:
                end = characters.offset
                yield from json_documents.skip_blanks(characters)
                if characters.at == len(characters.text):
                    return
                read += 1
                yield from json_documents.value_steps(characters, read)
        except NotJSONError:
            read -= 1
            if read > _JSON_VALUES_UNSURE:
                raise ManifestError(
                    "is not JSON, as what comes before is", characters.line, characters.column
                ) from None
        yield Restart()
        characters = Characters(content)
        yield from characters.skip(end)
        yield from _skip_to_line(characters)
    yield from yaml_documents.document_steps(characters, read)


def _skip_to_line(characters: Characters) -> Iterator[None]:
    """Skip blanks up to the end of a line, in steps."""
    while True:
        blanks = _BLANKS.match(characters.text, characters.at)
        assert blanks is not None, "no blanks are some"
        characters.at = blanks.end()
        if characters.at < len(characters.text) or characters.ended:
            characters.at += characters.text.startswith("\n", characters.at)
            return
        characters.more()
        yield
