"""HAProxy's own file of server states, with which its slots begin after a restart. Pure.

Source: `server-state-file` and `load-server-state-from-file` in HAProxy's configuration manual.
The format is that of `show servers state`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from vmsvc.feed.haproxy.held import HeldError

# CHK_ST_INPROGRESS: a check is running just now.
_RUNNING = 0x01
_VERSION = "1"


def content(parts: Iterable[tuple[str, Collection[str]]]) -> str:
    """The file, of the answer to `show servers state` for each backend and the slots to keep.

    What changes with time alone is left out, so that the same servers make the same file. Raises
    HeldError.
    """
    header = ""
    lines: list[str] = []
    for answer, names in parts:
        version, _, table = answer.partition("\n")
        if version != _VERSION:
            # The backend has gone since.
            continue
        header, *rows = table.splitlines() or [""]
        try:
            lines += _kept(header.removeprefix("# ").split(" "), rows, names)
        except (LookupError, ValueError) as error:
            raise HeldError(f"HAProxy's servers are not understood ({error})") from error
    return "".join(f"{line}\n" for line in (_VERSION, header, *lines)) if lines else ""


def _kept(columns: list[str], rows: Iterable[str], names: Collection[str]) -> Iterator[str]:
    for row in rows:
        values = dict(zip(columns, row.split(" "), strict=False))
        if values["srv_name"] in names:
            values["srv_time_since_last_change"] = "0"
            values["srv_check_state"] = str(int(values["srv_check_state"]) & ~_RUNNING)
            values["srv_agent_state"] = str(int(values["srv_agent_state"]) & ~_RUNNING)
            yield " ".join(values.values())
