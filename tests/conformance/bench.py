"""A cluster with the program on it, and the cases that run there side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conformance.case import Case, CaseError, Setting
from tests.conformance.trial import Trial
from tests.conformance.watch import Asker
from tests.kube.apiserver import IPV4_RANGE, IPV6_RANGE, Cluster
from tests.kube.plugin import FLAVOURS, Flavour
from tests.program import serving

# On two cores, more at once take no less time in all.
SIDE_BY_SIDE = 6

_DEPLOY = Path(__file__).parents[2] / "deploy" / "base"
# What it calls its namespace, and the account of its Pods.
_INSTALLED = "vmsvc-grpc"
_RANGES = {"IPv4": IPV4_RANGE, "IPv6": IPV6_RANGE}


def flavour(setting: Setting) -> Flavour:
    """The cluster that a setting needs. Raises CaseError if there is none."""
    crd = setting.crd or "single-stack"
    if crd not in FLAVOURS:
        raise CaseError(f"crd: {crd} is not known; known are: {', '.join(FLAVOURS)}")
    if unknown := sorted(set(setting.ip_families) - _RANGES.keys()):
        raise CaseError(f"cluster.ipFamilies: {', '.join(unknown)} is not known")
    ranges = tuple(_RANGES[family] for family in setting.ip_families)
    return Flavour(crds=FLAVOURS[crd].crds, service_ranges=ranges)


class Bench:
    """Runs all cases of a setting at once, as soon as the first of them is asked for.

    One process watches and reconciles all their namespaces, as a user would run it, with
    the rights that `deploy/base` gives it and no others. Use as a context manager.
    """

    def __init__(
        self, start: Callable[[Flavour], Cluster], cases: Iterable[Case], folder: Path
    ) -> None:
        """`start` gives a running cluster; logs go to `folder`."""
        self._start = start
        self._cases = tuple(cases)
        self._folder = folder
        self._setting: Setting | None = None
        self._running = ExitStack()
        self._failures: dict[str, Future[list[str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    def failures(self, case: Case) -> list[str]:
        """What is not as a case expects, in lines. Ends what runs for cases of another setting.

        Raises CaseError if the case cannot run, and ProgramError if the program, this one or
        the one that ends here, does not do so well.
        """
        if case.setting != self._setting:
            self._setting = None
            self._running.close()
            self._begin(case.setting)
            self._setting = case.setting
        return self._failures[case.id].result()

    def _begin(self, setting: Setting) -> None:
        cluster = self._start(flavour(setting))
        cluster.kubectl("apply", "--server-side", "--kustomize", str(_DEPLOY))
        account = cluster.service_account(_INSTALLED, _INSTALLED)
        kubeconfig = cluster.kubeconfig(
            self._folder / f"{setting}.kubeconfig", user=account, namespace=_INSTALLED
        )
        arguments: list[str | Path] = ["--kubeconfig", kubeconfig, "--reconcile", "on"]
        arguments += ["--ip-families", ",".join(setting.ip_families), "--drain-s", "0"]
        if setting.load_balancer_provider:
            arguments += ["--load-balancer-provider", setting.load_balancer_provider]
        with ExitStack() as stack:
            program = stack.enter_context(serving(arguments, self._folder / f"{setting}.log"))
            asker = stack.enter_context(closing(Asker(program.grpc)))
            threads = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="case")
            stack.callback(threads.shutdown, cancel_futures=True)
            self._failures = {
                case.id: threads.submit(Trial.run, case, cluster, program, asker)
                for case in self._cases
                if case.setting == setting
            }
            self._running = stack.pop_all()
