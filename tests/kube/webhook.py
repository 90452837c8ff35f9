"""An admission webhook of the test's own: it decides on every write in one namespace."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

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


@asynccontextmanager
async def listening(decide: Decide, certificate: Path, key: Path) -> AsyncIterator[str]:
    """Decides on each request until the block ends; the URL that an API server is to call."""

    async def answer(request: web.Request) -> web.Response:
        review = await request.json()
        response = {"uid": review["request"]["uid"], **decide(review["request"])}
        kind = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        return web.json_response({**kind, "response": response})

    app = web.Application()
    app.router.add_post("/", answer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        _, port = runner.addresses[0]
        yield f"https://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()


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
