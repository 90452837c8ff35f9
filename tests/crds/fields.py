"""Makes `vmsvc_grpc/model/fields.json` of the CRDs here: `make gen` runs it.

    python -m tests.crds.fields FILE

What is kept of a schema is which fields there are, of which type, and what a value must be;
descriptions go. The versions of a kind have most of their fields in common, so each distinct
node stands once, in a list, before all that refer to it by its number. Rules in CEL stand
there as they are; `vmsvc_grpc/model/crd_rules.py` has each in Python, except for `_ELSEWHERE`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from vmsvc_grpc.model.crd_rules import RULES

_HERE = Path(__file__).parent
_CRDS = (
    "vmoperator.vmware.com_virtualmachines.yaml",
    "vmoperator.vmware.com_virtualmachineservices.yaml",
)

# Rules of VMServices that `model.validate` checks, or that compare with the stored object.
_ELSEWHERE = frozenset(
    (
        "self.type != 'ExternalName' || "
        "((!has(self.ipFamilies) || size(self.ipFamilies) == 0) && !has(self.ipFamilyPolicy))\n"
        "!has(self.ipFamilies) || size(self.ipFamilies) < 2 || "
        "self.ipFamilies[0] != self.ipFamilies[1]\n"
        "!has(self.ipFamilies) || self.ipFamilies.all(f, f == 'IPv4' || f == 'IPv6')\n"
        "self.type == 'ExternalName' || !has(oldSelf.ipFamilies) || size(oldSelf.ipFamilies) == 0 "
        "|| (has(self.ipFamilies) && size(self.ipFamilies) > 0 && "
        "self.ipFamilies[0] == oldSelf.ipFamilies[0])"
    ).splitlines()
)

# What is taken over as it is: a value breaks it, or does not.
_BOUNDS = (
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)

# Formats of texts that an API server looks at; of numbers it does not.
_FORMATS = frozenset({"uuid", "time"})

_TEXT = {"type": "string"}
# As the metadata of every object has it (metav1.Time).
_TIME = {"type": "string", "format": "time"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_FLAG = {"type": "boolean"}
_NUMBER = {"type": "integer"}
_OPEN = {"x-kubernetes-preserve-unknown-fields": True}

# A CRD says of `metadata` only that it is an object; an API server knows its fields
# (k8s.io/apimachinery, pkg/apis/meta/v1, ObjectMeta).
_METADATA = {
    "type": "object",
    "properties": {
        "annotations": _TEXTS,
        "creationTimestamp": _TEXT,
        "deletionGracePeriodSeconds": _NUMBER,
        "deletionTimestamp": _TEXT,
        "finalizers": {"type": "array", "items": _TEXT},
        "generateName": _TEXT,
        "generation": _NUMBER,
        "labels": _TEXTS,
        "managedFields": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "apiVersion": _TEXT,
                    "fieldsType": _TEXT,
                    "fieldsV1": _OPEN,
                    "manager": _TEXT,
                    "operation": _TEXT,
                    "subresource": _TEXT,
                    "time": _TIME,
                },
            },
        },
        "name": _TEXT,
        "namespace": _TEXT,
        "ownerReferences": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "apiVersion": _TEXT,
                    "blockOwnerDeletion": _FLAG,
                    "controller": _FLAG,
                    "kind": _TEXT,
                    "name": _TEXT,
                    "uid": _TEXT,
                },
                "required": ["apiVersion", "kind", "name", "uid"],
            },
        },
        "resourceVersion": _TEXT,
        "selfLink": _TEXT,
        "uid": _TEXT,
    },
}


class _Table:
    """The distinct nodes, in the order in which they were first needed."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, schema: dict[str, Any]) -> int:
        """The number of the node that a schema is."""
        node = json.dumps(self._node(schema), sort_keys=True, separators=(",", ":"))
        if node not in self._numbers:
            self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return self._numbers[node]

    def _node(self, schema: dict[str, Any]) -> dict[str, Any]:
        node = _asked_of_values(schema)
        if schema.get("x-kubernetes-int-or-string"):
            return {**node, "type": "integer or text"}
        node["type"] = schema.get("type", "any")
        properties = schema.get("properties") or {}
        if node["type"] == "object":
            node["fields"] = {key: self.number(value) for key, value in properties.items()}
        # What has a default is never missing.
        required = [k for k in schema.get("required", ()) if "default" not in properties.get(k, {})]
        if required:
            node["required"] = required
        if "items" in schema:
            node["items"] = self.number(schema["items"])
        if isinstance(schema.get("additionalProperties"), dict):
            node["values"] = self.number(schema["additionalProperties"])
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            node["open"] = True
        return node


def _asked_of_values(schema: dict[str, Any]) -> dict[str, Any]:
    """What a value of the right type must be, apart from what stands below it."""
    node = {key: schema[key] for key in _BOUNDS if key in schema}
    if "pattern" in node:
        re.compile(node["pattern"])
    if schema.get("format") in _FORMATS:
        node["format"] = schema["format"]
    if rules := _rules(schema):
        node["rules"] = rules
    match schema.get("x-kubernetes-list-type"):
        case "map":
            node["keys"] = schema["x-kubernetes-list-map-keys"]
        case "set":
            node["unique"] = True
    return node


def _rules(schema: dict[str, Any]) -> list[str]:
    texts = [rule["rule"] for rule in schema.get("x-kubernetes-validations", ())]
    for text in texts:
        assert text in RULES or text in _ELSEWHERE, f"model/crd_rules.py does not know {text}"
    return [text for text in texts if text in RULES]


def table() -> str:
    """The content of the file: the root node of each version of each kind, then the nodes."""
    made, kinds = _Table(), {}
    for name in _CRDS:
        crd = yaml.load((_HERE / name).read_text(), Loader=yaml.CSafeLoader)["spec"]
        versions = {}
        for version in crd["versions"]:
            root = version["schema"]["openAPIV3Schema"]
            fields = {**root["properties"], "metadata": _METADATA}
            versions[version["name"]] = made.number({**root, "properties": fields})
        kinds[crd["names"]["kind"]] = versions
    nodes = ",\n".join(made.nodes)
    return f'{{"kinds":{json.dumps(kinds)},\n"nodes":[\n{nodes}\n]}}\n'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table())
