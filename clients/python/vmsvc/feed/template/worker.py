"""Renders one template, in a process of its own: a template that does not end ends it alone.

The work is JSON on standard input, as `Work`. What is rendered goes to standard output; if it
cannot be, a sentence that names the file and the line goes to standard error, and the exit code
is 1. Nothing of the environment, and no other file, can be reached from a template.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from traceback import walk_tb
from typing import Any, TypedDict

from jinja2 import FunctionLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vmsvc import addresses

_MIB = 1024 * 1024
_WHY_CHARACTERS_MAX = 500


class Work(TypedDict):
    """A template's text, and `path` as its errors name it; what it sees; and its bounds."""

    path: str
    source: str
    context: Mapping[str, Any]
    output_bytes_max: int
    memory_bytes_max: int
    cpu_s_max: int


class _TooMuchError(Exception):
    """Why there is no output; the text is the end of a sentence."""


def reached(endpoint: Mapping[str, Any], port: int | Mapping[str, Any]) -> str:
    """An endpoint's address and the port as in a URL. `port` is one of a service, or a number."""
    number = port["target_port"] if isinstance(port, Mapping) else port
    return addresses.reached(endpoint["address"], number)


def port(service: Mapping[str, Any], name: str | int = "") -> Mapping[str, Any]:
    """A service's port by its name or number, or its only one. Raises TemplateError."""
    ports: Sequence[Mapping[str, Any]] = service["ports"]
    found = [each for each in ports if name in ("", each["name"], each["port"], str(each["port"]))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each["name"] or str(each["port"]) for each in ports[:10]) or "none"
    asked = f"no port {name!r}" if name and not found else f"{len(found)} ports to choose from"
    raise TemplateError(f"service {service['service']} has {asked}: it has {names}")


def render(work: Work) -> bytes:
    """What the template makes. Raises whatever it raises; _TooMuchError if that is too much."""
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=FunctionLoader(
            lambda name: (work["source"], name, None) if name == work["path"] else None
        ),
    )
    environment.filters |= {"reached": reached, "port": port}
    made = bytearray()
    for piece in environment.get_template(work["path"]).generate(work["context"]):
        made += piece.encode()
        if len(made) > work["output_bytes_max"]:
            raise _TooMuchError(f"it makes more than {work['output_bytes_max']} bytes")
    return bytes(made)


def _where(error: BaseException, path: str) -> str:
    """The line of the template in which it was raised, as FILE:LINE; FILE if that is not known."""
    if isinstance(error, TemplateSyntaxError):
        return f"{path}:{error.lineno}"
    frames = walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == path]
    return f"{path}:{lines[-1]}" if lines else path


def _why(error: BaseException, work: Work) -> str:
    if isinstance(error, MemoryError):
        return f"it takes more than {work['memory_bytes_max'] // _MIB} MiB of memory"
    text = str(error)
    return (
        text
        if isinstance(error, TemplateError | _TooMuchError)
        else f"{type(error).__name__}: {text}"
    )


def main() -> int:
    """Do the work of standard input."""
    work: Work = json.load(sys.stdin.buffer)
    for limit, most in (
        (resource.RLIMIT_AS, work["memory_bytes_max"]),
        # Whoever started it may not be there any more to end it.
        (resource.RLIMIT_CPU, work["cpu_s_max"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    try:
        made = render(work)
    except Exception as error:  # noqa: BLE001 - a template may raise whatever it likes
        why = " ".join(_why(error, work)[:_WHY_CHARACTERS_MAX].split())
        sys.stderr.write(f"{_where(error, work['path'])}: {why}")
        return 1
    sys.stdout.buffer.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
