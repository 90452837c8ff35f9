"""Fuzzes each target for a while, from the inputs that earlier runs found worth keeping.

    python -m tests.fuzz [--seconds N] [--keep]

An input that breaks a rule ends the run, and is printed as it may be added to `seeds/`. Those are
a line of base64 each; `--keep` writes those that this run has kept, as each reaches something that
no other does.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = ("wire", "connection")

_SEEDS = Path(__file__).parent / "seeds"
_INPUT_BYTES_MAX = 600
_INPUT_S = 20  # One input takes some milliseconds.
_RSS_MIB_MAX = 1024


def fuzz(target: str, seconds: int, *, keep: bool) -> bool:
    """Whether every input of a target held, of its seeds and of as many more as time allows."""
    seeds = _SEEDS / f"{target}.txt"
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found")
        found.mkdir()
        for line in seeds.read_text().split() if seeds.exists() else ():
            data = base64.b64decode(line)
            (found / hashlib.sha256(data).hexdigest()).write_bytes(data)
        held = _run(target, folder, f"-max_total_time={seconds}", "-len_control=0", str(found))
        for broke in sorted(path for path in Path(folder).iterdir() if path.is_file()):
            print(f"{target}: broken by {base64.b64encode(broke.read_bytes()).decode()}")
        if held and keep:
            lines = [base64.b64encode(each.read_bytes()).decode() for each in found.iterdir()]
            seeds.write_text("".join(f"{line}\n" for line in sorted(lines)))
        return held


def _run(target: str, folder: str, *options: str) -> bool:
    program = (sys.executable, "-m", f"tests.fuzz.{target}", f"-artifact_prefix={folder}/")
    bounds = (
        f"-max_len={_INPUT_BYTES_MAX}",
        f"-timeout={_INPUT_S}",
        f"-rss_limit_mb={_RSS_MIB_MAX}",
        "-verbosity=0",
        "-print_final_stats=1",
    )
    return subprocess.run((*program, *bounds, *options), check=False).returncode == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=fuzz.__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long, for each target")
    parser.add_argument("--keep", action="store_true", help="write the inputs found to seeds/")
    given = parser.parse_args()
    held = [fuzz(target, given.seconds, keep=given.keep) for target in TARGETS]
    sys.exit(0 if all(held) else 1)
