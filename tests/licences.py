"""Lists the licences of what is installed beside vmsvc-grpc, and fails at one that is not allowed.

By each package's own metadata (PEP 639, else its classifiers), for every name in requirements.lock.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"

ALLOWED = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MIT-0",
        "PSF-2.0",
    }
)
"""SPDX identifiers of licences that ask only to be named, and fit Apache-2.0."""

# How packages without an SPDX expression say it.
_WORDS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
_CLASSIFIER = "License :: OSI Approved :: "


def pinned(lock: str) -> list[str]:
    """The names of the packages in a lock, in its order."""
    return re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)==", lock)


def licence(of: PackageMetadata) -> str:
    """The licence of a package: an SPDX expression, else its own words; "" if it has none."""
    if "License-Expression" in of:
        return str(of["License-Expression"])
    classifiers = [c for c in of.get_all("Classifier") or () if c.startswith(_CLASSIFIER)]
    own = of.get_all("License") or ()
    for text in (*(c.removeprefix(_CLASSIFIER) for c in classifiers), *own):
        line = text.strip().partition("\n")[0]
        if line:
            return _WORDS.get(line, str(line))
    return ""


def allowed(expression: str) -> bool:
    """Whether an expression names only allowed licences; of alternatives, one is enough."""
    alternatives = re.split(r"\s+OR\s+", expression.replace("(", " ").replace(")", " "))
    return any(
        all(part.strip() in ALLOWED for part in re.split(r"\s+AND\s+", each))
        for each in alternatives
    )


def main() -> int:
    """Print each package with its licence; 1 if one is not allowed."""
    refused = []
    for name in pinned(LOCK.read_text()):
        try:
            found = metadata(name)
        except PackageNotFoundError:
            continue  # It is for another system.
        expression = licence(found)
        print(f"{name:30} {found['Version']:12} {expression or '(none)'}")
        if not allowed(expression):
            refused.append(name)
    for name in refused:
        print(
            f"{name}: its licence is not among those allowed in tests/licences.py; "
            "have it looked at, or do without the package",
            file=sys.stderr,
        )
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
