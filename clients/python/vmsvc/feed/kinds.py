"""The sorts of output that `vmsvc feed` has."""

from __future__ import annotations

from collections.abc import Mapping

from vmsvc.feed import execute, prometheus
from vmsvc.feed.haproxy import kind as haproxy
from vmsvc.feed.kind import Kind
from vmsvc.feed.nginx import kind as nginx
from vmsvc.feed.template import kind as template

KINDS: Mapping[str, Kind] = {
    "haproxy": haproxy.KIND,
    "nginx": nginx.KIND,
    "prometheus": prometheus.KIND,
    "template": template.KIND,
    "exec": execute.KIND,
}
