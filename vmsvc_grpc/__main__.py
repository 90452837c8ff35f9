"""The command line: arguments and environment become a Config; nothing else reads them."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import takewhile
from typing import Any, NoReturn

from vmsvc_grpc import __version__, flags
from vmsvc_grpc.config import Config, ConfigError
from vmsvc_grpc.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from vmsvc_grpc.kube import credentials
from vmsvc_grpc.logs import stream
from vmsvc_grpc.logs.about import shown
from vmsvc_grpc.model.from_wire import DEFAULT_NAMESPACE
from vmsvc_grpc.model.problem import escaped, likely_meant, system_reason
from vmsvc_grpc.model.resolve import AddressRules
from vmsvc_grpc.readers import one_of, path
from vmsvc_grpc.reconciler.copying import Copying
from vmsvc_grpc.reconciler.rules import Rules
from vmsvc_grpc.server.limits import Limits
from vmsvc_grpc.standard_output import OutputError

_CLUSTER_FLAGS = ("kubeconfig", "context", "namespace")
_CLUSTER_ONLY_FLAGS = ("kubeconfig", "context", "lease_namespace", "lease_name", "reconcile")

# Kubernetes sets it in each container.
_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"

_OR_FILES = ", or --manifests DIR to read files"

# As argparse wraps the rest of the help, in a terminal of 80 columns.
_HELP_COLUMNS = 78

_SERVE_EXITS = """\
exit status:
  0  ended by SIGTERM, SIGINT or SIGHUP, after draining
  1  cannot start or go on, as when an address is in use, or a directory cannot
     be read or written
  2  a wrong flag or setting
"""

_RELEASE_EXITS = """\
exit status:
  0  no VirtualMachineService has the finalizer; or --dry-run has shown which do
  1  a replica holds the Lease, the answer was no, or the API server cannot be
     reached or refuses; what was done stays done, so try again
  2  a wrong flag or setting
"""

_CHECK_EXITS = """\
exit status:
  0  nothing is missing; there may be something to know of
  1  something is missing
  2  a wrong flag or setting
"""

_RENDER_EXITS = """\
exit status:
  0  everything could be rendered
  1  an object is refused or cannot be read (the others are rendered), or there
     is no object
  2  a wrong flag or setting
