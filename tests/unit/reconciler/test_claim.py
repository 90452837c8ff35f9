"""What a file says of whose it is."""

from __future__ import annotations

import pytest
import yaml

from vmsvc_grpc.model.ownership import HELD_FOR
from vmsvc_grpc.reconciler.claim import claims

OWNED = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  ownerReferences:
  - {apiVersion: vmoperator.vmware.com/v1alpha9, kind: VirtualMachineService, name: web}
spec: {ports: [{port: 80}]}
"""
MARKED = f"metadata:\n  annotations:\n    {HELD_FOR}: web\n  name: web\n"
FOREIGN = "metadata: {name: web}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(OWNED, [True], id="an owner"),
        pytest.param(MARKED, [True], id="the mark"),
        pytest.param(FOREIGN, [False], id="neither"),
        pytest.param(f"--- # comment\n{OWNED}---\n{FOREIGN}", [True, False], id="two objects"),
        pytest.param(f"---\n---\n# comment\n{OWNED}...\n---\n", [True], id="empty documents"),
        pytest.param("", [], id="nothing"),
        pytest.param("a: {metadata: {ownerReferences: x}}", [False], id="metadata further below"),
        pytest.param(
            f'{{"spec": {{"a": [1]}}, "metadata": {{"name": "ü", "annotations": {{"{HELD_FOR}":\n'
            '"ü"}}, "kind": "Service"}',
            [True],
            id="JSON, metadata later",
        ),
        pytest.param(f"a: &a ü\nb: *a\n{MARKED}", [True], id="after aliases"),
        pytest.param("metadata: text\n", [False], id="metadata that is no mapping"),
        pytest.param("metadata:\n", [False], id="empty metadata"),
    ],
)
def test_claims(text: str, expected: list[bool]) -> None:
    assert [claim for claim in claims(text) if claim is not None] == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("- a", id="a list"),
        pytest.param("text", id="a text"),
        pytest.param("? [a]\n: b", id="a list as a key"),
        pytest.param("a: " + "[" * 1000, id="too deep"),
        pytest.param("metadata: " + "[" * 1000, id="too deep in metadata"),
        pytest.param("a: [", id="broken off"),
        pytest.param("metadata: *a", id="an alias of nothing"),
    ],
)
def test_what_is_no_object(text: str) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        list(claims(text))


def test_a_large_text_is_read_in_steps_and_nothing_in_it_is_expanded() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 100)
    )
    steps = list(claims(bomb * 2 + MARKED))
    assert steps[-1] is True
    assert steps.count(None) >= len(steps) - 1 >= 4


def test_merge_keys_are_not_followed() -> None:
    text = "a: &a {name: web}\nmetadata: {<<: {name: web}, annotations: {" + HELD_FOR + ": web}}"
    assert list(claims(text)) == [False]
