"""What is held of each file of a directory, and which files differ from that.

Looks at the status of one path at a time, and reads no content.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.objects import Kind, Object
from vmsvc_grpc.source import tree
from vmsvc_grpc.source.breaks import clock
from vmsvc_grpc.source.contents import Contents, Entry
from vmsvc_grpc.source.problems import FileProblem
from vmsvc_grpc.source.rebuilding import Rebuilding
from vmsvc_grpc.source.settling import Settling, Unsettled
from vmsvc_grpc.source.tree import Oddity, Signature
from vmsvc_grpc.source.union import Union


@dataclass(slots=True)
class HeldFile:
    """The last content read of a file. Without signature it could not be opened: try again."""

    signature: Signature | Oddity | None
    digest: bytes
    problem: FileProblem | None
    rewritten_at: float = -math.inf
    """When it was last changed in place, and so maybe not to its end."""

    @property
    def counts(self) -> bool:
        """Whether that content counts; else what was read before does."""
        return self.problem is None or isinstance(self.signature, Oddity)

    @property
    def whole(self) -> bool:
        """Whether that content counts and is all there is: what it lacks will not come."""
        return self.counts and self.rewritten_at == -math.inf


class KnownFiles:
    """Files by path: what was last read of them, and those that are to be read anew.

    `held` and `settling` are for others to look at; `union` has the contents. `touched` are the
    files whose problems may have changed.
    """

    def __init__(
        self, root: Path, *, settling: Settling, rebuilding: Rebuilding, shared: bool
    ) -> None:
        """`shared`: our own store writes beneath `root`, too, and no link is followed there."""
        self.held: dict[str, HeldFile] = {}
        self.settling = settling
        self.rebuilding = rebuilding
        self.union = Union()
        self.touched: set[str] = set()
        self.below = root if shared else None
        """The directory from which on no link is followed."""
        self._root = root
        self._shared = shared

    def look(self, path: str, *, whole: bool | None = None) -> None:
        """Check whether the file is as it was at the last look.

        `whole`: whether a new file was put there as it is, if that is known.
        """
        now = clock()
        try:
            found = tree.signature(self._root / path, below=self.below)
        except OSError:
            # Reading it will tell why.
            self.settling.put(path, Unsettled(None, now, whole=True))
            return
        if found is None:
            self.forget(path)
            return
        held, unsettled = self.held.get(path), self.settling.get(path)
        known = unsettled or held
        if known is None:
            self.rebuilding.changed(path, now)
        if known is None or found != known.signature:
            if isinstance(found, Oddity):
                self.union.drop(path)
                self.held.pop(path, None)  # Should the file be back, it is to be read anew.
            self.settling.put(path, Unsettled(found, now, _if_another(whole, known, found)))
        elif unsettled and unsettled.whole is None and whole is not None:
            whole = _if_another(whole, held, found)
            self.settling.put(path, replace(unsettled, whole=whole))

    def forget(self, path: str) -> None:
        """There is no file any more; the union declares its objects missing later. O(1)."""
        if path in self.held or self.settling.get(path) is not None:
            self.rebuilding.changed(path, clock())
        self.held.pop(path, None)
        self.settling.remove(path)
        self.settling.closed(path)
        self.union.drop(path)

    def written(self, path: str, kind: Kind, object_: Object | None) -> None:
        """The store that shares the directory has put a file in place, whole, or removed it.

        It reports the object to the cache itself, so the file is not read. But the content is
        noted, in case somebody changes it back or removes it before the next look.
        """
        self.settling.remove(path)
        if object_ is None:
            self.forget(path)
            return
        try:
            signature = tree.signature(self._root / path, below=self.below)
        except OSError:
            signature = None
        self.held[path] = HeldFile(signature, b"", None)
        entry = Entry((kind, object_.key), "document 1", Apply(object_))
        self.union.put(path, Contents({entry.id: entry}), clock())
        self.touched.add(path)

    def hold(
        self, path: str, held: HeldFile, contents: Contents | None
    ) -> Iterator[Apply | Malformed | None]:
        """Hold a file that was read; what to emit, in steps.

        Without contents, the old ones stay.
        """
        now = clock()
        self.settling.remove(path)
        self.held[path] = held
        self.touched.add(path)
        if contents is None and self._shared and held.problem:
            # The store of the directory must learn of it, to put the file right.
            contents = yield from self.union.contents(path).malformed(str(held.problem))
            if self.held.get(path) is not held:
                return
        if contents is not None:
            yield from self.union.putting(path, contents, now)
        if held.whole and self.held.get(path) is held:
            for _ in self.union.recalling(path, now):
                yield None


def _if_another(
    whole: bool | None, before: HeldFile | Unsettled | None, found: Signature | Oddity
) -> bool | None:
    """`whole`, but None for the same file as before, and for what is no file."""
    if isinstance(found, Oddity):
        return False
    known = before.signature if before else None
    return whole and not (isinstance(known, Signature) and known.inode == found.inode)
