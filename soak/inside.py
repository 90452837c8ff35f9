"""The program with a window: `python -m soak.inside FOLDER PYTHON -m vmsvc_grpc ARGUMENTS`.

It runs `vmsvc-grpc` with these arguments in this process. At SIGUSR1 it writes what it holds, as
JSON, to a file in the folder that is called after its process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from tests.unit.leavings import leavings
from vmsvc_grpc.__main__ import main
from vmsvc_grpc.cache.cache import Cache

# What the arguments begin with: the folder, and the command that is run without this module.
_BEFORE = 4
# What `lru_cache` makes of a function.
_REMEMBERS = "functools._lru_cache_wrapper"
# As many answers as a function has that is asked about our own settings and kinds only.
_FEW = 32
_OURS = "vmsvc_grpc."
# What calls, streams, connections, watches of an API server and of files are made of. Not the
# objects themselves: for an hour the reconciler remembers what it has written.
_COUNTED = tuple(f"{_OURS}{room}." for room in ("cache", "kube", "server", "source"))


def look() -> dict[str, object]:
    """What is alive here: tasks by name, objects of ours by class, and what caches hold.

    What functions remember of their last answers has a bound, and is forgotten first.
    """
    # The collector does not look at what has lived long (ADR 41), nor lists it.
    gc.unfreeze()
    unbounded = list(_forget())
    gc.collect()
    objects = gc.get_objects()
    try:
        running = (each for each in objects if isinstance(each, asyncio.Task) and not each.done())
        tasks = Counter(map(_name, running))
        ours = Counter(name for one in objects if (name := _class(one)).startswith(_COUNTED))
        held = [field for one in objects if isinstance(one, Cache) for field in leavings(one)]
    finally:
        del objects
        gc.freeze()
    return {"tasks": tasks, "objects": ours, "held": [*held, *unbounded]}


def _forget() -> Iterator[str]:
    """Clears what `lru_cache` remembers of our functions.

    Yields those without a bound that have come to remember much.
    """
    for one in gc.get_objects():
        if _class(one) == _REMEMBERS and one.__module__.startswith(_OURS):
            bound, held = one.cache_parameters()["maxsize"], one.cache_info().currsize
            if bound is None and held > _FEW:
                yield f"{held} answers of {one.__module__}.{one.__qualname__}, without a bound"
            one.cache_clear()


def _class(one: object) -> str:
    cls = type(one)
    return f"{cls.__module__}.{cls.__qualname__}"


def _name(task: asyncio.Task[object]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", repr(coroutine))


def _write(_signal: int, _frame: FrameType | None) -> None:
    window = Path(sys.argv[1]) / f"{os.getpid()}.json"
    beside = window.with_suffix(".new")
    beside.write_text(json.dumps(look()))
    beside.replace(window)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _write)
    sys.exit(main(sys.argv[1 + _BEFORE :]))
