"""What is no case is refused, and a client that is wrong fails the case that says so."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.client_conformance.driver import Driver, DriverError
from tests.client_conformance.play import CaseFailed, play
from tests.client_conformance.table import TableError, parse, read

CASE = """
cases:
  - name: one
    watch: {services: [{service: shop/web}]}
    steps:
      - opens: {request: {services: [{service: shop/web}]}}
        sends: [{synced: {}}]
        shows: [{synced: {}}]
"""


@pytest.mark.parametrize(
    ("instead", "of", "flaw"),
    [
        ("{}", "{services: [{service: shop/web}]}", "watch: nothing is to be watched"),
        ("sent", "sends", 'has no field named "sent"'),
        ("name: ''", "name: one", "a case without a name: name: required"),
        ("shows: [{}]", "shows: [{synced: {}}]", r"steps\[0\].shows\[0\]: nothing is shown"),
        ("sends_bytes: ['0g']", "sends: [{synced: {}}]", "'0g' is no hexadecimal number"),
        ("ends: {code: GONE}", "sends: [{synced: {}}]", "'GONE' is no status code of gRPC"),
        ("network: NETWORK_CUT", "shows: [{synced: {}}]", "what the client shows at the end"),
        ("- {}\n      - opens", "- opens", r"steps\[0\]: nothing happens"),
        ("[]", "cases:", "it is no mapping with cases"),
    ],
)
def test_what_is_no_case_is_refused(instead: str, of: str, flaw: str) -> None:
    text = instead if of == "cases:" else CASE.replace(of, instead, 1)
    with pytest.raises(TableError, match=flaw):
        parse(text)


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(CASE)
    with pytest.raises(TableError, match="two cases with the name 'one'"):
        read(tmp_path)


STATE = {"event": "state", "service": "shop/web", "present": True, "endpoints": []}
SYNCED, LOST = {"event": "synced"}, {"event": "disconnected", "code": "UNAVAILABLE"}
BEYOND = "it shows {'event': 'synced'} beyond what it should"

WATCH = """\
import grpc, sys, time
from vmsvc.v1 import endpoint_service_pb2 as pb, endpoint_service_pb2_grpc as stubs
channel = grpc.insecure_channel(sys.argv[2])
request = pb.WatchEndpointsRequest(services=[pb.WatchedService(service=SERVICE)])
watch = stubs.EndpointServiceStub(channel).WatchEndpoints
calls = [watch(request)]
next(calls[0])
calls += [watch(request) for _ in range(COUNT - 1)]
try:
    stubs.EndpointServiceStub(channel).ListServices(pb.ListServicesRequest())
except grpc.RpcError:
    pass  # The server has seen all that was sent before.
print(LINES, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("service", "streams", "lines", "flaw"),
    [
        ("shop/web", 1, [STATE], "it shows .*'present': True.*, not {'synced': {}}"),
        ("shop/web", 1, [LOST], "it shows .*'disconnected'.*, not {'synced': {}}"),
        ("shop/web", 1, [SYNCED, SYNCED], BEYOND),
        ("shop/db", 1, [SYNCED], "it asks for .*shop/db.*, not .*shop/web"),
        ("shop/web", 2, [SYNCED], "it has opened a stream that no step tells of"),
    ],
)
async def test_a_client_that_is_wrong_fails(
    service: str, streams: int, lines: list[object], flaw: str, tmp_path: Path
) -> None:
    text = "\n".join(map(json.dumps, lines))
    program = WATCH.replace("SERVICE", repr(service)).replace("LINES", repr(text))
    program = program.replace("COUNT", str(streams))
    [case] = parse(CASE)
    with pytest.raises(CaseFailed, match=flaw):
        await play(case, Driver([sys.executable, "-c", program]), tmp_path)


async def test_a_line_that_is_no_object_fails(tmp_path: Path) -> None:
    program = WATCH.replace("SERVICE", "'shop/web'").replace("COUNT", "1").replace("LINES", "'{}}'")
    [case] = parse(CASE)
    with pytest.raises(DriverError, match="which is no object in JSON"):
        await play(case, Driver([sys.executable, "-c", program]), tmp_path)


@pytest.mark.parametrize(
    ("program", "flaw"),
    [("raise KeyError(7)", "(?s)it has crashed: .*KeyError: 7"), ("pass", "it ends with 0")],
)
async def test_a_client_that_ends_before_it_asks_fails(
    program: str, flaw: str, tmp_path: Path
) -> None:
    [case] = parse(CASE)
    with pytest.raises((DriverError, CaseFailed), match=flaw):
        await play(case, Driver([sys.executable, "-c", program]), tmp_path)


async def test_a_case_that_is_broken_off_leaves_no_task(tmp_path: Path) -> None:
    """Whoever breaks cases off, as pytest -x does, waits for what still runs."""
    before = asyncio.all_tasks()
    [case] = parse(CASE)
    driver = Driver([sys.executable, "-c", "import time; time.sleep(60)"])
    playing = asyncio.create_task(play(case, driver, tmp_path))
    while not any("Queue.get" in repr(task) for task in asyncio.all_tasks()):
        assert not playing.done()
        await asyncio.sleep(0.01)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert not [task for task in asyncio.all_tasks() - before if "Queue.get" in repr(task)]
