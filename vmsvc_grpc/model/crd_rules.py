"""The CRDs' rules for VMs in CEL, written in Python, as we cannot run CEL. Pure.

The key of a rule is its text in the CRD, so that `make gen` fails on a new or changed one. Rules of
VMServices are in `validate`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """`holds` checks a value of the right type; `message` says what to do if it fails."""

    holds: Callable[[Any], bool]
    message: str


# CEL counts characters.
_SHORT_CHARACTERS_MAX = 127

_CONTEXTS = re.compile(r"(PerDevice|PerVM|PerQueue|[1-9])\Z")
_FEATURES = re.compile(r"(LargeReceiveOffload|ReceiveSideScaling|[1-9][0-9]*)\Z", re.ASCII)


def _is_short(text: Any) -> bool:
    return not isinstance(text, str) or len(text) <= _SHORT_CHARACTERS_MAX


def _has_cores_for_nodes(topology: Mapping[str, Any]) -> bool:
    cores = topology.get("coresPerSocket")
    return not topology.get("vnumaNodeCount") or (isinstance(cores, int | float) and cores > 0)


def _fits_its_type(interface: Mapping[str, Any]) -> bool:
    return interface.get("vmxnet3") is None or interface.get("type") == "VMXNet3"


def _has_known_modes(interface: Mapping[str, Any]) -> bool:
    modes = interface.get("ipamModes")
    return not isinstance(modes, list) or all(mode in ("IPv4", "IPv6", None) for mode in modes)


def _is_no_milli(quantity: Any) -> bool:
    return not (isinstance(quantity, str) and quantity.endswith("m"))


RULES: Mapping[str, Rule] = {
    "!has(self.vnumaNodeCount) || self.vnumaNodeCount == 0 || "
    "(has(self.coresPerSocket) && self.coresPerSocket > 0)": Rule(
        _has_cores_for_nodes, "has vnumaNodeCount; give coresPerSocket, too, and not 0"
    ),
    "!has(self.vmxnet3) || self.type == 'VMXNet3'": Rule(
        _fits_its_type, "has vmxnet3, which is only for type VMXNet3"
    ),
    "!has(self.ipamModes) || self.ipamModes.all(m, m == 'IPv4' || m == 'IPv6')": Rule(
        _has_known_modes, "has ipamModes of which one is neither IPv4 nor IPv6"
    ),
    "!has(self.coalescingParams) || size(self.coalescingParams) < 128": Rule(
        lambda vmxnet3: _is_short(vmxnet3.get("coalescingParams")),
        f"has coalescingParams of more than {_SHORT_CHARACTERS_MAX} characters",
    ),
    "self == 'Disabled' || self == 'Adapt' || self == 'Static' || "
    "self == 'RateBasedCoalescing' || size(self) < 128": Rule(
        _is_short, f"has more than {_SHORT_CHARACTERS_MAX} characters"
    ),
    'self.matches("^(PerDevice|PerVM|PerQueue|[1-9])$")': Rule(
        lambda text: _CONTEXTS.match(text) is not None,
        "is none of PerDevice, PerVM, PerQueue and the numbers from 1 to 9",
    ),
    'self.matches("^(LargeReceiveOffload|ReceiveSideScaling|[1-9][0-9]*)$")': Rule(
        lambda text: _FEATURES.match(text) is not None,
        "is none of LargeReceiveOffload, ReceiveSideScaling and a number of digits alone",
    ),
    "type(self) != string || !self.endsWith('m')": Rule(
        _is_no_milli, "has the suffix m (milli); use whole numbers, as in 4 or 2000"
    ),
}
"""The rules, by their text."""
