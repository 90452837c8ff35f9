"""A case's objects as files, edited as an API server would change them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import yaml

from tests.conformance.case import (
    VM,
    VM_SERVICE,
    Apply,
    Delete,
    Edit,
    Manifest,
    ObjectId,
    applied,
    deleted,
    id_of,
)


class Manifests:
    """A directory of manifests: one object a file, named in the order of creation.

    Each file is written beside the directory, and renamed into it whole.
    """

    def __init__(self, directory: Path, output: Path) -> None:
        """`directory` is empty; `output` is where the program holds its objects."""
        self.directory = directory
        self.objects: dict[ObjectId, Manifest] = {}
        self._output = output
        self._paths: dict[ObjectId, Path] = {}

    def perform(self, edit: Edit) -> None:
        """Make the edit."""
        match edit:
            case Apply(manifest):
                self.put(applied(self.objects.get(id_of(manifest)), manifest))
            case Delete(id_) if id_.kind in (VM, VM_SERVICE):
                left = deleted(self.objects[id_])
                if left is None:
                    self.remove(id_)
                else:
                    self.put(left)
            case Delete(id_):
                held_path(self._output, id_).unlink()
            case _:
                raise AssertionError(f"a file cannot be edited so: {edit}")

    def put(self, manifest: Manifest) -> None:
        """Let the object's file hold this, whole."""
        id_ = id_of(manifest)
        path = self._paths.get(id_)
        if path is None:
            path = self.directory / f"{len(self._paths):03}-{id_.name}.yaml"
            self._paths[id_] = path
        # Not a name that the program reads, and on the same file system.
        staged = self.directory.with_name(f"{self.directory.name}.staged")
        # JSON: PyYAML leaves the text "y" without quotes, which is true to kubectl, and to us.
        staged.write_text(json.dumps(dict(manifest), default=lambda day: day.isoformat()))
        staged.rename(path)
        self.objects[id_] = manifest

    def remove(self, id_: ObjectId) -> None:
        """Take the object's file away."""
        self._paths[id_].unlink()
        del self.objects[id_]


def held_path(output: Path, id_: ObjectId) -> Path:
    """Where the program holds a Service or Endpoints."""
    return output / id_.namespace / f"{id_.name}.{id_.kind.lower()}.yaml"


def held(output: Path) -> dict[ObjectId, Manifest]:
    """The objects that the program holds now."""
    objects = {}
    for namespace in output.iterdir():
        # A file, or a namespace with its last one, may be taken away while we look.
        with suppress(FileNotFoundError):
            for path in list(namespace.glob("*.yaml")):
                with suppress(FileNotFoundError):
                    manifest = yaml.safe_load(path.read_bytes())
                    objects[id_of(manifest)] = manifest
    return objects
