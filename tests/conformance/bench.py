"""A cluster with the program on it, and the cases that run there side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path

from tests.conformance.case import Case, CaseError, Setting
from tests.conformance.trial import Running, Trial
from tests.conformance.watch import Asker
from tests.kube.apiserver import IPV4_RANGE, IPV6_RANGE, Cluster
from tests.kube.plugin import FLAVOURS, Flavour
from tests.program import awaited, serving

# On two cores, more at once take no less time in all.
SIDE_BY_SIDE = 6

_DEPLOY = Path(__file__).parents[2] / "deploy" / "overlays" / "own-secret"
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
    """Runs all cases of a setting side by side, as soon as the first of them is asked for.

    One process watches and reconciles all their namespaces, as a user would run it, with
    the rights that `deploy/` gives it and no others. When all cases are through, it
    is ended, and another takes over what it has left.
    """

    def __init__(
        self, start: Callable[[Flavour], Cluster], cases: Iterable[Case], folder: Path
    ) -> None:
        """`start` gives a running cluster; logs go to `folder`."""
        self._start = start
        self._cases = tuple(cases)
        self._folder = folder
        self._begun: set[Setting] = set()
        self._failures: dict[str, Future[list[str]]] = {}

    def failures(self, case: Case) -> list[str]:
        """What is not as a case expects, in lines.

        Raises CaseError if the case cannot run, and ProgramError, once for all cases of a
        setting, if the program does not start or end well.
        """
        if case.setting not in self._begun:
            self._begun.add(case.setting)
            self._failures |= self._run(case.setting)
        if case.id not in self._failures:
            return [f"it did not run: the program or cluster for {case.setting} failed above"]
        return self._failures[case.id].result()

    def _run(self, setting: Setting) -> Mapping[str, Future[list[str]]]:
        cluster = self._start(flavour(setting))
        cluster.kubectl("apply", "--server-side", "--kustomize", str(_DEPLOY))
        cases = [case for case in self._cases if case.setting == setting]
        with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="case") as threads:
            with self._serving(setting, cluster, "first") as running:
                trials = {
                    case.id: threads.submit(Trial.begun, case, cluster, running) for case in cases
                }
                wait(trials.values())
            with self._serving(setting, cluster, "second") as running:
                ended = {
                    id_: threads.submit(_ended, trial, running) for id_, trial in trials.items()
                }
                wait(ended.values())
        return ended

    @contextmanager
    def _serving(self, setting: Setting, cluster: Cluster, name: str) -> Iterator[Running]:
        """The program, once it has read everything, and a watch of all that it tells."""
        account = cluster.service_account(_INSTALLED, _INSTALLED)
        path = self._folder / f"{setting}, {name}"
        kubeconfig = cluster.kubeconfig(
            path.with_suffix(".kubeconfig"), user=account, namespace=_INSTALLED
        )
        arguments: list[str | Path] = ["--kubeconfig", kubeconfig, "--reconcile", "on"]
        arguments += ["--lease-namespace", _INSTALLED]
        arguments += ["--ip-families", ",".join(setting.ip_families), "--drain-s", "0"]
        if setting.load_balancer_provider:
            arguments += ["--load-balancer-provider", setting.load_balancer_provider]
        with serving(arguments, path.with_suffix(".log")) as program:
            awaited(lambda: program.process.poll() is not None or program.metric("vmsvc_synced"))
            with closing(Asker(program.grpc)) as asker:
                yield Running(program, asker)


def _ended(trial: Future[Trial], running: Running) -> list[str]:
    return trial.result().ended(running)
