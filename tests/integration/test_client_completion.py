"""What real shells complete after `vmsvc`, with a server to ask and without."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.vmsvc_command import ENVIRONMENT, serving_manifests
from tests.program import PATIENCE_S, Program

BIN = Path(sys.executable).parent
MANIFESTS = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: storefront, namespace: shop}
spec: {type: ClusterIP, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {name: ledger, namespace: bank}
spec: {type: ClusterIP, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {name: web-1, namespace: shop, labels: {app: web}}
status: {network: {primaryIP4: 10.0.0.1}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with serving_manifests(MANIFESTS, tmp_path_factory.mktemp("server")) as program:
        yield program


def environment(server: str) -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**ENVIRONMENT, "PATH": path, "VMSVC_SERVER": server, "TERM": "xterm", "PS1": "$ "}


def in_fish(server: str, line: str) -> list[str]:
    """What fish offers for the last word of a line."""
    ran = subprocess.run(
        ["fish", "--no-config", "-c", f"vmsvc completion fish | source; complete -C '{line}'"],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return [offer.partition("\t")[0] for offer in ran.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        pytest.param("vmsvc ex", ["explain"], id="a command"),
        pytest.param("vmsvc version --cl", ["--client"], id="a flag of one command"),
        pytest.param("vmsvc watch --until", ["--until-ready"], id="a flag"),
        pytest.param("vmsvc list -o ", ["json", "name", "table", "wide", "yaml"], id="its value"),
        pytest.param("vmsvc watch -o ", ["json", "table", "wide", "yaml"], id="the values it has"),
        pytest.param("vmsvc completion ", ["bash", "fish", "zsh"], id="a shell"),
        pytest.param("vmsvc resolve ", ["bank/ledger", "shop/storefront"], id="services"),
        pytest.param("vmsvc resolve shop/storefront ", ["bank/ledger"], id="those not named yet"),
        pytest.param("vmsvc resolve -n shop ", ["storefront"], id="services of a namespace"),
        pytest.param("vmsvc watch -n ", ["bank", "shop"], id="namespaces of a flag"),
        pytest.param("vmsvc list b", ["bank"], id="namespaces of an argument"),
        pytest.param("vmsvc explain shop/storefront w", ["web-1"], id="virtual machines"),
        pytest.param("vmsvc explain shop/none ", [], id="of a service that is not there"),
        pytest.param("vmsvc resolve --timeout-s x -n shop ", [], id="after a word that is wrong"),
    ],
)
def test_offers(server: Program, line: str, offers: list[str]) -> None:
    assert sorted(in_fish(server.grpc, line)) == offers


def test_without_a_server_words_are_completed_and_names_are_not() -> None:
    assert in_fish("127.0.0.1:1", "vmsvc resolve s") == []
    assert in_fish("127.0.0.1:1", "vmsvc res") == ["resolve"]


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(vmsvc completion bash)"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit && compinit -D -u && source <(vmsvc completion zsh)",
    ),
}


class Typed:
    """A shell in a terminal, and what it shows."""

    def __init__(self, command: list[str], server: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(server),
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = ""

    def types(self, keys: str, shows: str) -> None:
        """Press keys; returns once the shell has shown something after that."""
        self._shown = ""
        os.write(self._ours, keys.encode())
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(shows, self._plain()):
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([self._ours], [], [], left)[0]
            assert readable, f"not {shows} but {self._shown!r}"
            self._shown += os.read(self._ours, 65536).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _plain(self) -> str:
        return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", "", self._shown)


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_a_shell(shell: str, server: Program) -> None:
    command, rc = SHELLS[shell]
    assert shutil.which(command[0]), f"this test needs {shell}; the README says how to install it"
    typed = Typed(command, server.grpc)
    try:
        typed.types(f"{rc} && echo loa''ded\n", "loaded")
        typed.types("vmsvc resolve sh\t", "op/storefront ")
        typed.types("\n", r"10\.0\.0\.1")
    finally:
        typed.close()
