"""An nginx kept right: its files written, tested by itself, and taken by a reload."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmsvc.feed import command
from vmsvc.feed.nginx.files import File, Seen, look, put, put_back, take
from vmsvc.feed.nginx.upstream import Form, content, file_name, is_of, is_ours
from vmsvc.feed.output import Applied, OutputError, PartlyError
from vmsvc.feed.target import Target, TargetError
from vmsvc.feed.written import finished
from vmsvc.model import ServiceState

# Before each line of nginx's, when and by which process it was said: the same fault is one fault.
_STAMP = re.compile(r"[0-9/]{10} [0-9:]{8} (\[\w+\]) [0-9]+#[0-9]+: ")


@dataclass(frozen=True, slots=True)
class Commands:
    """How nginx is asked: programs with their arguments, and how long one may take."""

    test: Sequence[str] = ("nginx", "-t")
    reload: Sequence[str] = ("nginx", "-s", "reload")
    timeout_s: float = 10.0


class Nginx:
    """The Output of `vmsvc feed nginx`.

    A file whose content nginx refuses is put back to what nginx has; others are taken all the
    same. What nginx has not taken, it is offered again by each later call, but never sooner than
    `reload_interval_s` after the last time.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        directory: Path,
        form: Form,
        *,
        commands: Commands,
        reload_interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`directory` must exist, and be included by nginx; `clock` yields seconds."""
        self._targets = targets
        self._directory = directory
        self._form = form
        self._commands = commands
        self._interval_s = reload_interval_s
        self._clock = clock
        self._due = clock()
        self._refusals: list[str] = []

    def begin(self) -> None:
        """Have a file for each target that has none: nginx does not start without what it includes.

        The server may be away for long. Raises OutputError.
        """
        files, _ = self._looked({})
        put(file for file in files if file.seen.found is None)

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        """Have nginx take what it lacks, unless it has been asked to just now; see Output."""
        files, faults = await finished(lambda: self._looked(states))
        lacking = [file for file in files if not file.is_taken]
        wait_s = self._due - self._clock()
        changes, again_in_s = 0, None
        if not lacking:
            self._refusals = []
        elif wait_s > 0:
            again_in_s = wait_s
        else:
            changes, self._refusals = await self._offer(lacking)
            self._due = self._clock() + self._interval_s
        if faults := faults + self._refusals:
            raise PartlyError("; ".join(faults), again_in_s)
        return Applied(changes, again_in_s)

    def reread(self) -> None:
        """It is made of nothing that could change."""

    async def aclose(self) -> None:
        """Nothing is open between calls."""

    def _looked(self, states: Mapping[str, ServiceState]) -> tuple[list[File], list[str]]:
        """The files of all targets, but for those that may not be written, and why."""
        files, faults = [], []
        for target in self._targets:
            path = self._directory / file_name(target, self._form)
            try:
                seen = look(path)
                if seen.found is not None and not is_ours(seen.found):
                    raise OutputError(f"{path} was not written by us, and stays: move it away")  # noqa: TRY301
            except OutputError as error:
                faults.append(str(error))
                continue
            wanted = None
            try:
                wanted = self._wanted(target, states)
            except TargetError as error:
                faults.append(str(error))
            files.append(File(path, wanted or self._kept(target, seen), seen))
        return files, faults

    def _wanted(self, target: Target, states: Mapping[str, ServiceState]) -> bytes | None:
        """What a file should hold; None: that is not known. Raises TargetError."""
        state = states.get(target.service)
        return None if state is None else content(target, target.servers(state), self._form)

    def _kept(self, target: Target, seen: Seen) -> bytes:
        """What stays of a service that is not known; without a file, nginx would not even start."""
        for before in (seen.taken, seen.found):
            if before is not None and is_of(target, before):
                return before
        return content(target, (), self._form)

    async def _offer(self, files: Sequence[File]) -> tuple[int, list[str]]:
        """Have nginx take these; how many changes that were, and what nginx refuses."""
        good, faults = await self._accepted(files)
        if good:
            try:
                await self._run(self._commands.reload)
            except OutputError as error:
                why = f"nginx may have the servers of before, as its reload failed: {error}"
                return 0, [*faults, why]
            try:
                await finished(lambda: take(good))
            except OutputError as error:
                faults.append(f"nginx has been reloaded, and will be again: {error}")
        return len(good), faults

    async def _accepted(self, files: Sequence[File]) -> tuple[Sequence[File], list[str]]:
        """The files that nginx accepts, in their places now, and what is wrong with the others."""
        refusal = await self._refusal(files)
        if refusal is None:
            return files, []
        names = ", ".join(file.path.name for file in files)
        if len(files) == 1:
            return [], [f"{names} stays as it was: {refusal}"]
        if (anyway := await self._refusal(())) is not None:
            return [], [f"{names} stay as they were, as nginx refuses even that: {anyway}"]
        good: list[File] = []
        faults: list[str] = []
        for file in files:
            found, fault = await self._accepted([file])
            good += found
            faults += fault
        return good, faults

    async def _refusal(self, files: Iterable[File]) -> str | None:
        """Why nginx refuses these files, which are as before then; None: it accepts them."""
        try:
            await finished(lambda: put(files))
            await self._run(self._commands.test)
        except BaseException as error:
            # By a cancellation, too: what nginx has not tested must not be what it starts with.
            await finished(lambda: put_back(files))
            if isinstance(error, OutputError):
                return str(error)
            raise
        return None

    async def _run(self, words: Sequence[str]) -> None:
        try:
            await command.run(words, timeout_s=self._commands.timeout_s)
        except OutputError as error:
            raise OutputError(_STAMP.sub(r"\1 ", str(error))) from error
