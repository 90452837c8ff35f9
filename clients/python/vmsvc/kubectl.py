"""`kubectl vmsvc`: the commands of `vmsvc`, asked of the server in a cluster.

It finds a Pod of the server, and has kubectl forward a port of this machine to where that Pod
listens for itself alone, without TLS. So the rights are those of the kubeconfig: to list Pods, and
to `create` `pods/portforward`. What says that a Pod is the server's is its namespace, which the
caller trusts: whoever may create Pods in another one may label them as ours.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from vmsvc import cli
from vmsvc.channel import is_loopback
from vmsvc.options import EXIT_NO_ANSWER, EXIT_USAGE, Options

_HELP = """\
usage: kubectl vmsvc [FLAGS] COMMAND ...

The commands of vmsvc (list, resolve, watch, explain, version), asked of the vmsvc-grpc in
the cluster, through `kubectl port-forward`. `kubectl vmsvc COMMAND --help` tells of each.

  --context NAME, --kubeconfig FILE, --cluster NAME, --user NAME, --as NAME, --as-group NAME
                         as for kubectl; before or after the command
  --server-namespace NS  where the server runs (VMSVC_SERVER_NAMESPACE; default: vmsvc-grpc)

You need the rights to list Pods there, and to `create` pods/portforward.

"""

_OF_KUBECTL = ("--context", "--kubeconfig", "--cluster", "--user", "--as", "--as-group")
_SERVER_NAMESPACE = "--server-namespace"

LABEL = "app.kubernetes.io/part-of=vmsvc-grpc"
"""Of each Pod of the server, however it was installed and whatever it is called."""

_OF_ANOTHER = frozenset(
    f"VMSVC_{name}"
    for name in ("SERVER", "TLS", "CACERT", "CERT", "KEY", "TOKEN_FILE", "AUTHORITY")
)

_NAMESPACE = "vmsvc-grpc"
_CONTAINER = "vmsvc-grpc"

_PORT_MAX = 65535
_PORT = re.compile(r":([0-9]{1,5})\Z")
_FORWARDS = re.compile(r"Forwarding from (127\.0\.0\.1:[0-9]+) -> ")
_PATIENCE_S = 30.0
_RETRY_S = 1.0


class _NotFoundError(Exception):
    """The server cannot be reached; the text says why, and what to do."""


class Arguments(NamedTuple):
    """The arguments of the plugin: kubectl's, where to look for the server, and vmsvc's."""

    kubectl: tuple[str, ...]
    namespace: str
    vmsvc: tuple[str, ...]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Arguments:
        """What belongs to whom; the environment may name a namespace. Raises ValueError."""
        ours, end = list(arguments), []
        if "--" in ours:
            at = ours.index("--")
            ours, end = ours[:at], ours[at:]
        found, vmsvc = _parser().parse_known_args(ours)
        return cls(tuple(found.kubectl), found.namespace, (*vmsvc, *end))


class _Parser(argparse.ArgumentParser):
    """Of the flags that are not `vmsvc`'s, wherever they stand."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see kubectl vmsvc --help")


def _parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag in _OF_KUBECTL:
        parser.add_argument(
            flag, dest="kubectl", action="append", default=[], type=partial(_as_given, flag)
        )
    namespace = os.environ.get("VMSVC_SERVER_NAMESPACE") or _NAMESPACE
    parser.add_argument(_SERVER_NAMESPACE, dest="namespace", default=namespace, type=_not_empty)
    parser.add_argument("--server", type=_refused)
    return parser


def _as_given(flag: str, value: str) -> str:
    return f"{flag}={_not_empty(value)}"


def _not_empty(value: str) -> str:
    if not value:
        raise argparse.ArgumentTypeError("expected one argument")
    return value


def _refused(_value: str) -> NoReturn:
    raise argparse.ArgumentTypeError("it finds the server by itself; `vmsvc --server` asks another")


class Place(NamedTuple):
    """Where the server listens: a Pod, and a port of it that takes no TLS."""

    namespace: str
    pod: str
    port: int


def place_in(pods: Mapping[str, Any]) -> Place | None:
    """A place in one of the Pods, as `kubectl get pods -o json` has them; the ready ones first."""
    found = (
        (not _ready(pod), place)
        for pod in pods["items"]
        if not pod["metadata"].get("deletionTimestamp") and (place := _place_of(pod))
    )
    return min(found, default=(False, None))[1]


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _place_of(pod: Mapping[str, Any]) -> Place | None:
    about = pod["metadata"]
    for container in pod["spec"]["containers"]:
        if container["name"] != _CONTAINER:
            continue
        arguments = (*container.get("command", ()), *container.get("args", ()))
        tls = any(text.startswith("--tls-cert") for text in arguments)
        for address in _listens(arguments):
            if (is_loopback(address) or not tls) and (port := _port(address)):
                return Place(about["namespace"], about["name"], port)
    return None


def _listens(arguments: Sequence[str]) -> Iterator[str]:
    for text, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, given, value = text.partition("=")
        if flag == "--listen":
            yield value if given else following


