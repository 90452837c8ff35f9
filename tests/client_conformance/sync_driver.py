"""The sync client of Python as a driver: what `vmsvc watch -o json` is of the async one.

python sync_driver.py --server HOST:PORT [--token-file FILE] [--all] [-n NAMESPACE] [-A] [NAME ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime

# As the command `vmsvc` has it: gRPC would write what it thinks of lost connections.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from vmsvc import Client, Readiness, TokenFile, VmsvcError
from vmsvc.show import event_json


def main() -> int:
    """Write what the watch tells until it ends. The exit code: 1 if it has given up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("services", nargs="*")
    parser.add_argument("--server", required=True)
    parser.add_argument("--token-file")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("-n", dest="namespaces", action="append", default=[])
    parser.add_argument("-A", dest="all_services", action="store_true")
    given = parser.parse_args()
    token = TokenFile(given.token_file) if given.token_file else None
    with Client(given.server, token=token) as client:
        watch = client.watch(
            *given.services,
            namespaces=given.namespaces,
            all_services=given.all_services,
            readiness=Readiness.ALL if given.all else Readiness.READY_ONLY,
        )
        try:
            for event in watch.events():
                sys.stdout.write(event_json(event, datetime.now(UTC)))
                sys.stdout.flush()
        except VmsvcError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
