"""The driver of lists: however much is listed at once, others have their turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.model.events import Apply, Event
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.source.kube import KubeSource, KubeSourceBounds

_NAMESPACES = tuple(f"team-{number}" for number in range(20))
_SERVICES = 15


class _Listed:
    """An API server that answers each list at once, and whose watches never begin."""

    _namespace = ""

    async def request(self, _method: str, path: str, **_: Any) -> bytes:
        namespace = path.split("/")[4]
        names = (f"s{number}" for number in range(_SERVICES))
        items = [{"metadata": {"name": name, "namespace": namespace}} for name in names]
        return msgspec.json.encode({"metadata": {"resourceVersion": "7"}, "items": items})

    def watch(self, path: str, *_: object, **__: object) -> _Listed:
        return self

    async def __aenter__(self) -> object:
        return await asyncio.Event().wait()

    async def __aexit__(self, *_: object) -> None:
        pass


class _Watched(_Listed):
    """An API server whose lists are empty, and whose watches bring many lines in one read."""

    async def request(self, *_: Any, **__: Any) -> bytes:
        return msgspec.json.encode({"metadata": {"resourceVersion": "7"}, "items": []})

    def watch(self, path: str, *_: object, **__: object) -> _Watched:
        watching = _Watched()
        watching._namespace = path.split("/")[4]
        return watching

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self._lines()

    async def _lines(self) -> AsyncIterator[bytes]:
        for number in range(_SERVICES):
            about = {
                "name": f"s{number}",
                "namespace": self._namespace,
                "resourceVersion": str(8 + number),
            }
            yield msgspec.json.encode({"type": "ADDED", "object": {"metadata": about}})
        await asyncio.Event().wait()


@pytest.mark.parametrize("server", [_Listed, _Watched])
async def test_a_turn_of_the_event_loop_has_one_slice_however_many_come(
    server: type[_Listed],
) -> None:
    turn = 0
    slices: Counter[int] = Counter()

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        asyncio.get_running_loop().call_soon(next_turn)

    def emit(event: Event) -> None:
        slices[turn] += isinstance(event, Apply)

    source = KubeSource(
        cast("ApiServer", server()),
        kinds=(Kind.SERVICE,),
        namespaces=_NAMESPACES,
        bounds=KubeSourceBounds(slice_s=0.0),  # So each object is one.
    )
    next_turn()
    following = asyncio.create_task(source.run(emit))
    async with asyncio.timeout(30.0):
        while slices.total() < len(_NAMESPACES) * _SERVICES:  # noqa: ASYNC110 - it is nobody's event
            await asyncio.sleep(0)
    following.cancel()
    assert max(slices.values()) == 1
