"""What a shell completes after `vmsvc`: its words, and names that the server knows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import argcomplete
from argcomplete.completers import ChoicesCompleter, FilesCompleter, SuppressCompleter
from argcomplete.shell_integration import shellcode

from vmsvc.arguments import UsageError
from vmsvc.options import Options, outputs_of, parser, settled

# Somebody waits with a finger on the key.
_PATIENCE_S = 1.0

_FILES = ("cacert", "cert", "key", "token_file")


def script(shell: str) -> str:
    """What a shell runs to complete vmsvc's words from then on."""
    text: str = shellcode(["vmsvc"], shell=shell)
    return f"{text}\n"


def complete(environment: Mapping[str, str]) -> None:
    """Answer the shell that asks, and exit. Returns if it does not ask for this program."""
    words = parser()
    for command, action in _actions("", words):
        if completer := _completer(command, action.dest, environment):
            action.completer = completer  # type: ignore[attr-defined] # where argcomplete looks
    argcomplete.autocomplete(
        words, always_complete_options=False, default_completer=SuppressCompleter()
    )


def _actions(command: str, words: argparse.ArgumentParser) -> Iterable[tuple[str, argparse.Action]]:
    for action in words._actions:  # noqa: SLF001 - argparse has no other way to them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, of_command in action.choices.items():
                yield from _actions(name, of_command)
        else:
            yield command, action


def _completer(
    command: str, name: str, environment: Mapping[str, str]
) -> Callable[..., object] | None:
    """What completes the value of a flag or an argument; None: nothing but its choices."""
    if name in _FILES:
        return FilesCompleter()
    if name == "output":
        return ChoicesCompleter(dict.fromkeys(outputs_of(command), ""))
    if name == "until_absent":
        return ChoicesCompleter({"absent": ""})
    names = _NAMES.get(name)
    if names is None:
        return None

    def told(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        flags = vars(parsed_args)
        given = flags.get("services")
        with suppress(UsageError, ValueError):
            known = names(flags, environment)
            return [name for name in known if name.startswith(prefix) and name not in (given or ())]
        return []

    return told


def _services(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Iterable[str]:
    """Services of all namespaces by full name; of one, if it is given, without it."""
    asked = settled({**flags, "command": "list", "services": ()}, environment, terminal=False)
    given = len(asked.namespaces) == 1
    known = _listed(asked, asked.namespaces[0] if given else "")
    return [name.partition("/")[2] for name in known] if given else known


def _namespaces(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Iterable[str]:
    alone = {k: v for k, v in flags.items() if k not in ("namespace", "in_namespace")}
    asked = settled({**alone, "command": "list", "services": ()}, environment, terminal=False)
    return dict.fromkeys(name.partition("/")[0] for name in _listed(asked, ""))


def _vms(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Iterable[str]:
    asked = settled({**flags, "command": "explain", "vm_name": ""}, environment, terminal=False)
    from vmsvc.errors import VmsvcError  # noqa: PLC0415 - gRPC takes its time
    from vmsvc.reach import sync_client  # noqa: PLC0415

    with suppress(VmsvcError), sync_client(asked, _PATIENCE_S) as client:
        [service] = asked.services
        return [vm.vm_name for vm in client.explain(service).virtual_machines]
    return ()


_NAMES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, str]], Iterable[str]]] = {
    "services": _services,
    "namespace": _namespaces,
    "in_namespace": _namespaces,
    "vm_name": _vms,
}


def _listed(asked: Options, namespace: str) -> list[str]:
    from vmsvc.errors import VmsvcError  # noqa: PLC0415 - gRPC takes its time
    from vmsvc.reach import sync_client  # noqa: PLC0415

    with suppress(VmsvcError), sync_client(asked, _PATIENCE_S) as client:
        return [service.service for service in client.list(namespace)]
    return []
