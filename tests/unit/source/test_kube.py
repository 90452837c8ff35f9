"""The driver of lists: however much is listed at once, others have their turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import msgspec

from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.model.events import Apply, Event
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.source.kube import KubeSource, KubeSourceBounds

_NAMESPACES = tuple(f"team-{number}" for number in range(20))
_SERVICES = 15


class _Listed:
    """An API server that answers each list at once, and whose watches never begin."""

    async def request(self, _method: str, path: str, **_: Any) -> bytes:
        namespace = path.split("/")[4]
        names = (f"s{number}" for number in range(_SERVICES))
        items = [{"metadata": {"name": name, "namespace": namespace}} for name in names]
        return msgspec.json.encode({"metadata": {"resourceVersion": "7"}, "items": items})

    def watch(self, *_: object, **__: object) -> _Listed:
        return self

    async def __aenter__(self) -> None:
        await asyncio.Event().wait()

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_a_turn_of_the_event_loop_has_one_slice_however_many_are_listed() -> None:
    turn = 0
    slices: Counter[int] = Counter()

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        asyncio.get_running_loop().call_soon(next_turn)

    def emit(event: Event) -> None:
        slices[turn] += isinstance(event, Apply)

    source = KubeSource(
        cast("ApiServer", _Listed()),
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
