"""Helm, run as a person would run it, on a cluster of the tests or on none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.kube.apiserver import Cluster
from tests.kube.binaries import binary

TIMEOUT_S = 120

Object = dict[str, Any]
Values = Mapping[str, Any]


class HelmError(Exception):
    """Helm ended with a failure; the message is what it wrote to standard error."""


class Helm:
    """Runs helm with a folder of its own for all that it keeps, on one cluster, or on none."""

    def __init__(
        self, folder: Path, cluster: Cluster | None = None, find: Callable[[str], Path] = binary
    ) -> None:
        self._folder = folder
        self._helm = find("helm")
        self._kubeconfig = Path(os.devnull)
        if cluster is not None:
            self._kubeconfig = cluster.kubeconfig(folder / "helm.kubeconfig")

    def run(self, *arguments: str | Path, values: Values | None = None) -> str:
        """What helm writes to standard output; raises HelmError.

        `values` come last, as a file of values does.
        """
        command = [self._helm, *arguments]
        if values is not None:
            command += ["--values", "-"]
        done = subprocess.run(
            command,
            input="" if values is None else json.dumps(values),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise HelmError(done.stderr)
        return done.stdout

    def rendered(
        self, chart: Path, values: Values, *flags: str, release: str, namespace: str
    ) -> list[Object]:
        """The objects that the chart makes of these values, in order."""
        text = self.run("template", release, chart, "--namespace", namespace, *flags, values=values)
        return [found for found in yaml.load_all(text, yaml.CSafeLoader) if found is not None]

    def _environment(self) -> dict[str, str]:
        """Without settings of the caller's own helm."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
        homes = {f"HELM_{home}_HOME": str(self._folder) for home in ("CACHE", "CONFIG", "DATA")}
        return kept | homes | {"KUBECONFIG": str(self._kubeconfig)}
