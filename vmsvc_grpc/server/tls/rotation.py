"""TLS by files that others replace: the newest that can be used, for each handshake.

Certificate and key are one, the CAs of clients another: each is taken by itself, so that a flaw in
one does not hold up the other. What cannot be used is reported, and what was last used stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Protocol

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.server.tls.files import (
    Identity,
    TlsFiles,
    TlsFilesError,
    Usable,
    at,
    context,
    identity,
    read_client_ca,
    read_pair,
)
from vmsvc_grpc.server.tls.links import directories

PAIR, CLIENT_CA = "certificate", "client-ca"
"""The two parts, as metrics name them."""

H2, HTTP1 = "h2", "http/1.1"
"""What listeners speak, by the names of ALPN."""

RESCAN_S = 10.0
"""How often files are looked at unasked: some file systems give no notice of changes."""

SETTLE_S = 0.2
"""How long files must rest after a notice: a certificate and its key may be written in turn."""

_SETTLES_MAX = 10

_log = logging.getLogger(__name__)


class FileWatch(Protocol):
    """Notices of changes in directories, by their paths without the first slash."""

    noticed: asyncio.Event

    def open(self) -> None:
        """Begin. Does not raise."""

    def close(self) -> None:
        """End: nothing is watched any more."""

    def directory(self, path: str) -> None:
        """Watch a directory. Does not raise."""

    def keep(self, paths: AbstractSet[str]) -> None:
        """Watch only these from now on."""

    def take(self) -> object:
        """Begin to wait for the next notice."""

    def unwatched(self) -> str | None:
        """What cannot be watched, and why; None if everything is watched."""


class _Part:
    """Files that are used together, and what was last read of them."""

    def __init__(self, name: str, paths: tuple[Path, ...], read: Callable[[float], Usable]) -> None:
        self.name = name
        self.paths = paths
        self.read = read
        self.used: Usable | None = None
        self.seen: Identity = ()
        self.trouble = ""

    def look(self, now: float) -> Usable | TlsFilesError | None:
        """What the files hold if it may be something new, or why that cannot be used; waits."""
        seen = identity(self.paths)
        # What could not be used may be usable by now although the files are the same: its time
        # has come, or its directory may be read.
        expired = self.used is not None and self.used.ends <= now
        if seen == self.seen and not self.trouble and not expired:
            return None
        self.seen = seen
        try:
            return self.read(now)
        except TlsFilesError as error:
            return error


class TlsRotation:
    """A server's TLS by files. `load` them, then `run` while serving; one event loop owns it."""

    def __init__(self, files: TlsFiles, watch: FileWatch) -> None:
        """Reads nothing yet."""
        self.loads: Counter[str] = Counter()
        """How often each part was taken: at the start, and when its files changed."""
        self._watch = watch
        self._unwatched: str | None = None
        pair = partial(read_pair, files.certificate, files.key)
        self._pair = _Part(PAIR, (files.certificate, files.key), pair)
        self._parts = [self._pair]
        self._client_ca: _Part | None = None
        if files.client_ca is not None:
            read = partial(read_client_ca, files.client_ca)
            self._client_ca = _Part(CLIENT_CA, (files.client_ca,), read)
            self._parts.append(self._client_ca)
        self._contexts: dict[str, ssl.SSLContext] = {}

    def load(self) -> None:
        """Read the files for the first time. Raises TlsFilesError."""
        for part in self._parts:
            part.seen = identity(part.paths)
            part.used = part.read(time.time())
            self.loads[part.name] += 1
        self._renew()

    def context(self, protocol: str) -> ssl.SSLContext:
        """The context for handshakes that begin now, which offers `protocol` by ALPN."""
        return self._contexts[protocol]

    async def run(self) -> None:
        """Take new files until cancelled."""
        self._watch.open()
        try:
            while True:
                self._watch.take()
                await self._watch_directories()
                for part in self._parts:
                    found = await asyncio.to_thread(part.look, time.time())
                    self._follow(part, found)
                await self._rest()
        finally:
            self._watch.close()

    @property
    def troubles(self) -> tuple[str, ...]:
        """Sentences that say what is wrong with files now."""
        return tuple(part.trouble for part in self._parts if part.trouble)

    def ends(self) -> dict[str, float]:
        """For each part, when what is used expires, as a Unix timestamp."""
        return {part.name: part.used.ends for part in self._parts if part.used}

    def refused(self) -> dict[str, bool]:
        """For each part, whether something is wrong with its files now."""
        return {part.name: bool(part.trouble) for part in self._parts}

    def _follow(self, part: _Part, found: Usable | TlsFilesError | None) -> None:
        """Use what was found, or report what is wrong with it, once."""
        before = part.used
        if isinstance(found, Usable) and found != before:
            part.used = found
            try:
                self._renew()
            except TlsFilesError as error:
                part.used, found = before, error
            else:
                self.loads[part.name] += 1
                ends = at(found.ends)
                extra = about(reason="TlsTaken", file=part.name, expires=ends)
                _log.info("TLS: took a new %s, which expires at %s", part.name, ends, extra=extra)
        if isinstance(found, TlsFilesError):
            trouble = f"{found}; what was read before stays in use"
            if trouble != part.trouble:
                extra = about(reason="TlsTrouble", file=part.name, error=trouble)
                _log.warning("TLS: %s", trouble, extra=extra)
            part.trouble = trouble
        elif found is not None and part.trouble:
            part.trouble = ""
            extra = about(reason="InOrder", file=part.name)
            _log.info("TLS: nothing is wrong with the %s any more", part.name, extra=extra)

    def _renew(self) -> None:
        """Make contexts of what is used. Connections that are there keep theirs."""
        assert self._pair.used is not None, "it is the first that is read"
        client_ca = self._client_ca.used if self._client_ca else None
        self._contexts = {each: context(self._pair.used, client_ca, each) for each in (H2, HTTP1)}

    async def _watch_directories(self) -> None:
        """Watch all directories where a change may lead to other files."""
        paths = [path for part in self._parts for path in part.paths]
        found = await asyncio.to_thread(directories, paths)
        self._watch.keep(found)
        for directory in found:
            self._watch.directory(directory)
        unwatched = self._watch.unwatched()
        if unwatched not in (None, self._unwatched):
            _log.warning(
                "TLS: where its files are, %s; they are looked at each %g s", unwatched, RESCAN_S
            )
        self._unwatched = unwatched

    async def _rest(self) -> None:
        """Wait for a notice, and then until there are no more for a while; or for the next look."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESCAN_S):
                await self._watch.noticed.wait()
        for _ in range(_SETTLES_MAX):
            if not self._watch.noticed.is_set():
                return
            self._watch.take()
            await asyncio.sleep(SETTLE_S)
