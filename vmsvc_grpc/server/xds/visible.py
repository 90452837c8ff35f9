"""The namespaces of which the client of one stream may hear, where not everybody may hear of all.

A right is to a namespace, and the names of resources say theirs: so rights pick what is followed,
and never what is in a resource.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from itertools import islice

from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.model.validate import is_dns_1123_label
from vmsvc_grpc.server.access.gate import Access, Verdict
from vmsvc_grpc.server.access.needs import endpoints_everywhere, endpoints_in
from vmsvc_grpc.server.call import Code, RpcError

OnNoRoom = Callable[[str, str], None]
"""Called once for each namespace that there is no room to ask about, with namespace and setting."""

VERDICTS_PER_STREAM_MAX = 5_000
"""A quarter of what a caller may have: names that anybody can make one client ask for leave its
other streams, and other clients of the same name, theirs."""

# How many namespaces are asked about, or looked at again, in one turn: some ms.
_LOOKS_A_TURN = 500

_EVERYWHERE = "*"  # For the log.


class Visible:
    """What one client may hear of, as far as that was asked for.

    Of some namespaces nobody can say it now, or there is no room to ask: they are not visible until
    it is known, which costs the others nothing. Only a client of whom nothing is known is refused.
    If there is no room to ask about all namespaces, it is asked about each.

    A turn begins with `begin_turn`. Once it is `spent`, what is left is done in the next one.

    `gained` rises when it may hear of more, or somebody can say of more whether it may. What it may
    not hear of any more ends its stream: so it is answered anew, by the rules for clients that come
    back, of which each knows what is gone.
    """

    __slots__ = (
        "_access",
        "_error",
        "_everywhere",
        "_holds",
        "_knows",
        "_looked",
        "_looking",
        "_looks_left",
        "_no_room",
        "_on_no_room",
        "_pending",
        "_required",
        "_verdicts",
        "gained",
    )

    def __init__(self, access: Access, on_no_room: OnNoRoom) -> None:
        """Nothing was asked for yet."""
        self._access = access
        self._on_no_room = on_no_room
        self._everywhere: Verdict | None = None  # None: that was not asked for.
        self._verdicts: dict[str, Verdict | None] = {}  # None: nobody can say now.
        self._holds: Counter[str] = Counter()
        # Of what was asked for, that of which the verdict is not known yet; None: all namespaces.
        self._pending: deque[str | None] = deque()
        self._no_room: dict[str | None, None] = {}  # Nobody is told when there is room for these.
        self._required: set[str] = set()  # Of these the verdict must become known.
        self._error: RpcError | None = None  # Why the last one is not known that nobody can say.
        self._knows = False  # Whether anything was known.
        self._looked = access.changes  # `changes` when all was looked at last.
        self._looking: deque[str | None] = deque()  # What is left of such a look.
        self._looks_left = _LOOKS_A_TURN
        self.gained = 0

    def begin_turn(self) -> None:
        """Look at so many namespaces from now on."""
        self._looks_left = _LOOKS_A_TURN

    @property
    def spent(self) -> bool:
        """Whether the turn's looks are used up: the stream is to be asked again in another."""
        return self._looks_left <= 0

    def hold(self, namespace: str) -> None:
        """Keep the verdict on a namespace, as something goes by it, until it is let go as often."""
        self._holds[namespace] += 1

    def let_go(self, namespace: str) -> None:
        """Forget the verdict on a namespace, unless something else goes by it."""
        self._holds[namespace] -= 1
        if self._holds[namespace]:
            return
        del self._holds[namespace]
        if namespace in self._verdicts:
            del self._verdicts[namespace]
            self._access.let_go(endpoints_in("watch", namespace))
        self._no_room.pop(namespace, None)
        self._required.discard(namespace)

    def everywhere(self) -> bool:
        """Whether the client may hear of all namespaces, as far as it is known. Raises RpcError."""
        if self._everywhere is None and None not in self._no_room:
            self._everywhere = self._verdict(None, None)
            if self._everywhere is Verdict.PENDING:
                self._pending.append(None)
        return self._everywhere is Verdict.ALLOWED

    def shows(self, namespace: str, *, required: bool = False) -> bool:
        """Whether the client may hear of a namespace, as far as it is known.

        Raises RpcError only for one that is `required`, here or in `settled`, if nobody can say. A
        text that can be no namespace's name is not asked about: "" would be all of them.
        """
        if self._everywhere is Verdict.ALLOWED:
            return True
        if namespace not in self._verdicts:
            if not is_dns_1123_label(namespace):
                return False
            if required:
                self._required.add(namespace)
            self._looks_left -= 1
            self._verdicts[namespace] = self._verdict(namespace, None)
            if self._verdicts[namespace] is Verdict.PENDING:
                self._pending.append(namespace)
        elif required and self._verdicts[namespace] in (None, Verdict.PENDING):
            self._required.add(namespace)
            self._look(namespace)
        return self._verdicts[namespace] is Verdict.ALLOWED

    def is_unknown(self, namespace: str) -> bool:
        """Whether nobody can say now whether the client may hear of a namespace it asked for."""
        return self._everywhere is not Verdict.ALLOWED and (
            self._verdicts.get(namespace, Verdict.DENIED) is None
        )

    def settled(self) -> bool:
        """Look at what has changed; whether all that was asked for is known, or cannot be now.

        False, too, if the turn is `spent` before that.

        Raises RpcError: PERMISSION_DENIED for what the client may not hear of any more, and as
        `Access.check` does if nothing is known. While verdicts come one by one, it looks at those
        alone; once all are known, at all that was asked for, if any has changed.
        """
        while self._pending and not self.spent and self._look(self._pending[0]):
            self._pending.popleft()
        if not self._pending:
            self._look_at_all()
        if self._no_room:
            self._retry()
        if self._pending or self._looking:
            return False
        if self._error is not None and not self._knows:
            raise self._error
        return True

    @property
    def still(self) -> bool:
        """Whether nothing is left to look at until the stream is woken."""
        left = self._pending or self._looking or self._no_room
        failed = self._error is not None and not self._knows
        return not (left or failed) and self._looked == self._access.changes

    def _look_at_all(self) -> None:
        """Look at everything if any verdict has changed, as far as the turn goes."""
        while not self.spent:
            if not self._looking:
                if self._pending or self._looked == self._access.changes:
                    return
                self._looked = self._access.changes
                if self._everywhere is not None:
                    self._looking.append(None)
                self._looking.extend(self._verdicts)
            while self._looking and not self.spent:
                each = self._looking.popleft()
                if each not in self._no_room and not self._look(each):
                    self._pending.append(each)

    def _retry(self) -> None:
        """Ask about namespaces that there was no room for, as far as there is some."""
        for namespace in list(islice(self._no_room, max(0, self._looks_left))):
            if not self._look(namespace):
                self._pending.append(namespace)
            if namespace in self._no_room:
                return

    def _look(self, namespace: str | None) -> bool:
        """Take in the verdict on a namespace, or on all (None); whether it need not be waited for.

        One that was shown, and of which nobody can say any more whether it may be, ends the stream.
        """
        if namespace is not None and namespace not in self._verdicts:
            return True  # It was let go while it was pending.
        self._looks_left -= 1
        verdict: Verdict | None
        if namespace is None:
            before, where = self._everywhere, "all namespaces"
            verdict = self._everywhere = self._verdict(None, before)
        else:
            before, where = self._verdicts.get(namespace), f"the namespace {quoted(namespace)}"
            verdict = Verdict.ALLOWED
            if self._everywhere is not Verdict.ALLOWED:
                verdict = self._verdict(namespace, before)
            self._verdicts[namespace] = verdict
        if before is Verdict.ALLOWED and verdict is Verdict.DENIED:
            text = f"the right to watch endpoints in {where} was taken away; connect again"
            raise RpcError(Code.PERMISSION_DENIED, text)
        self.gained += verdict is not before and (verdict is Verdict.ALLOWED or before is None)
        return verdict is not Verdict.PENDING

    def _verdict(self, namespace: str | None, before: Verdict | None) -> Verdict | None:
        """The verdict on a namespace, or on all; None if nobody can say, or there is no room.

        One that is known not to be shown stays so while nobody can say.
        """
        try:
            verdict = self._check(namespace)
        except RpcError as error:
            full = error.code is Code.RESOURCE_EXHAUSTED
            required = namespace is None or namespace in self._required
            unknown = full or (error.code is Code.UNAVAILABLE and not required)
            if before is Verdict.ALLOWED or not unknown:
                raise
            if before is Verdict.DENIED:
                return before
            self._error = error
            if full and namespace not in self._no_room:
                self._no_room[namespace] = None
                self._on_no_room(_EVERYWHERE if namespace is None else namespace, error.limit)
            return None
        self._no_room.pop(namespace, None)
        if verdict is not Verdict.PENDING and namespace is not None:
            self._required.discard(namespace)
        return verdict

    def _check(self, namespace: str | None) -> Verdict:
        if namespace is None:
            verdict = self._access.check(endpoints_everywhere("watch"))
        else:
            self._check_room(namespace)
            verdict = self._access.check(endpoints_in("watch", namespace))
        self._knows |= verdict is not Verdict.PENDING
        return verdict

    def _check_room(self, namespace: str) -> None:
        known = namespace in self._verdicts and namespace not in self._no_room
        if not known and len(self._verdicts) - len(self._no_room) >= VERDICTS_PER_STREAM_MAX:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"a stream may name {VERDICTS_PER_STREAM_MAX} namespaces (verdicts_per_stream_max)",
                limit="verdicts_per_stream_max",
            )
