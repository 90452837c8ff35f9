"""What a kubeconfig's text means: each line here is what kubectl 1.32 makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vmsvc_grpc.kube.credential_files import text_of
from vmsvc_grpc.kube.kubeconfig import KubeconfigError, chosen
from vmsvc_grpc.kube.kubeconfig_yaml import first_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("", None, id="nothing"),
        pytest.param("a: 12:34:56\nb: 1:30\n", {"a": "12:34:56", "b": "1:30"}, id="no numbers"),
        pytest.param("a: 2026-11-28\n", {"a": "2026-11-28"}, id="no date"),
        pytest.param("2026-11-28: a\n1: b\n", {"2026-11-28": "a", "1": "b"}, id="keys"),
        pytest.param("a: =\nb: !vault x\n", {"a": "=", "b": "x"}, id="text"),
        pytest.param("a: !!binary aGk=\nb: !!str 5\n", {"a": "hi", "b": "5"}, id="tags"),
        pytest.param("a: 1e3\nb: 08\nc: y\n", {"a": 1000.0, "b": 8.0, "c": True}, id="no text"),
        pytest.param("a: 'y'\nb: |\n  5\n", {"a": "y", "b": "5\n"}, id="quotes and blocks"),
        pytest.param("a: &x {b: [1]}\nc: *x\n", {"a": {"b": [1]}, "c": {"b": [1]}}, id="aliases"),
        pytest.param(
            "x: &x {a: 1}\nz: {a: 2, <<: *x}\n", {"x": {"a": 1}, "z": {"a": 1}}, id="merge"
        ),
        pytest.param("<<: [{a: 1}, {a: 2, b: 3}]\n", {"a": 1, "b": 3}, id="a merge of several"),
        pytest.param("<<: []\na: &x 1\n*x : 2\n", {"a": 1, "1": 2}, id="a merge of none"),
        pytest.param("!!merge x: {a: 1}\n", {"x": {"a": 1}}, id="a tag that merges nothing"),
        pytest.param('"<<": {a: 1}\n', {"<<": {"a": 1}}, id="quotes that merge nothing"),
        pytest.param(
            "&x <<: {a: 1}\n*x : {b: 2}\n", {"a": 1, "<<": {"b": 2}}, id="no merge by alias"
        ),
        pytest.param(
            '!!merge <<: {a: 1}\n! "<<": {b: 2}\n', {"a": 1, "b": 2}, id="tags that merge"
        ),
        pytest.param("a: ! 5\nb: ! ~\n", {"a": "5", "b": "~"}, id="a tag that says text"),
        pytest.param("a: &x 1\nb: &x 2\nc: *x\n", {"a": 1, "b": 2, "c": 2}, id="an anchor twice"),
        pytest.param("a: 1\n---\nb: [\n", {"a": 1}, id="the first document"),
        pytest.param('{"a":\t1}\n{}', {"a": 1}, id="JSON"),
        pytest.param("\ufeffa: 1\r\n", {"a": 1}, id="a mark, and other line ends"),
    ],
)
def test_the_first_document(text: str, value: Any) -> None:
    assert first_document(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "? [a]\n: b",
        "~: a",
        "a: .nan",
        "a: !!int x",
        "<<: 1",
        "<<: [1]",
        "<<: ~",
        "a: &a [{b: 1}]\n<<: *a",
        "a: &a [{b: 1}]\n<<: [*a]",
        "a: &a ~\n*a : 1",
        "a: &a [1]\n*a : 1",
        "a: &a [*a]",
        "a: *b",
    ],
)
def test_what_kubectl_refuses(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        first_document(text)


@pytest.mark.parametrize("levels", [300, 3000])
def test_what_is_nested_deep_is_passed_over(levels: int) -> None:
    deep = "extensions: " + "[" * levels + "]" * levels + "\n"
    nested = "preferences: " + "{a: " * levels + "1" + "}" * levels + "\n"
    found = chosen([(Path("config"), KUBECONFIG + deep + nested)], None)
    assert found.user.token == "12:34:56"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[" * 3000 + "]" * 3000, "users[0]: must be a mapping", id="a misfit"),
        pytest.param("{a: " * 3000 + "1" + "}" * 3000, "users: must be a list", id="a mapping"),
        # That is too deep for kubectl too; PyYAML's loaders end the process at some 50,000 levels.
        pytest.param("[" * 100_000, "it is nested too deep; remove what is no", id="too deep"),
    ],
)
def test_deep_users_are_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(KubeconfigError, match=re.escape(message)):
        chosen([(Path("config"), f"users: {text}\n")], None)


KUBECONFIG = """\
current-context: 2026-11-28
contexts: [{name: 2026-11-28, context: {cluster: c, user: 1:30}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: 1:30, user: {token: 12:34:56}}]
"""


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig"])
def test_names_and_secrets_that_look_like_times(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(KUBECONFIG.encode(codec))
    found = chosen([(path, text_of(path))], None)
    assert (found.name, found.user_name, found.user.token) == ("2026-11-28", "1:30", "12:34:56")
