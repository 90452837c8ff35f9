"""The port for probes and metrics, whatever other programs of the machine do with it."""

from __future__ import annotations

import threading
import urllib.request
from contextlib import ExitStack, suppress
from socket import create_connection, socket

import pytest

from tests.program import PATIENCE_S
from vmsvc.feed import http
from vmsvc.feed.report import Report
from vmsvc.feed.systemd import Notifier


def drip(clients: list[socket], over: threading.Event) -> None:
    """Have each send a byte now and then."""
    while not over.wait(0.02):
        for client in clients:
            with suppress(OSError):
                client.send(b"G")


def test_clients_that_never_end_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REQUEST_S_MAX", 0.2)
    over = threading.Event()
    with ExitStack() as stack:
        address = stack.enter_context(http.serving("127.0.0.1", 0, Report("test", Notifier({}))))
        clients = [stack.enter_context(create_connection(address)) for _ in range(20)]
        slow = threading.Thread(target=drip, args=(clients, over), daemon=True)
        slow.start()
        stack.callback(slow.join)
        stack.callback(over.set)
        url = f"http://{address[0]}:{address[1]}/livez"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            assert answer.read() == b"ok\n"
