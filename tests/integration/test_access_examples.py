"""The xDS bootstraps of `examples/access`: the real Envoy, and gRPC's own client, on our server.

It has TLS by a certificate for its name in the cluster, and a gate that takes one token at a time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.certificates import Authority, Secret
from tests.integration.envoy import envoy
from tests.integration.serving import PATIENCE_S, until
from tests.unit.objects import service, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import Pass, Verdict
from vmsvc_grpc.server.access.needs import OPEN, Need
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.listen import Server
from vmsvc_grpc.server.tls.files import TlsFiles
from vmsvc_grpc.server.tls.rotation import TlsRotation
from vmsvc_grpc.server.transport import Listener
from vmsvc_grpc.server.transport.http2 import Http2
from vmsvc_grpc.source.inotify import DirectoryWatch

EXAMPLES = Path(__file__).parents[2] / "examples" / "access"
NAME = "vmsvc-grpc-headless.vmsvc-grpc.svc"


def token_of(subject: str) -> str:
    """A token that looks like one of Kubernetes: gRPC reads when it expires."""
    claims: dict[str, object] = {"sub": subject, "exp": int(time.time()) + 3600}
    parts = ({"alg": "RS256", "kid": "1"}, claims, {"no": "signature"})
    raw = (json.dumps(part).encode() for part in parts)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in raw)


FIRST, SECOND = token_of("first"), token_of("second")


@dataclass
class TokenGate:
    """Lets in who has the token of now, and remembers which tokens were let in."""

    token: str
    let_in: list[str] = field(default_factory=list)
    passes: list[_TokenPass] = field(default_factory=list)

    def enter(self, caller: Caller, wake: Callable[[], None]) -> Pass:
        made = _TokenPass(self, caller.token, wake)
        self.passes.append(made)
        return made

    def change(self, token: str) -> None:
        """Another token counts from now on; calls with an earlier one end."""
        self.token = token
        for each in self.passes:
            each.wake()


class _TokenPass:
    username = ""
    last_username = ""

    def __init__(self, gate: TokenGate, token: str, wake: Callable[[], None]) -> None:
        self._gate, self._token, self.wake = gate, token, wake

    def check(self, need: Need) -> Verdict:
        if need is not OPEN and self._token != self._gate.token:
            raise RpcError(Code.UNAUTHENTICATED, "another token counts now")
        self._gate.let_in.append(self._token)
        return Verdict.ALLOWED

    def let_go(self, _need: Need) -> None:
        """Nothing is kept of it."""

    def close(self) -> None:
        self._gate.passes = [each for each in self._gate.passes if each is not self]


@dataclass
class World:
    """A server, its gate, and the files of a client."""

    address: str
    gate: TokenGate
    folder: Path
    token: Secret

    def put(self, token: str) -> None:
        """Replace the client's token, as Kubernetes does."""
        self.token.put(token=token)

    def placed(self, text: str) -> str:
        """An example with this world's files and address for those of a Pod."""
        host, _, port = self.address.rpartition(":")
        return (
            text.replace("/etc/vmsvc-", f"{self.folder}/")
            .replace("/etc/vmsvc/", f"{self.folder}/")
            .replace(f"address: {NAME}", f"address: {host}")
            .replace("port_value: 50051", f"port_value: {port}")
            .replace(f"dns:///{NAME}:50051", f"dns:///localhost:{port}")
        )


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    authority = Authority(folder / "made")
    pair = authority.issue(names=f"DNS:{NAME},DNS:localhost")
    ca, token = Secret(folder / "ca"), Secret(folder / "token")
    ca.put(ca_crt=authority.certificate)
    token.put(token=FIRST)
    tls = TlsRotation(TlsFiles(*pair), DirectoryWatch(Path("/")))
    tls.load()
    gate = TokenGate(FIRST)
    cache = synced_cache(service(), vm("vm-1", "10.0.0.1"))
    listener = Listener("127.0.0.1:0", lambda: tls.context("h2"), guarded=True)
    server = Server(cache, [listener], Http2, gate=gate)
    (address,) = await server.start()
    try:
        yield World(address, gate, folder, token)
    finally:
        await server.stop()


def of_example() -> dict[str, str]:
    """Envoy's files in `examples/access`, by the names that it wants."""
    return {f"{path.stem}.yaml": path.read_text() for path in EXAMPLES.glob("*.conf")}


def of_sidecar() -> dict[str, str]:
    """Those that `deploy/sidecar` mounts."""
    path = EXAMPLES.parents[1] / "deploy" / "sidecar" / "config-map.yaml"
    data: dict[str, str] = yaml.safe_load(path.read_text())["data"]
    return data


@pytest.mark.parametrize("files", [of_example, of_sidecar])
async def test_envoy_trusts_the_ca_and_shows_the_token_of_now(
    files: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    async with world(tmp_path) as here:
        placed = {name: here.placed(text) for name, text in files().items()}
        for name, text in placed.items():
            (tmp_path / name).write_text(text)
        config: dict[str, Any] = yaml.safe_load(placed["envoy.yaml"])
        config["node"]["id"] = "sidecar"
        listeners = config["static_resources"].get("listeners", [])
        for bound in (config["admin"], *listeners):
            bound["address"]["socket_address"]["port_value"] = 0
        async with envoy(config, tmp_path) as proxy:

            async def known() -> bool:
                return "web.shop:80" in await proxy.ask("/clusters")

            async with asyncio.timeout(PATIENCE_S):
                while not await known():  # noqa: ASYNC110 - in Envoy
                    await asyncio.sleep(0.05)
            assert set(here.gate.let_in) == {FIRST}
            here.put(SECOND)
            here.gate.change(SECOND)
            await until(lambda: SECOND in here.gate.let_in)


async def test_grpcs_own_client_takes_the_bootstrap(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        bootstrap = tmp_path / "bootstrap.json"
        bootstrap.write_text(here.placed((EXAMPLES / "grpc.conf").read_text()))
        program = (
            "import grpc\n"
            "with grpc.insecure_channel('xds:///web.shop:80') as channel:\n"
            "    try: channel.unary_unary('/x/y')(b'', timeout=60, wait_for_ready=True)\n"
            "    except grpc.RpcError: pass\n"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            env={
                **os.environ,
                "GRPC_XDS_BOOTSTRAP": str(bootstrap),
                "GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS": "true",
            },
        )
        try:
            await until(lambda: FIRST in here.gate.let_in)
        finally:
            process.kill()
            await process.wait()
