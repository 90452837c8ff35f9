"""The gate for servers without an API server: client certificates, and a policy file.

The file is followed. One that cannot be used is reported, and the last good one stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from vmsvc_grpc.model.problem import escaped, system_reason
from vmsvc_grpc.server.access.alarms import Alarms
from vmsvc_grpc.server.access.caller import Caller
from vmsvc_grpc.server.access.gate import CountedPass, GateError, OpenGate, Pass, Verdict
from vmsvc_grpc.server.access.needs import OPEN, Entry, Need, ResourceNeed, UrlNeed
from vmsvc_grpc.server.access.policy import Policy, Rights, policy
from vmsvc_grpc.server.access.policy_yaml import PolicyError
from vmsvc_grpc.server.access.principal import CertificateRules, Principal
from vmsvc_grpc.server.call import Code, RpcError
from vmsvc_grpc.server.file_follower import FileFollower, FileWatch

RESCAN_S = 1.0
"""How often the file is looked at unasked: what it takes away should not last."""

_ALARMS_S = 1.0  # How late a call may end whose certificate expires.

POLICY_BYTES_MAX = 1024 * 1024

_WAKES_A_TURN = 500  # Some 3 ms: a stream that shares its messages leaves its group for it.

_NO_CERTIFICATE = (
    "this call does not say who asks; connect with a client certificate, which is how this server "
    "knows its callers"
)
_EXPIRED = "the client's certificate has expired; connect with a new one"


class PolicyFileError(GateError):
    """A policy file cannot be used. Its text is one line, with the file and the line."""


class PolicyFile:
    """A policy in a file."""

    def __init__(self, path: Path) -> None:
        """It is not read yet."""
        self.path = path

    def text(self) -> str:
        """What is in it. Raises PolicyFileError. Blocks."""
        try:
            with self.path.open("rb") as file:
                raw = file.read(POLICY_BYTES_MAX + 1)
            if len(raw) > POLICY_BYTES_MAX:
                raise self._error(f"is larger than {POLICY_BYTES_MAX} bytes")
            return raw.decode()
        except OSError as error:
            raise self._error(f"cannot be read: {system_reason(error)}") from error
        except UnicodeDecodeError as error:
            raise self._error("is not text in UTF-8") from error

    def policy_of(self, text: str) -> Policy:
        """The policy that its text is. Raises PolicyFileError. Blocks: some µs a character."""
        try:
            return policy(text)
        except PolicyError as error:
            raise PolicyFileError(escaped(f"{self.path}, {error}")) from error

    def _error(self, why: str) -> PolicyFileError:
        return PolicyFileError(escaped(f"{self.path} {why}"))


class CertificateGate:
    """Lets calls through by their client certificates. Run it while the server does.

    `refusals` counts the calls that were refused, by code or as denied.
    """

    def __init__(
        self,
        file: PolicyFile,
        certificates: CertificateRules,
        watch: FileWatch,
        log: Callable[[int, str], object],
        *,
        clock_of_day: Callable[[], float] = time.time,
    ) -> None:
        """Reads the file. Raises PolicyFileError. `log` logs a line at a level.

        `watch` has notices of changes for it.
        """
        self.refusals: Counter[str] = Counter()
        self._file = file
        self._certificates = certificates
        self._log = log
        self._clock_of_day = clock_of_day
        self._text = file.text()
        self._policy = file.policy_of(self._text)
        self._follower = FileFollower((file.path,), watch, RESCAN_S, self._log_unwatched)
        self._refused: str | None = None
        self._trouble = ""
        self._passes: dict[_CertifiedPass, None] = {}
        self._alarms = Alarms[_CertifiedPass]()

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why the newest policy is not in use."""
        return (self._trouble,) if self._trouble else ()

    def enter(self, caller: Caller, wake: Callable[[], None]) -> Pass:
        """The pass of a call. Tokens mean nothing here, but what is no token is a mistake."""
        if not caller.guarded:
            return _OPEN.enter(caller, wake)
        principal, problem = self._certificates.named_by(caller)
        entered = _CertifiedPass(self, principal, problem or _NO_CERTIFICATE, wake)
        self._passes[entered] = None
        if principal is not None:
            self._alarms.set(entered, principal.expires_at)
        return entered

    @property
    def policy(self) -> Policy:
        """The policy in use."""
        return self._policy

    def expired(self, principal: Principal) -> bool:
        """Whether the certificate of somebody has expired."""
        return principal.expires_at is not None and self._clock_of_day() >= principal.expires_at

    def leave(self, entered: _CertifiedPass) -> None:
        """A call is over. May be called twice."""
        self._passes.pop(entered, None)
        self._alarms.set(entered, None)

    async def run(self) -> None:
        """Follow the file, and wake calls, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run(self._look))
            tasks.create_task(self._wake_expired())

    async def _wake_expired(self) -> None:
        while True:
            await asyncio.sleep(_ALARMS_S)
            await self._wake(iter(lambda: self._alarms.due(self._clock_of_day()), None))

    async def _look(self) -> None:
        try:
            await self._take()
        except PolicyFileError as error:
            self._report(str(error))

    async def _take(self) -> None:
        """Take the file's text if it is a new one. Raises PolicyFileError."""
        text = await asyncio.to_thread(self._file.text)
        if text == self._text:
            self._report("")
        elif text != self._refused:
            self._refused = text
            self._policy = await asyncio.to_thread(self._file.policy_of, text)
            self._text = text
            self._report("")
            self._log(logging.INFO, f"{self._file.path}: the new policy is in use")
            await self._wake(tuple(self._passes))

    async def _wake(self, passes: Iterable[_CertifiedPass]) -> None:
        """Wake calls: some of them, and then others have their turn."""
        for woken, entered in enumerate(passes, 1):
            entered.wake()
            if woken % _WAKES_A_TURN == 0:
                await asyncio.sleep(0)

    def _log_unwatched(self, unwatched: str) -> None:
        where = f"where {self._file.path} is, {unwatched}"
        self._log(logging.WARNING, f"{where}; it is looked at each {RESCAN_S:g} s")

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                self._log(logging.WARNING, f"{trouble}; the policy before it stays in use")


