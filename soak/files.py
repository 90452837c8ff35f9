"""Manifests that are rewritten in every way that people and programs rewrite files."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

_FILES = 12
_VMS = 5

_SERVICE = """\
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachineService
metadata: {{name: app-{number}, namespace: files}}
spec:
  type: ClusterIP
  selector: {{app: app-{number}}}
  ports: [{{name: http, protocol: TCP, port: 80, targetPort: 8080}}]
"""
_VM = """\
---
apiVersion: vmoperator.vmware.com/v1alpha6
kind: VirtualMachine
metadata: {{name: vm-{number}-{vm}, namespace: files, labels: {{app: app-{number}}}}}
status: {{network: {{primaryIP4: 10.{number}.{vm}.{address}}}}}
"""


class Files:
    """A directory of manifests, one file a service with its VMs, and what is done to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.manifests = folder / "manifests"
        self._real = folder / "versions"
        self._versions = 0
        self._random = random.Random(f"{seed} files")
        self._real.mkdir(parents=True)
        (self._real / "0").mkdir()
        self.manifests.mkdir()
        (self.manifests / "linked").symlink_to(self._real / "0")
        self.mend()

    def step(self) -> None:
        """Rewrite something."""
        act = self._random.choice(
            (self._rename, self._in_place, self._half, self._remove, self._swap)
        )
        act()
        self.counts["file rewrites"] += 1

    def mend(self) -> None:
        """Make every file whole."""
        for number in range(_FILES):
            self._replace(self._file(number), self._text(number))

    def clear(self) -> None:
        """Remove every file."""
        for number in range(_FILES):
            self._file(number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        folder = self.manifests / "linked" if number % 2 else self.manifests
        return folder / f"app-{number}.yaml"

    def _some(self) -> int:
        return self._random.randrange(_FILES)

    def _text(self, number: int) -> str:
        vms = "".join(
            _VM.format(number=number, vm=vm, address=self._random.randrange(1, 250))
            for vm in range(self._random.randrange(1, _VMS))
        )
        return _SERVICE.format(number=number) + vms

    @staticmethod
    def _replace(file: Path, text: str) -> None:
        beside = file.with_name(f".{file.name}.tmp")
        beside.write_text(text)
        beside.replace(file)

    def _rename(self) -> None:
        number = self._some()
        self._replace(self._file(number), self._text(number))

    def _in_place(self) -> None:
        number = self._some()
        self._file(number).write_text(self._text(number))

    def _half(self) -> None:
        number = self._some()
        text = self._text(number)
        self._file(number).write_text(text[: self._random.randrange(len(text))])

    def _remove(self) -> None:
        self._file(self._some()).unlink(missing_ok=True)

    def _swap(self) -> None:
        """As Kubernetes swaps a ConfigMap: a link leads to another directory."""
        before = self._real / str(self._versions)
        self._versions += 1
        after = self._real / str(self._versions)
        shutil.copytree(before, after)
        following = self.manifests / ".following"
        following.symlink_to(after)
        following.replace(self.manifests / "linked")
        shutil.rmtree(before)
