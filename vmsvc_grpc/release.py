"""`vmsvc-grpc release`: asks, and removes our finalizer from every VMService."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import msgspec

from vmsvc_grpc.exits import EXIT_FAILED, EXIT_USAGE
from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import Credentials, NoApiServer
from vmsvc_grpc.kube.errors import ApiServerError
from vmsvc_grpc.model.problem import escaped
from vmsvc_grpc.reconciler.release import Finalized, LeaseHolder, Release, longest_s
from vmsvc_grpc.standard_output import writing_output

REFUSALS_SHOWN_MAX = 10
"""For how many VMServices the failure is printed; further ones are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """The options of the command. `namespaces` are those to look at; none: all.

    `lease` is the name of our Lease, or its beginning; `lease_namespace` is its namespace, "" if
    that is not known. `yes`: do not ask.
    """

    namespaces: Sequence[str] = ()
    lease: str = "vmsvc-grpc"
    lease_namespace: str = ""
    dry_run: bool = False
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Streams:
    """Standard output, error and input."""

    out: TextIO
    err: TextIO
    answers: TextIO


def release(found: Credentials, request: ReleaseRequest, streams: Streams) -> int:
    """Remove our finalizer from every VMService; the exit status. Prints what was done.

    Raises OutputError; what was done before it stays done.
    """
    if not (request.yes or request.dry_run or streams.answers.isatty()):
        text = "it asks before it does anything, and nobody can be asked here; add --yes"
        _say(f"vmsvc-grpc release: {text}, or --dry-run", streams.err)
        return EXIT_USAGE
    try:
        return asyncio.run(_release(found, request, streams))
    except (NoApiServer, ApiServerError) as error:
        _say(f"vmsvc-grpc release: {error}", streams.err)
    except msgspec.DecodeError as error:
        _say(f"vmsvc-grpc release: the answer cannot be read: {error}", streams.err)
    return EXIT_FAILED


async def _release(found: Credentials, request: ReleaseRequest, streams: Streams) -> int:
    async with ApiServer(found) as api:
        work = Release(api, request.namespaces)
        finalized = await work.finalized()
        if not finalized:
            _say("no VirtualMachineService has our finalizer", streams.out)
            return 0
        holders = await work.holders(request.lease, request.lease_namespace)
        refused = _refuses(await _renewing(work, holders, streams.err), streams.err)
        if request.dry_run:
            for one in finalized:
                _say(f"would release {one.key}", streams.out)
            _say(f"{len(finalized)} VirtualMachineServices have our finalizer", streams.out)
        if refused:
            return EXIT_FAILED
        if request.dry_run:
            return 0
        if not request.yes:
            if not _agreed(finalized, api.host, streams):
                _say("nothing was changed", streams.out)
                return EXIT_FAILED
            # The answer may take hours. A holder that has written its Lease meanwhile is alive.
            now = await work.holders(request.lease, request.lease_namespace)
            if _refuses([held for held in now if held not in holders], streams.err):
                return EXIT_FAILED
        return await _let_all_go(work, finalized, streams)


async def _renewing(
    work: Release, holders: Sequence[LeaseHolder], err: TextIO
) -> Sequence[LeaseHolder]:
    """The holders that write now, and would add the finalizer again."""
    if not holders:
        return ()
    names = ", ".join(f"{held.lease} by {held.holder}" for held in holders)
    wait_s = longest_s(holders)
    _say(f"Lease held: {names}; waiting {wait_s:g} s to see whether it is renewed", err)
    return await work.renewing(holders)


def _refuses(alive: Sequence[LeaseHolder], err: TextIO) -> bool:
    """Whether live replicas are in the way; prints a line for each."""
    for held in alive:
        _say(
            f"vmsvc-grpc release: Lease {held.lease} is held by {held.holder}, which would put "
            "the finalizer on again; scale the Deployment to 0 first",
            err,
        )
    return bool(alive)


def _agreed(finalized: Sequence[Finalized], host: str, streams: Streams) -> bool:
    """Ask a person whether to go on; without an answer, no."""
    namespaces = len({one.key.namespace for one in finalized})
    question = (
        f"Take our finalizer off {len(finalized)} VirtualMachineServices in {namespaces} "
        f"namespaces of {host}? [y/N] "
    )
    _say(question, streams.out, end="")
    return streams.answers.readline().strip().lower() in ("y", "yes")


async def _let_all_go(work: Release, finalized: Sequence[Finalized], streams: Streams) -> int:
    """Release all of them; a refusal of one does not stop the others."""
    released = refused = 0
    for one in finalized:
        try:
            let_go = await work.let_go(one)
        except ApiServerError as error:
            if not error.status:
                raise  # Nobody answers, so neither would anybody for the next one.
            refused += 1
            if refused <= REFUSALS_SHOWN_MAX:
                _say(f"vmsvc-grpc release: {one.key}: {error}", streams.err)
            continue
        if let_go:
            _say(f"released {one.key}", streams.out)
            released += 1
    _say(f"released {released} VirtualMachineServices", streams.out)
    if not refused:
        return 0
    _say(f"vmsvc-grpc release: {refused} could not be released; try again", streams.err)
    return EXIT_FAILED


def _say(text: str, stream: TextIO, *, end: str = "\n") -> None:
    """Print a line, cut and escaped, as names and errors in it come from the API server."""
    with writing_output():
        print(escaped(text), end=end, file=stream, flush=True)
