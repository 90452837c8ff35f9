"""An admission webhook of the test's own: it decides on every write in one namespace."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

Object = dict[str, Any]
Decide = Callable[[Object], Object]
"""The answer to an AdmissionRequest: `ALLOWED`, `refused(...)` or `mutated(...)`."""

ALLOWED: Object = {"allowed": True}

_RESOURCES = (
    "services",
    "endpoints",
    "endpointslices",
    "virtualmachineservices",
    "virtualmachineservices/status",
)


def refused(code: int, reason: str, message: str) -> Object:
    """A refusal with a status of the webhook's own choice."""
    status = {"code": code, "reason": reason, "message": message}
    return {"allowed": False, "status": status}


def mutated(path: str, value: object) -> Object:
    """The object is admitted with another value at a JSON pointer."""
    patch = json.dumps([{"op": "add", "path": path, "value": value}]).encode()
    encoded = base64.b64encode(patch).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


class _Policy(BaseHTTPRequestHandler):
    """Answers one review a connection."""

    decide: Decide

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {"uid": review["request"]["uid"], **type(self).decide(review["request"])}
        kind = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        body = json.dumps({**kind, "response": response}).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name for it.
        """Nothing is logged."""


@asynccontextmanager
async def listening(decide: Decide, certificate: Path, key: Path) -> AsyncIterator[str]:
    """Decides on each request until the block ends; the URL that an API server is to call.

    In threads, as uvloop cannot close a loop on which TLS is still being shut down.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    policy = type("Policy", (_Policy,), {"decide": staticmethod(decide)})
    with ThreadingHTTPServer(("127.0.0.1", 0), policy) as server:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}/"
        finally:
            await asyncio.to_thread(server.shutdown)
            await asyncio.to_thread(thread.join)


def configuration(name: str, namespace: str, url: str, certificate: Path) -> Object:
    """The MutatingWebhookConfiguration for every write of what we hold in the namespace."""
    rule = {
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": list(_RESOURCES),
    }
    ca = base64.b64encode(certificate.read_bytes()).decode()
    webhook = {
        "name": "policy.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": url, "caBundle": ca},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "rules": [rule],
    }
    return {"metadata": {"name": name}, "webhooks": [webhook]}
