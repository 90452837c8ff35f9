"""The double of VM Operator's writer, beside a cluster: `vmoperator/`, started and counted."""

import json
import re
import urllib.request
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.kube.apiserver import Cluster, FindBinary, User
from tests.kube.binaries import binary
from tests.kube.process import Process

READY_TIMEOUT_S = 60
REQUEST_TIMEOUT_S = 10

_READY = re.compile(r" ready, counts at (http://\S+)")


class Write(NamedTuple):
    """What a controller asks of the API server; `resource` as in `services`, or with `/status`."""

    resource: str
    namespace: str
    name: str
    verb: str


class VMOperator:
    """A running double of VM Operator, in all namespaces or one. Use as a context manager.

    It is the cluster's admin, or `user`, and marks Services for `provider`. It may be stopped and
    started again, and then counts from zero.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        *,
        namespace: str = "",
        provider: str = "",
        user: User | None = None,
        find: FindBinary = binary,
    ) -> None:
        kubeconfig = cluster.kubeconfig(folder / "vmoperator.kubeconfig", user=user)
        command = [str(find("vmoperator")), f"--kubeconfig={kubeconfig}"]
        command += [f"--namespace={namespace}", f"--load-balancer-provider={provider}"]
        self.process = Process("vmoperator", command, folder / "vmoperator.log")
        self._url = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.stop()

    def start(self) -> None:
        """Returns once it has listed everything and begins to write."""
        earlier_starts = len(self._told_urls())
        self.process.start()
        self.process.wait_until(
            lambda: len(self._told_urls()) > earlier_starts, "ready", READY_TIMEOUT_S
        )
        self._url = self._told_urls()[-1]

    def stop(self) -> None:
        """Ends it after the VMService under way."""
        self.process.stop()

    def writes(self) -> Counter[Write]:
        """How often it has asked for each write since its start, whatever the answer was."""
        with urllib.request.urlopen(self._url, timeout=REQUEST_TIMEOUT_S) as response:
            rows = json.load(response)
        return Counter({Write(*(row[f] for f in Write._fields)): row["count"] for row in rows})

    def _told_urls(self) -> list[str]:
        log = self.process.log
        return _READY.findall(log.read_text()) if log.exists() else []
