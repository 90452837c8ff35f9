"""`vmsvc feed prometheus`: targets for Prometheus' file_sd_configs."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmsvc.addresses import reached
from vmsvc.feed import arguments, written
from vmsvc.feed.kind import Kind
from vmsvc.feed.output import Applied, PartlyError
from vmsvc.feed.policies import Policies, Policy
from vmsvc.feed.target import Target, TargetError
from vmsvc.model import Port, ServiceState

_EPILOG = """\
Each endpoint is a target for each TCP port of its service, or for the one that is named, with
the labels namespace, service, port (its name, or its number), vm, zone (if it has one) and
ready ("true" or "false"). For labels that only relabelling sees, so that a VM that is not
ready any more does not begin new series: --label-prefix __meta_vmsvc_

examples:
  vmsvc feed prometheus --file /etc/prometheus/vms.json --port metrics
  vmsvc feed prometheus shop/web:metrics data/db:9187 --file vms.json

prometheus.yml:
  scrape_configs:
    - job_name: vms
      file_sd_configs: [{files: [/etc/prometheus/vms.json]}]
"""


_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class TargetsFile:
    """Keeps a file of targets. `targets` are the services with a port of their own.

    `port` names the port of the others; "" for all.
    """

    path: Path
    targets: Sequence[Target] = ()
    port: str = ""
    label_prefix: str = ""

    async def apply(self, states: Mapping[str, ServiceState]) -> Applied:
        """See Output."""
        groups, faults = self._groups(states)
        text = f"{json.dumps(groups, indent=1)}\n"
        changed = await written.finished(lambda: written.write(self.path, text.encode()))
        if faults:
            raise PartlyError("; ".join(faults))
        return Applied(int(changed))

    def reread(self) -> None:
        """See Output."""

    async def aclose(self) -> None:
        """See Output."""

    def _groups(self, states: Mapping[str, ServiceState]) -> tuple[list[dict[str, Any]], list[str]]:
        """All targets with their labels, and what is wrong with ports that were named."""
        groups: list[dict[str, Any]] = []
        faults: list[str] = []
        own: dict[str, list[Target]] = {}
        for target in self.targets:
            own.setdefault(target.service, []).append(target)
        for name in sorted(states):
            for target in own.get(name) or (Target("", name),):
                try:
                    groups += self._of_target(states[name], target)
                except TargetError as error:
                    faults.append(str(error))
        return groups, faults

    def _of_target(self, state: ServiceState, target: Target) -> Iterator[dict[str, Any]]:
        namespace, _, service = state.service.partition("/")
        for port in self._ports(state, target):
            for endpoint in state.endpoints:
                labels = {
                    "namespace": namespace,
                    "service": service,
                    "port": port.name or str(port.port),
                    "vm": endpoint.vm_name,
                    "zone": endpoint.zone,
                    "ready": str(endpoint.ready).lower(),
                }
                yield {
                    "targets": [reached(endpoint.address, port.target_port)],
                    "labels": {self.label_prefix + k: v for k, v in labels.items() if v},
                }

    def _ports(self, state: ServiceState, target: Target) -> Sequence[Port]:
        if target.port:
            return (target.port_in(state),) if state.endpoints else ()
        tcp = [port for port in state.ports if port.protocol == "TCP"]
        return [port for port in tcp if self.port in ("", port.name, str(port.port))]


def _label_prefix(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} begins no label: letters, digits and _ do")
    return text


def _add(parser: argparse.ArgumentParser) -> None:
    arguments.add_services(parser, "SERVICE[:PORT]")
    parser.add_argument(
        "--file", type=arguments.path, required=True, metavar="FILE", help="the file to keep"
    )
    parser.add_argument(
        "--port",
        metavar="PORT",
        default="",
        help="name or number of the port of services that are named without one (default: all)",
    )
    parser.add_argument(
        "--label-prefix",
        type=_label_prefix,
        metavar="PREFIX",
        default="",
        help="what each label's name begins with",
    )
    parser.add_argument(
        "--all",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write endpoints that are not ready, too (default: do)",
    )


def _made(given: Mapping[str, Any]) -> TargetsFile:
    return TargetsFile(given["file"], given["targets"], given["port"], given["label_prefix"])


KIND = Kind(
    "keep a file of targets for Prometheus (file_sd_configs)",
    _EPILOG,
    _add,
    _made,
    Policies(absent=Policy.EMPTY, no_endpoints=Policy.EMPTY),
    unready=True,
)