class _CertifiedPass(CountedPass):
    __slots__ = ("_gate", "_policy", "_principal", "_problem", "_rights", "wake")

    def __init__(
        self,
        gate: CertificateGate,
        principal: Principal | None,
        problem: str,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(gate.refusals)
        self.wake = wake
        self._gate = gate
        self._principal = principal
        self._problem = problem
        self._policy: Policy | None = None  # The one that gives these rights.
        self._rights: tuple[Rights, ...] = ()

    @property
    def username(self) -> str:
        return "" if self._principal is None else self._principal.username

    last_username = username

    def check(self, need: Need) -> Verdict:
        if need is OPEN:
            return Verdict.ALLOWED
        if self._principal is None:
            raise self._unauthenticated(self._problem)
        if self._gate.expired(self._principal):
            raise self._unauthenticated(_EXPIRED)
        if isinstance(need, Entry) or self._allows(self._principal, need):
            return Verdict.ALLOWED
        self.count("denied")
        return Verdict.DENIED

    def _allows(self, principal: Principal, need: ResourceNeed | UrlNeed) -> bool:
        if self._policy is not self._gate.policy:
            self._policy = self._gate.policy
            self._rights = self._policy.rights_of(principal)
        return any(rights.allows(need) for rights in self._rights)

    def let_go(self, need: Need) -> None:
        """Nothing is kept of it."""

    def _unauthenticated(self, message: str) -> RpcError:
        self.count("unauthenticated")
        return RpcError(Code.UNAUTHENTICATED, message)

    def close(self) -> None:
        self.wake = _nobody
        self._gate.leave(self)


_OPEN = OpenGate()


def _nobody() -> None:
    """Wake nobody: the call is over."""
