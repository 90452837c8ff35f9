"""A client of grpcio's own xDS: calls each target again and again, and prints who answers."""

from __future__ import annotations

import sys
import threading
import time

import grpc

PAUSE_S = 0.002
PATIENCE_S = 20


def call_for_ever(target: str) -> None:
    """Print `target name`, or `target !CODE`, for each call."""
    with grpc.insecure_channel(target) as channel:
        who: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        who = channel.unary_unary("/test.Who/Am")
        while True:
            try:
                answer = who(b"", wait_for_ready=True, timeout=PATIENCE_S)
                said = answer[2:].decode()  # A StringValue: a tag and a length come first.
            except grpc.RpcError as error:
                said = f"!{error.code().name}"
            sys.stdout.write(f"{target} {said}\n")
            sys.stdout.flush()
            time.sleep(PAUSE_S)


for each in sys.argv[1:]:
    threading.Thread(target=call_for_ever, args=(each,)).start()
