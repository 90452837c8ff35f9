"""The namespaces of which the client of one stream may hear, where not everybody may hear of all.

A right is to a namespace, and the names of resources say theirs: so rights pick what is followed,
and never what is in a resource.
"""

from __future__ import annotations

from collections import deque

from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.model.validate import is_dns_1123_label
from vmsvc_grpc.server.access.gate import Access, Verdict
from vmsvc_grpc.server.access.needs import endpoints_everywhere, endpoints_in
from vmsvc_grpc.server.call import Code, RpcError


class Visible:
    """What one client may hear of, as far as that was asked for.

    `gained` rises when it may hear of more. What it may not hear of any more ends its stream: so it
    is answered anew, by the rules for clients that come back, of which each knows what is gone.
    """

    __slots__ = ("_access", "_everywhere", "_looked", "_pending", "_verdicts", "gained")

    def __init__(self, access: Access) -> None:
        """Nothing was asked for yet."""
        self._access = access
        self._everywhere: Verdict | None = None  # None: that was not asked for.
        self._verdicts: dict[str, Verdict] = {}
        # Of what was asked for, that of which the verdict is not known yet; None: all namespaces.
        self._pending: deque[str | None] = deque()
        self._looked = access.changes  # `changes` when all was looked at last.
        self.gained = 0

    def everywhere(self) -> bool:
        """Whether the client may hear of all namespaces, as far as it is known. Raises RpcError."""
        if self._everywhere is None:
            self._everywhere = self._access.check(endpoints_everywhere("watch"))
            if self._everywhere is Verdict.PENDING:
                self._pending.append(None)
        return self._everywhere is Verdict.ALLOWED

    def shows(self, namespace: str, *, known: bool = True) -> bool:
        """Whether the client may hear of a namespace, as far as it is known.

        Raises RpcError as `Access.check` does; unless it has to be `known`, what cannot be found
        out is not shown for now. A text that can be no namespace's name is not asked about: ""
        would be all of them.
        """
        if self._everywhere is Verdict.ALLOWED:
            return True
        verdict = self._verdicts.get(namespace)
        if verdict is None:
            if not is_dns_1123_label(namespace):
                return False
            verdict = self._verdict(namespace, None if known else Verdict.DENIED)
            self._verdicts[namespace] = verdict
            if verdict is Verdict.PENDING:
                self._pending.append(namespace)
        return verdict is Verdict.ALLOWED

    def settled(self) -> bool:
        """Look at what has changed; whether all that was asked for is known.

        Raises RpcError: PERMISSION_DENIED for what the client may not hear of any more, and as
        `Access.check` does. While verdicts come one by one, it looks at those alone; once all are
        known, at all that was asked for, if any has changed.
        """
        while self._pending and self._look(self._pending[0]):
            self._pending.popleft()
        if not self._pending and self._looked != self._access.changes:
            self._looked = self._access.changes
            asked: list[str | None] = [] if self._everywhere is None else [None]
            asked += self._verdicts
            self._pending.extend(each for each in asked if not self._look(each))
        return not self._pending

    def _look(self, namespace: str | None) -> bool:
        """Take in the verdict on a namespace, or on all (None); whether it is known."""
        if namespace is None:
            before, where = self._everywhere, "all namespaces"
            verdict = self._everywhere = self._access.check(endpoints_everywhere("watch"))
        else:
            before, where = self._verdicts[namespace], f"the namespace {quoted(namespace)}"
            verdict = Verdict.ALLOWED
            if self._everywhere is not Verdict.ALLOWED:
                verdict = self._verdict(namespace, before)
            self._verdicts[namespace] = verdict
        if before is Verdict.ALLOWED and verdict is Verdict.DENIED:
            text = f"the right to watch endpoints in {where} was taken away; connect again"
            raise RpcError(Code.PERMISSION_DENIED, text)
        self.gained += verdict is Verdict.ALLOWED and before is not verdict
        return verdict is not Verdict.PENDING

    def _verdict(self, namespace: str, before: Verdict | None) -> Verdict:
        """The verdict on a namespace. One that was not shown can wait while nobody knows."""
        try:
            return self._access.check(endpoints_in("watch", namespace))
        except RpcError as error:
            if error.code is Code.UNAVAILABLE and before is Verdict.DENIED:
                return before
            raise