def _port(address: str) -> int | None:
    """None where there is nothing to forward to: a Pod with odd arguments is passed over."""
    found = _PORT.search(address)
    return int(found[1]) if found and 0 < int(found[1]) <= _PORT_MAX else None


class Forwarder:
    """`kubectl port-forward` to the server, begun again with another Pod if that goes away."""

    def __init__(self, arguments: Arguments) -> None:
        """Raises _NotFoundError."""
        self._arguments = arguments
        self._local = ""
        self._process, self.address = self._forwarded()
        self._local = self.address.rpartition(":")[2]
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """End it, and the process of kubectl."""
        with self._lock:
            self._closing.set()
            self._process.terminate()
        self._keeper.join()

    def _keep(self) -> None:
        while True:
            self._process.communicate()
            while True:
                if self._closing.wait(_RETRY_S):
                    return
                with suppress(_NotFoundError):  # `vmsvc` says that it has no connection.
                    process, _ = self._forwarded()
                    break
            with self._lock:
                self._process = process
                if self._closing.is_set():
                    process.terminate()

    def _forwarded(self) -> tuple[subprocess.Popen[str], str]:
        try:
            return self._forwarded_to(self._find())
        except FileNotFoundError:
            raise _NotFoundError("there is no kubectl in PATH") from None

    def _forwarded_to(self, place: Place) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(  # noqa: S603 - kubectl, as the user has it
            [
                *("kubectl", *self._arguments.kubectl, "port-forward", "--address=127.0.0.1"),
                *(f"--namespace={place.namespace}", f"pod/{place.pod}"),
                f"{self._local}:{place.port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C is for us; we end it ourselves.
            start_new_session=True,
        )
        assert process.stdout is not None
        timer = threading.Timer(_PATIENCE_S, process.terminate)
        timer.start()
        said = process.stdout.readline()
        timer.cancel()
        if forwards := _FORWARDS.match(said):
            return process, forwards[1]
        process.terminate()
        process.communicate()
        raise _NotFoundError(
            f"kubectl port-forward to pod/{place.pod} in namespace {place.namespace} failed: "
            f"{_first_line(said) or f'it said nothing for {_PATIENCE_S:g} s'}"
        )

    def _find(self) -> Place:
        namespace = self._arguments.namespace
        if place := place_in(self._pods(f"--namespace={namespace}")):
            return place
        elsewhere: set[str] = set()
        with suppress(_NotFoundError):  # Not everybody may look everywhere.
            pods = self._pods("--all-namespaces")["items"]
            elsewhere = {pod["metadata"]["namespace"] for pod in pods if _place_of(pod)}
        advice = (
            f"there is one in {', '.join(sorted(elsewhere))}: if you trust who may create Pods "
            f"there, name it by {_SERVER_NAMESPACE}"
            if elsewhere
            else "is vmsvc-grpc installed, and does its container listen on loopback, "
            "as deploy/ has it?"
        )
        raise _NotFoundError(
            f"there is no running Pod labelled {LABEL} in namespace {namespace}; {advice}"
        )

    def _pods(self, where: str) -> Any:
        ran = subprocess.run(  # noqa: S603 - kubectl, as the user has it
            [
                *("kubectl", *self._arguments.kubectl, "get", "pods", where, "--output=json"),
                *(f"--selector={LABEL}", "--field-selector=status.phase=Running"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise _NotFoundError(f"the server cannot be looked for: {_first_line(ran.stderr)}")
        return json.loads(ran.stdout)


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def main() -> int:
    """Run the command line of this process; its exit code."""
    try:
        arguments = Arguments.of(sys.argv[1:])
    except ValueError as error:
        return _failed(str(error), EXIT_USAGE)
    if not arguments.vmsvc or arguments.vmsvc[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return 0
    signal.signal(signal.SIGHUP, _hang_up)
    # What a shell has set for a server that is reached otherwise is not for this one.
    environment = {name: text for name, text in os.environ.items() if name not in _OF_ANOTHER}
    try:
        return cli.run(arguments.vmsvc, environment, partial(_forwarding, arguments))
    except _NotFoundError as error:
        return _failed(str(error), EXIT_NO_ANSWER)


@contextmanager
def _forwarding(arguments: Arguments, options: Options) -> Iterator[Options]:
    """The options for the server in the cluster, and the way to it. Raises _NotFoundError."""
    if options.asks_nobody:
        yield options
        return
    try:
        forwarder = Forwarder(arguments)
    except _NotFoundError:
        if options.command == "version":
            from vmsvc import commands  # noqa: PLC0415 - no other failure needs gRPC

            commands.run(replace(options, client_only=True))
        raise
    with closing(forwarder):
        yield replace(options, server=forwarder.address)


def _hang_up(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
    # As if terminated: kubectl is not left behind.
    signal.raise_signal(signal.SIGTERM)


def _failed(text: str, code: int) -> int:
    sys.stderr.write(f"kubectl vmsvc: {text}\n")
    return code
