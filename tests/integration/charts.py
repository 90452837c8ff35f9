"""What tests of deploy/chart have in common: the values that stand for each variant of deploy/."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "chart"
VARIANTS = {"base": DEPLOY / "base"} | {
    path.name: path for path in sorted((DEPLOY / "overlays").iterdir())
}

RELEASE = NAMESPACE = "vmsvc-grpc"
"""With these names the chart makes the same objects as kustomize does."""

VALUES: dict[str, dict[str, Any]] = {
    "base": {},
    "own-secret": {"tls": {"from": "secret"}},
    "insecure": {"tls": {"from": "none"}, "auth": "none", "insecure": True},
    "serve-only": {"reconcile": False},
    "one-namespace": {"namespaces": ["shop"]},
}

MONITORING: dict[str, Any] = {
    "monitoring": {part: {"enabled": True} for part in ("podMonitor", "rules", "dashboard")}
}
"""What stands for the component deploy/monitoring, beside any of the variants with our own CA."""

Object = dict[str, Any]
Id = tuple[str, str, str, str]

# What Helm's conventions ask for besides; the selector's label is not among them.
_HELM_LABELS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}


def by_id(objects: Iterable[Object]) -> dict[Id, Object]:
    """The objects by API version, kind, namespace and name; fails if two have the same."""
    found: dict[Id, Object] = {}
    for one in objects:
        where = (
            one["apiVersion"],
            one["kind"],
            one["metadata"].get("namespace", ""),
            one["metadata"]["name"],
        )
        assert where not in found, f"{where} is there twice"
        found[where] = one
    return found


def without_helms_labels(one: Object) -> Object:
    """The object as it would be without what only Helm needs."""
    metadata = one["metadata"]
    assert metadata["labels"].keys() >= _HELM_LABELS, metadata
    labels = {k: v for k, v in metadata["labels"].items() if k not in _HELM_LABELS}
    return one | {"metadata": metadata | {"labels": labels}}


def as_read(one: Any) -> Any:
    """What Kubernetes would read: kustomize leaves empty lists, and breaks folded lines anew."""
    if isinstance(one, dict):
        return {key: as_read(value) for key, value in one.items() if value != []}
    if isinstance(one, list):
        return [as_read(value) for value in one]
    return " ".join(one.split()) if isinstance(one, str) else one
