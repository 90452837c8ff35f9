"""What `vmsvc feed` knows of a sort of output before it is used. Imports little, for `--help`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmsvc.feed.policies import Policies

if TYPE_CHECKING:
    from vmsvc.feed.output import Output


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of output.

    `add` adds its flags and arguments; `make` makes it of their values, by the names that the
    parser gives them, and raises UsageError. An argument `targets` is a list of Target, whose
    services are followed; one `services` a list of names, or none for all services.
    `unready`: endpoints that are not ready are fed, too, if nothing else is said.
    """

    what: str
    epilog: str
    add: Callable[[argparse.ArgumentParser], None]
    make: Callable[[Mapping[str, Any]], Output]
    policies: Policies
    unready: bool = False
