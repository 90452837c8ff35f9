"""An API server that can be told to forget where its readers are, as the real one cannot.

The real one says 410 only after etcd was compacted and it was started anew. This one has
the data set's VMs and VMServices, and for each VMService its Service and Endpoints; lists them in
pages, and watches them. It obeys a JSON object a line, each answered by one (`bench.process`):

    {"do": "change", "seq": 20001}       a VM reports the address that says so
    {"do": "relist", "services": 5000}   end all watches with 410; from now on there are only the
                                         first so many services
    {"do": "watched"}                    whether all is watched (again)
    {"do": "quit"}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import Callable
from typing import Any

import uvloop
from aiohttp import web

from bench import dataset
from bench.dataset import DataSet

_GROUP = "/apis/vmoperator.vmware.com"
_VERSION = f"{_GROUP}/v1alpha6"
_VMS = f"{_VERSION}/virtualmachines"
_BOOKMARK_S = 20.0

_EXPIRED = {"code": 410, "reason": "Expired", "message": "too old resource version"}
_GONE = json.dumps({"type": "ERROR", "object": {"kind": "Status", **_EXPIRED}}).encode() + b"\n"

_Queue = asyncio.Queue[bytes | None]


class ApiServer:
    """What it has, and who watches it."""

    def __init__(self, data: DataSet) -> None:
        self._data = data
        self._version = data.first_seq
        services = range(data.services)
        self._vms = [dataset.vm_json(*data.place(seq), seq) for seq in data.initial()]
        self._objects: dict[str, Callable[[], list[bytes]]] = {
            _VMS: lambda: self._vms,
            f"{_VERSION}/virtualmachineservices": _first(map(dataset.service_json, services), self),
            "/api/v1/services": _first(map(_service, services), self),
            "/api/v1/endpoints": _first((_endpoints(data, s) for s in services), self),
        }
        self.services = data.services
        self._watches: dict[str, _Queue] = {}
        self._changes: dict[int, bytes] = {}  # Of VMs, by the version that each made.

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.get(_GROUP, self._discovery),
            web.get(_VERSION, self._resources),
            *(web.get(path, self._read) for path in self._objects),
        ]

    def change(self, seq: int) -> None:
        """Have a VM report the address that says `seq`."""
        service, endpoint = self._data.place(seq)
        vm = dataset.vm_json(service, endpoint, seq)
        self._vms[service * self._data.endpoints + endpoint] = vm
        self._version = seq + 1
        self._changes[self._version] = b'{"type":"MODIFIED","object":%b}\n' % vm
        if (watch := self._watches.get(_VMS)) is not None:
            watch.put_nowait(self._changes[self._version])

    def relist(self, services: int) -> None:
        """End all watches; there are only the first so many services from now on."""
        self.services = services
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            watch.put_nowait(None)

    @property
    def watched(self) -> bool:
        """Whether everything that there is is watched."""
        return len(self._watches) == len(self._objects)

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response({"versions": [{"version": "v1alpha6"}]})

    async def _resources(self, _request: web.Request) -> web.Response:
        names = ("virtualmachines", "virtualmachineservices")
        return web.json_response({"resources": [{"name": name} for name in names]})

    async def _read(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        objects = self._objects[request.path]()
        # All pages say the version of the first: what has changed since, a watch repeats.
        token = request.query.get("continue") or f"0-{self._version}"
        first, version = map(int, token.split("-"))
        after = first + int(request.query["limit"])
        page = objects[first:after]
        more = f"{after}-{version}" if after < len(objects) else ""
        meta = json.dumps({"resourceVersion": str(version), "continue": more}).encode()
        body = b'{"metadata":%b,"items":[%b]}' % (meta, b",".join(page))
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        lines: _Queue = asyncio.Queue()
        self._watches[request.path] = lines
        if request.path == _VMS:
            since = int(request.query["resourceVersion"])
            for version, change in self._changes.items():
                if version > since:
                    lines.put_nowait(change)
        while (line := await self._next(lines)) is not None:
            await response.write(line)
        await response.write(_GONE)
        return response

    async def _next(self, lines: _Queue) -> bytes | None:
        """The next line; a bookmark if none comes for so long; None at the end."""
        try:
            async with asyncio.timeout(_BOOKMARK_S):
                return await lines.get()
        except TimeoutError:
            return self._bookmark()

    def _bookmark(self) -> bytes:
        meta = {"metadata": {"resourceVersion": str(self._version)}}
        return json.dumps({"type": "BOOKMARK", "object": meta}).encode() + b"\n"


def _first(objects: Any, server: ApiServer) -> Callable[[], list[bytes]]:
    """The objects of those services that there are now."""
    made = list(objects)
    return lambda: made[: server.services]


def _meta(service: int) -> dict[str, Any]:
    owner = {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": "VirtualMachineService",
        "name": dataset.service_name(service),
        "uid": str(uuid.UUID(int=service + 1)),
        "controller": True,
    }
    return {
        "name": dataset.service_name(service),
        "namespace": dataset.NAMESPACE,
        "uid": str(uuid.uuid4()),
        "resourceVersion": "1",
        "ownerReferences": [owner],
    }


def _service(service: int) -> bytes:
    port = {"name": "http", "protocol": "TCP", "port": dataset.PORT}
    spec = {
        "type": "ClusterIP",
        "clusterIP": f"10.96.{service >> 8 & 255}.{service & 255}",
        "ipFamilies": ["IPv4"],
        "ports": [{**port, "targetPort": dataset.TARGET_PORT}],
    }
    return json.dumps({"metadata": _meta(service), "spec": spec}).encode()


def _endpoints(data: DataSet, service: int) -> bytes:
    seqs = range(service * data.endpoints, (service + 1) * data.endpoints)
    addresses = [{"ip": dataset.address(seq)} for seq in seqs]
    ports = [{"name": "http", "port": dataset.TARGET_PORT, "protocol": "TCP"}]
    subsets = [{"addresses": addresses, "ports": ports}]
    return json.dumps({"metadata": _meta(service), "subsets": subsets}).encode()


async def _serve() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, required=True)
    parser.add_argument("--endpoints", type=int, required=True)
    given = parser.parse_args()
    server = ApiServer(DataSet(given.services, given.endpoints))
    application = web.Application()
    application.add_routes(server.routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    _say({"address": f"{host}:{port}"})
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    try:
        await _obey(server, commands)
    finally:
        await runner.cleanup()


async def _obey(server: ApiServer, commands: asyncio.StreamReader) -> None:
    while line := await commands.readline():
        command = json.loads(line)
        match command["do"]:
            case "quit":
                return
            case "change":
                server.change(command["seq"])
            case "relist":
                server.relist(command["services"])
        _say({"watched": server.watched})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve())
