"""Where the program under test reads from, filled with the data set, and how that changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench import dataset
from bench.dataset import DataSet
from bench.process import Process, python

MOVING = 250
"""Of so many services, one VM each changes its address, in turn, and then no more."""

_OBJECTS_A_FILE = 250


class Place(Protocol):
    """What the program reads from."""

    @property
    def flags(self) -> list[str]:
        """The arguments that make the program read from here."""

    def change(self, seq: int) -> None:
        """Have a VM report the address that says `seq`."""


class Directory:
    """Manifests, as JSON. The VMs that change have files of their own."""

    def __init__(self, folder: Path, data: DataSet) -> None:
        """Writes everything."""
        self._data = data
        self._beside = folder / "beside"
        self._manifests = folder / "manifests"
        for made in (self._beside, self._manifests):
            made.mkdir()
        rest: list[bytes] = [dataset.service_json(number) for number in range(data.services)]
        for seq in data.initial():
            if seq % data.endpoints == 0 and seq // data.endpoints < MOVING:
                self.change(seq)
            else:
                rest.append(dataset.vm_json(*data.place(seq), seq))
        for first in range(0, len(rest), _OBJECTS_A_FILE):
            objects = rest[first : first + _OBJECTS_A_FILE]
            self.put(f"{first:06d}.json", list_of(objects))

    @property
    def flags(self) -> list[str]:
        """The arguments that make the program read from here."""
        return ["--manifests", str(self._manifests)]

    def change(self, seq: int) -> None:
        """Have a VM report the address that says `seq`."""
        service, endpoint = self._data.place(seq)
        name = dataset.vm_name(service, endpoint)
        self.put(f"{name}.json", dataset.vm_json(service, endpoint, seq))

    def put(self, name: str, content: bytes) -> None:
        """Rename a file into place: it arrives whole."""
        written = self._beside / name
        written.write_bytes(content)
        written.rename(self._manifests / name)


class ApiServerPlace:
    """An API server that does what it is told (`bench.standstills.apiserver`)."""

    def __init__(self, process: Process, folder: Path) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(json.dumps(_kubeconfig(process.answer()["address"])))

    @property
    def flags(self) -> list[str]:
        """The arguments that make the program read from here."""
        return ["--kubeconfig", str(self._kubeconfig), "--reconcile", "off"]

    def change(self, seq: int) -> None:
        """Have a VM report the address that says `seq`. From any thread."""
        self._ask("change", seq=seq)

    def relist(self, services: int) -> None:
        """Have everything listed anew; there are only the first so many services then."""
        self._ask("relist", services=services)

    def watched(self) -> bool:
        """Whether everything is watched, and so has been listed."""
        return bool(self._ask("watched")["watched"])

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            return self._process.ask(do, **arguments)


@contextmanager
def api_server(folder: Path, data: DataSet) -> Iterator[ApiServerPlace]:
    """One with the data set, until the block ends."""
    flags = (f"--services={data.services}", f"--endpoints={data.endpoints}")
    with python("bench.standstills.apiserver", *flags) as process:
        yield ApiServerPlace(process, folder)


def list_of(objects: list[bytes]) -> bytes:
    """A List as `kubectl get` writes one, of objects as JSON."""
    return b'{"apiVersion":"v1","kind":"List","items":[%b]}' % b",\n".join(objects)


def _kubeconfig(address: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": f"http://{address}"}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }
