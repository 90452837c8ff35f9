"""A client that is far away, on a busy server: what it newly asks for comes all the same."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.objects import service, spec, vm
from tests.unit.server.endpoint_service.watching import synced_cache
from tests.unit.server.xds.client import CDS, EDS, XdsClient, node, truth
from tests.unit.server.xds.world import BOTH
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.model.events import Apply
from vmsvc_grpc.model.objects import Key
from vmsvc_grpc.server.xds.shared import Form

SLACK_MS = 500
BUSY, NEW = "busy.shop:80", "new.shop:80"


class FarEnvoy(XdsClient):
    """An Envoy with a wildcard of clusters, over a link that takes `delay_ms` each way.

    Time is a number that `tick` raises. As Envoy does, it asks for the load assignments of all
    clusters that it holds, and acknowledges clusters once it has those.
    """

    def __init__(self, cache: Cache, form: Form, delay_ms: int) -> None:
        self.now_ms = 0
        self.unheard_max = 0
        """Most responses of load assignments that were under way or not yet acknowledged."""
        self._nonces: set[int] = set()
        self._delay_ms = delay_ms
        self._up: deque[tuple[int, bytes]] = deque()
        self._down: deque[tuple[int, bytes]] = deque()
        self._kept: Any = None
        super().__init__(cache, form, who=node("envoy"))
        if form is Form.SOTW:
            self.ask(CDS)
        else:
            self.change(CDS)

    def tick(self) -> None:
        """A millisecond goes by."""
        self.now_ms += 1
        while self._up and self._up[0][0] <= self.now_ms:
            self.stream.receive(self._up.popleft()[1])
            self._let_out(1)  # As a transport does after each request.
        self._let_out(100)
        while self._down and self._down[0][0] <= self.now_ms:
            self.flying.append(self._down.popleft()[1])
            self.read()
            self._want()

    def _let_out(self, most: int) -> None:
        for _ in range(most):
            if (message := self.said()) is None:
                break
            self._down.append((self.now_ms + self._delay_ms, message))
            if (assignments := self.stream.subscriptions.get(EDS)) is not None:
                self._nonces.add(assignments.nonce)
                unheard = sum(nonce > assignments.answered for nonce in self._nonces)
                self.unheard_max = max(self.unheard_max, unheard)

    def _want(self) -> None:
        """Ask for the load assignments of new clusters; let a kept acknowledgement go."""
        wanted, asked = set(self.held(CDS)), self.asked(EDS).names
        if self.form is Form.DELTA:
            if wanted - asked:
                self.change(EDS, wanted - asked)
        elif wanted != asked:
            self.ask(EDS, *sorted(wanted))
        if self._kept is not None and wanted <= self.held(EDS).keys():
            kept, self._kept = self._kept, None
            super()._send(kept)

    def _send(self, request: Any) -> None:
        if self._first:
            request.node.CopyFrom(self.who)
            self._first = False
        warming = self.held(CDS).keys() - self.held(EDS).keys()
        if request.type_url == CDS.value and request.response_nonce and warming:
            self._kept = request  # The newest one, as each has all that those before had.
            return
        self._up.append((self.now_ms + self._delay_ms, request.SerializeToString()))


@BOTH
@settings(max_examples=15, deadline=None)
@example(delay_ms=20, every_ms=40)
@example(delay_ms=20, every_ms=5)
@example(delay_ms=5, every_ms=5)
@given(delay_ms=st.integers(5, 20), every_ms=st.integers(5, 40))
def test_a_new_service_arrives_while_another_changes(
    form: Form, delay_ms: int, every_ms: int
) -> None:
    """Within two round trips and half a second; go-control-plane and envoy#10363 starve here."""
    busy = service(Key("shop", "busy"), spec({"app": "busy"}))
    served = synced_cache(busy, vm("a", "10.0.0.1"))
    client = FarEnvoy(served, form, delay_ms)

    def pass_ms(until_ms: int, *, until_new: bool = False) -> bool:
        while client.now_ms < until_ms:
            client.tick()
            if client.now_ms % every_ms == 0:
                moved = f"10.1.{client.now_ms % 250}.{client.now_ms // 250}"
                served.apply(Apply(vm("b", moved, labels={"app": "busy"})))
            if until_new and client.held(EDS).get(NEW) == truth(served, EDS, NEW):
                return True
        return False

    pass_ms(1_000)
    assert client.held(EDS).keys() == {BUSY}
    served.apply(Apply(service(Key("shop", "new"))))
    client.unheard_max = 0  # It counts once the client has shown that it acknowledges.
    within_ms = client.now_ms + 4 * delay_ms + SLACK_MS
    assert pass_ms(within_ms, until_new=True)
    if form is Form.SOTW:
        assert client.unheard_max == 1, "one response of load assignments under way"
    client.close()
