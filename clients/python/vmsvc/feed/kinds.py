"""The sorts of output that `vmsvc feed` has."""

from __future__ import annotations

from collections.abc import Mapping

from vmsvc.feed import execute, prometheus
from vmsvc.feed.kind import Kind

KINDS: Mapping[str, Kind] = {
    "prometheus": prometheus.KIND,
    "exec": execute.KIND,
}