"""


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line, which we print, and without abbreviated flags.

    An error names the command that it is about, and, for an unknown flag, the likely one.
    """

    def __init__(self, *, description: str = "", **settings: Any) -> None:
        super().__init__(
            **settings,
            description=textwrap.fill(description, _HELP_COLUMNS),  # argparse wraps all or nothing.
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        for text in takewhile(lambda text: text != "--" and text not in _COMMANDS, given):
            flag = text.partition("=")[0]
            if flag.startswith("--") and flag not in self._option_string_actions:
                self._error_of("flag", flag, self._option_string_actions)
        found, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:  # noqa: SLF001 - no other way
            self._error_of("command", value, action.choices)
        super()._check_value(action, value)

    def _error_of(self, what: str, word: str, known: Iterable[str]) -> NoReturn:
        likely = likely_meant(word, known)
        meant = f" (did you mean {likely}?)" if likely else ""
        self.error(f"there is no {what} {word}{meant}")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. Flags stay texts; unset ones are None.

    Its errors are ConfigErrors.
    """
    whole = _Parser(
        prog="vmsvc-grpc",
        description="Serves the endpoints of VM Operator's VirtualMachineServices over gRPC "
        "and xDS.",
    )
    whole.add_argument("--version", action="version", version=f"vmsvc-grpc {__version__}")
    commands = whole.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    serve = commands.add_parser(
        "serve",
        help="serve endpoints, and hold the objects that go with them",
        usage="vmsvc-grpc serve [FLAG ...]",
        description="Serve endpoints over gRPC and xDS, and hold the objects that go with them. "
        "Needs no flag in a pod, nor beside a ~/.kube/config; --manifests DIR needs no cluster.",
        epilog=_environment("--drain-s") + _SERVE_EXITS,
    )
    for group in flags.SERVE_GROUPS:
        flags.add(serve.add_argument_group(group.title), group.flags)
    check = commands.add_parser(
        "check",
        help="say what is missing for serve to run here, and what to do",
        usage="vmsvc-grpc check [-o text|json] [FLAG ...]",
        description="Say what is missing for `vmsvc-grpc serve` to run here with the same flags, "
        "and what to do: CustomResourceDefinitions, each right, the Lease, ports, certificates, "
        "the clock, limits. Changes nothing. Takes all flags of serve (vmsvc-grpc serve --help).",
        epilog=_environment("--reconcile") + _CHECK_EXITS,
    )
    check.add_argument(
        "-o", dest="form", metavar="FORMAT", default="text", help="text (the default) or json"
    )
    flags.add(check, flags.SERVE, hidden=True)
    render = commands.add_parser(
        "render",
        help="print the Service and Endpoints that would be held, and end",
        description="Print, as YAML, the Service and Endpoints that would be held for each "
        "VirtualMachineService; problems go to standard error. Asks no server.",
        epilog=_environment("--namespace") + _RENDER_EXITS,
    )
    render.add_argument(
        "path", metavar="FILE|DIR|-", help="manifests: a file, a directory, or - for standard input"
    )
    flags.add(render, flags.RENDER)
    release = commands.add_parser(
        "release",
        help="take our finalizer off every VirtualMachineService, for an uninstall",
        description="Take our finalizer off every VirtualMachineService, so that deleting them "
        "waits for nobody. For an uninstall, when neither our replicas nor VM Operator run. Asks "
        "before it changes anything, and refuses while a replica holds the Lease.",
        epilog=_environment("--dry-run") + _RELEASE_EXITS,
    )
    flags.add(release, flags.RELEASE)
    return whole


def _environment(example: str) -> str:
    variable = f"VMSVC_GRPC_{example.removeprefix('--').replace('-', '_').upper()}"
    text = (
        f"Every flag has an environment variable: VMSVC_GRPC_ and its name, as in {variable} for "
        f"{example}. A list has commas between its values; a flag without a value takes true or "
        "false. A flag overrides its variable."
    )
    return f"{textwrap.fill(text, _HELP_COLUMNS)}\n\n"


def _rules(settings: Mapping[str, Any]) -> AddressRules:
    return AddressRules(
        cluster_families=settings["ip_families"],
        allow_loopback=settings.get("allow_loopback", False),
    )


def _copying(settings: Mapping[str, Any]) -> Copying:
    return Copying(
        denied_labels=settings.get("deny_labels", ()),
        denied_annotations=settings.get("deny_annotations", ()),
    )


def config(given: Mapping[str, Any], environment: Mapping[str, str]) -> Config:
    """The Config of `serve` for its settings. Raises ConfigError."""
    limits = {field.name: given[field.name] for field in fields(Limits)}
    taken = {
        *limits,
        "ip_families",
        "allow_loopback",
        "deny_labels",
        "deny_annotations",
        "log_format",
        "log_level",
        *_CLUSTER_FLAGS,
        "reconcile",
    }
    rest = {name: value for name, value in given.items() if name not in taken}
    manifests = "manifests" in given
    advice = "" if "kubeconfig" in given or "context" in given else _OR_FILES
    # Without `manifests`, `output` is the mistake, and not that there is no API server.
    no_server = manifests or "output" in given
    found = None if no_server else _credentials(given, environment, advice)
    namespaces = given.get("namespace", ())
    in_pod = isinstance(found, credentials.InCluster)
    return Config(
        **rest,
        credentials=found,
        cluster_only=tuple(name for name in _CLUSTER_ONLY_FLAGS if name in given),
        namespaces=() if manifests else namespaces,
        manifests_namespace=_one_of(namespaces) if manifests else DEFAULT_NAMESPACE,
        reconcile=given.get("reconcile", in_pod),
        rules=_rules(given),
        copying=_copying(given),
        limits=Limits(**limits),
    )


def _one_of(namespaces: Sequence[str]) -> str:
    """The namespace of manifests that name none. Raises ConfigError."""
    if len(namespaces) > 1:
        raise ConfigError(
            "--namespace: of manifests it says where an object is that names no namespace, so "
            "give one; whichever an object names is served"
        )
    return namespaces[0] if namespaces else DEFAULT_NAMESPACE


def _credentials(
    given: Mapping[str, Any], environment: Mapping[str, str], advice: str = ""
) -> credentials.Credentials:
    """Whom to ask an API server as. Raises ConfigError, whose message ends with the advice."""
    try:
        return credentials.find(given.get("kubeconfig"), given.get("context"), environment)
    except credentials.NoApiServer as error:
        raise ConfigError(f"{error}{advice}") from None


def _settings(
    known: Sequence[flags.Flag], arguments: argparse.Namespace, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The settings of a command. Raises ConfigError; warns of variables that are not read."""
    for remark in flags.misnamed(known, environment):
        _say(logging.WARNING, f"vmsvc-grpc {arguments.command}: {remark}")
    return flags.settings(known, arguments, environment)


def _serve(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    # First of all, so that whatever else is wrong is a line of the log.
    log = flags.settings(flags.LOG, arguments, environment)
    usual = "json" if _SERVICE_HOST in environment else "text"
    repeats = stream.begin(log.get("log_format", usual), log["log_level"])
    checked = config(_settings(flags.SERVE, arguments, environment), environment)
    # gRPC's core would write a line for each bad call, as often as a client likes.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Only serving needs the event loop and gRPC; --help and render answer without them.
    from vmsvc_grpc import app  # noqa: PLC0415

    return app.main(checked, repeats)


def _check(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    try:
        form = one_of("text", "json")(arguments.form)
    except ConfigError as error:
        raise ConfigError(f"-o: {error}") from None
    checked = config(_settings(flags.SERVE, arguments, environment), environment)
    from vmsvc_grpc.check import command  # noqa: PLC0415

    return command.check(checked, form, sys.stdout)


def _render(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    given = _settings(flags.RENDER, arguments, environment)
    namespace = _one_of(given.get("namespace", ()))
    if arguments.path != "-":
        path(arguments.path)  # Refuses an empty one, which would be the working directory.
    from vmsvc_grpc import render  # noqa: PLC0415

    rules = _rules(given)
    return render.render(
        arguments.path,
        namespace=namespace,
        file_bytes_max=given["manifest_bytes_max"],
        rules=rules,
        held=Rules(
            copying=_copying(given),
            load_balancer_provider=given["load_balancer_provider"],
            cluster_families=rules.cluster_families,
        ),
        out=sys.stdout,
        err=sys.stderr,
    )


def _release(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    given = _settings(flags.RELEASE, arguments, environment)
    found = _credentials(given, environment)
    from vmsvc_grpc import release  # noqa: PLC0415

    request = release.ReleaseRequest(
        namespaces=given.get("namespace", ()),
        lease=given["lease_name"],
        lease_namespace=given.get("lease_namespace", ""),
        dry_run=given.get("dry_run", False),
        yes=given.get("yes", False),
    )
    return release.release(
        found, request, release.Streams(out=sys.stdout, err=sys.stderr, answers=sys.stdin)
    )


_COMMANDS = {
    "serve": _serve,
    "check": _check,
    "render": _render,
    "release": _release,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status. Usage errors end with 2 and one line."""
    name = "vmsvc-grpc"
    _replace_closed_streams()
    try:
        arguments = parser().parse_args(argv)
        name = f"{name} {arguments.command}"
        return _COMMANDS[arguments.command](arguments, os.environ)
    except ConfigError as error:
        _say(logging.ERROR, f"{name}: {error}")
        return EXIT_USAGE
    except KeyboardInterrupt:
        # While serving, SIGINT drains. Before that, and in the other commands, it ends the process.
        return EXIT_INTERRUPTED
    except OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):  # Its reader may just be gone.
            _say(logging.ERROR, f"{name}: standard output cannot be written: {error}")
        # Flushing the rest must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        about = f"{error.filename}: " if error.filename is not None else ""
        _say(logging.ERROR, escaped(f"{name}: {about}{system_reason(error)}"))
        return EXIT_FAILED


def _say(level: int, text: str) -> None:
    """Say something on standard error: as a line of the log, once there is one."""
    if stream.begun():
        logging.getLogger("vmsvc_grpc").log(level, "%s", text, extra=shown(text))
    else:
        print(text, file=sys.stderr)


def _replace_closed_streams() -> None:
    """Take the numbers of standard streams that are closed, so that no file or socket gets one.

    libuv ends the process if it is to close one of these. What is written there still fails.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # It gets the lowest number that is free: this one.
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    if sys.stdout is None:
        # Nothing is kept back, which would fail again at exit.
        raw = io.FileIO(1, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)


if __name__ == "__main__":
    sys.exit(main())
