"""Which requests the page answers: those of a person, or of the page itself, on this machine.

A browser on this machine also runs scripts of strangers. They can ask, too: by a name of theirs
that suddenly means 127.0.0.1 (DNS rebinding), or across origins. None of them may read anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

_HOST = re.compile(r"(?P<name>[A-Za-z0-9.]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def refusal(headers: Mapping[str, Sequence[str]], *, document: bool) -> str:
    """Why a request is refused, in a sentence; "" if it is not.

    `headers` has all values of `Host`, `Origin`, `Sec-Fetch-Site` and `Sec-Fetch-Mode`, as far as
    they were sent. `document`: it is for the document itself, which holds no data, and to which
    others may link.
    """
    hosts = headers.get("Host", ())
    if len(hosts) != 1 or not _is_here(hosts[0]):
        return (
            "this page is for people on this machine: open it as http://localhost or "
            "http://127.0.0.1, with its port"
        )
    if any(origin != f"http://{hosts[0]}" for origin in headers.get("Origin", ())):
        return "pages of other origins may not read this one"
    sites = set(headers.get("Sec-Fetch-Site", ()))
    if document and headers.get("Sec-Fetch-Mode") == ["navigate"]:
        return ""
    return "" if sites <= {"same-origin", "none"} else "other sites may not read this page"


def _is_here(host: str) -> bool:
    """Whether a Host field names this machine in a way that no stranger's name server can."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found["name"].strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
