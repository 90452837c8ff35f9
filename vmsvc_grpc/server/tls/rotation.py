"""TLS by files that others replace: the newest that can be used, for each handshake.

Certificate and key are one, the CAs of clients another: each is taken by itself, so that a flaw in
one does not hold up the other. What cannot be used is reported, and what was last used stays.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vmsvc_grpc.logs.about import about
from vmsvc_grpc.server.file_follower import FileFollower, FileWatch, Identity, identity
from vmsvc_grpc.server.tls.files import (
    TlsFiles,
    TlsFilesError,
    Usable,
    at,
    context,
    read_client_ca,
    read_pair,
)

PAIR, CLIENT_CA = "certificate", "client-ca"
"""The two parts, as metrics name them."""

H2, HTTP1 = "h2", "http/1.1"
"""What listeners speak, by the names of ALPN."""

RESCAN_S = 10.0
"""How often files are looked at unasked: some file systems give no notice of changes."""

_log = logging.getLogger(__name__)


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


def _log_unwatched(unwatched: str) -> None:
    _log.warning("TLS: where its files are, %s; they are looked at each %g s", unwatched, RESCAN_S)


class TlsRotation:
    """A server's TLS by files. `load` them, then `run` while serving; one event loop owns it."""

    def __init__(self, files: TlsFiles, watch: FileWatch) -> None:
        """Reads nothing yet."""
        self.loads: Counter[str] = Counter()
        """How often each part was taken: at the start, and when its files changed."""
        pair = partial(read_pair, files.certificate, files.key)
        self._pair = _Part(PAIR, (files.certificate, files.key), pair)
        self._parts = [self._pair]
        self._client_ca: _Part | None = None
        if files.client_ca is not None:
            read = partial(read_client_ca, files.client_ca)
            self._client_ca = _Part(CLIENT_CA, (files.client_ca,), read)
            self._parts.append(self._client_ca)
        paths = [path for part in self._parts for path in part.paths]
        self._follower = FileFollower(paths, watch, RESCAN_S, _log_unwatched)
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
        await self._follower.run(self._look)

    async def _look(self) -> None:
        for part in self._parts:
            found = await asyncio.to_thread(part.look, time.time())
            self._follow(part, found)

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
