"""`vmsvc feed exec` as a driver: its command writes each state that it is given as a line.

python feed_driver.py [FLAG ...] [NAME ...]     becomes the feed
python feed_driver.py --write PIPE              is its command
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path


def become_feed(given: list[str]) -> None:
    """Run the feed in place of this process; its command finds the output by the same pid."""
    output = f"/proc/{os.getpid()}/fd/{sys.stdout.fileno()}"
    command = shlex.join([sys.executable, "-S", __file__, "--write", output])
    vmsvc = Path(sys.executable).with_name("vmsvc")
    # It follows all services where none is named.
    flags = [each for each in given if each != "-A"]
    os.execv(vmsvc, [str(vmsvc), "feed", "exec", "--command", command, *flags])


def write(output: str) -> None:
    """Write the state on standard input as one line."""
    state = json.load(sys.stdin)
    with Path(output).open("a") as file:
        file.write(f"{json.dumps({'event': 'state', **state})}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2])
    else:
        become_feed(sys.argv[1:])
