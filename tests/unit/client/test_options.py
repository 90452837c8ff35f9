"""Arguments and environment of `vmsvc`, as a table."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from vmsvc import Readiness
from vmsvc.arguments import UsageError
from vmsvc.options import Options, parse

LIST = Options(
    command="list",
    server="127.0.0.1:50051",
    timeout_s=10.0,
    output="table",
    services=(),
    namespaces=(),
    readiness=Readiness.READY_ONLY,
)


def options(**different: object) -> Options:
    values = {name: getattr(LIST, name) for name in LIST.__slots__}
    return Options(**(values | different))


@pytest.mark.parametrize(
    ("line", "environment", "expected"),
    [
        pytest.param("list", {}, options(), id="all defaults"),
        pytest.param("list shop", {}, options(namespaces=("shop",)), id="a namespace"),
        pytest.param("list -n shop", {}, options(namespaces=("shop",)), id="as kubectl takes it"),
        pytest.param("-n shop list", {}, options(namespaces=("shop",)), id="flags may come first"),
        pytest.param(
            "list", {"VMSVC_NAMESPACE": "shop"}, options(namespaces=("shop",)), id="a variable"
        ),
        pytest.param("list", {"VMSVC_NAMESPACE": ""}, options(), id="an empty variable is none"),
        pytest.param(
            "list -n shop",
            {"VMSVC_NAMESPACE": "a"},
            options(namespaces=("shop",)),
            id="a flag wins",
        ),
        pytest.param(
            "list shop", {"VMSVC_NAMESPACE": "a"}, options(namespaces=("shop",)), id="a name wins"
        ),
        pytest.param("list -A", {"VMSVC_NAMESPACE": "a"}, options(), id="-A widens it again"),
        pytest.param(
            "list",
            {"VMSVC_SERVER": "a:1", "VMSVC_TIMEOUT_S": "2.5", "VMSVC_OUTPUT": "json"},
            options(server="a:1", timeout_s=2.5, output="json"),
            id="every variable of list",
        ),
        pytest.param(
            "watch a/b a/c --until-ready 2",
            {},
            options(command="watch", services=("a/b", "a/c"), until_ready=2),
            id="ready VMs",
        ),
        pytest.param(
            "watch a/b --for=absent --timeout-s 3",
            {},
            options(
                command="watch",
                services=("a/b",),
                until_absent=True,
                timeout_s=3.0,
                goal_timeout_s=3.0,
            ),
            id="until it is gone, and not for ever",
        ),
        pytest.param(
            "watch a/b --timeout-s 3",
            {},
            options(command="watch", services=("a/b",), timeout_s=3.0),
            id="nothing to wait for: for ever",
        ),
        pytest.param(
            "list --server b:1 --timeout-s 3 -o table",
            {"VMSVC_SERVER": "a:1", "VMSVC_TIMEOUT_S": "2.5", "VMSVC_OUTPUT": "json"},
            options(server="b:1", timeout_s=3.0),
            id="every flag wins over its variable",
        ),
        pytest.param(
            "resolve shop/web --all",
            {},
            options(command="resolve", services=("shop/web",), readiness=Readiness.ALL),
            id="a service",
        ),
        pytest.param(
            "resolve web data/db shop/web -n shop -o wide",
            {},
            options(command="resolve", services=("shop/web", "data/db"), output="wide"),
            id="several services, each once",
        ),
        pytest.param(
            "resolve web -n shop",
            {"VMSVC_ALL": "true"},
            options(command="resolve", services=("shop/web",), readiness=Readiness.ALL),
            id="a bare name in a namespace",
        ),
        pytest.param(
            "explain shop/web",
            {"VMSVC_NAMESPACE": "other", "VMSVC_ALL": "0"},
            options(command="explain", services=("shop/web",)),
            id="a full name needs no namespace",
        ),
        pytest.param(
            "version --client -o wide",
            {"VMSVC_NAMESPACE": "a,b"},
            options(command="version", client_only=True, output="wide", namespaces=("a", "b")),
            id="a version has no namespace",
        ),
        pytest.param("watch", {}, options(command="watch"), id="watch all"),
        pytest.param(
            "watch -n a -n b -n a",
            {},
            options(command="watch", namespaces=("a", "b")),
            id="watch namespaces",
        ),
        pytest.param(
            "watch",
            {"VMSVC_NAMESPACE": "a, b", "VMSVC_ALL_NAMESPACES": "no"},
            options(command="watch", namespaces=("a", "b")),
            id="watch namespaces of a variable",
        ),
        pytest.param(
            "watch web data/db -n shop",
            {},
            options(command="watch", services=("shop/web", "data/db")),
            id="watch services: the namespace only completes their names",
        ),
    ],
)
def test_options(line: str, environment: dict[str, str], expected: Options) -> None:
    assert parse(line.split(), environment, terminal=True) == expected


@pytest.mark.parametrize(
    ("line", "terminal", "output"),
    [
        pytest.param("watch", True, "table", id="in a terminal, a table"),
        pytest.param("watch", False, "json", id="in a pipe, JSON"),
        pytest.param("watch -o json", True, "json", id="JSON in a terminal, if asked for"),
        pytest.param("list", False, "table", id="a list is a table in a pipe too"),
    ],
)
def test_output(line: str, terminal: bool, output: str) -> None:
    assert parse(line.split(), {}, terminal=terminal).output == output


@pytest.mark.parametrize(
    ("line", "environment", "sentence"),
    [
        pytest.param(
            "", {}, "the following arguments are required: COMMAND; see vmsvc --help", id="nothing"
        ),
        pytest.param("frob", {}, "there is no command 'frob'; see vmsvc --help", id="no command"),
        pytest.param(
            "rsolve a/b", {}, "'rsolve' (did you mean resolve?)", id="a command, misspelt"
        ),
        pytest.param(
            "feed ngnix", {}, "there is no output 'ngnix' (did you mean nginx?)", id="an output"
        ),
        pytest.param(
            "--srever x list",
            {},
            "there is no flag '--srever' (did you mean --server?); see vmsvc --help",
            id="a flag before the command, misspelt",
        ),
        pytest.param(
            "explain shop/web --all-namespaces",
            {},
            "there is no flag '--all-namespaces'",
            id="a flag of other commands",
        ),
        pytest.param(
            "resolve shop/web -x",
            {},
            "unrecognized arguments: -x; see vmsvc resolve --help",
            id="a letter of no flag",
        ),
        pytest.param(
            "list --frob", {}, "there is no flag '--frob'; see vmsvc list --help", id="no such flag"
        ),
        pytest.param("resolve", {}, "required: SERVICE; see vmsvc resolve --help", id="no service"),
        pytest.param(
            "resolve web",
            {},
            "service 'web' has no namespace: write NAMESPACE/web, or give -n",
            id="a bare name",
        ),
        pytest.param(
            "watch web -n a -n b", {}, "write NAMESPACE/web", id="which of two namespaces"
        ),
        pytest.param("watch web -A", {}, "write NAMESPACE/web", id="a bare name in all namespaces"),
        pytest.param("list -n a -n b", {}, "list: takes one namespace, and not a, b", id="two"),
        pytest.param(
            "list -o xml", {}, "--output: 'xml' is none of table, wide, json", id="output"
        ),
        pytest.param("list --timeout-s 0", {}, "'0' is not a number of seconds above 0", id="zero"),
        pytest.param("list --timeout-s inf", {}, "'inf' is not a number of seconds", id="for ever"),
        pytest.param("list --timeout-s 1e400", {}, "'1e400' is not a number", id="out of range"),
        pytest.param("list --timeout-s 1000001", {}, "1,000,000 at most", id="longer than may be"),
        pytest.param(f"list --timeout-s {'9' * 5000}", {}, "is not a number", id="5,000 digits"),
        pytest.param(
            "list --server h", {}, "'h' is not HOST:PORT; write for instance", id="no port"
        ),
        pytest.param(
            "list",
            {"VMSVC_SERVER": "h"},
            "VMSVC_SERVER: server 'h' is not HOST:PORT",
            id="variable",
        ),
        pytest.param(
            "list",
            {"VMSVC_ALL": "maybe"},
            "VMSVC_ALL: 'maybe' is neither true nor false",
            id="flag",
        ),
        pytest.param(
            "watch a/b --until-ready 0", {}, "'0' is not a number of VMs above 0", id="no VM"
        ),
        pytest.param("watch a/b --until-ready 1.5", {}, "'1.5' is not a number", id="half a VM"),
        pytest.param(
            "watch a/b --until-ready ²", {}, "'²' is not a number", id="a digit of a sort"
        ),
        pytest.param(
            f"watch a/b --until-ready {'9' * 5000}", {}, "is not a number", id="5,000 digits of VMs"
        ),
        pytest.param(
            "watch a/b --for=ready", {}, "'ready' is not 'absent'", id="for something else"
        ),
        pytest.param(
            "watch a/b --for=absent --until-ready 1", {}, "cannot both come true", id="two goals"
        ),
        pytest.param(
            "watch -n a --until-ready 1",
            {},
            "--until-ready needs the services by name: vmsvc watch SERVICE --until-ready",
            id="ready VMs of nothing named",
        ),
        pytest.param(
            "watch --for=absent", {}, "--for=absent needs the services by name", id="all absent"
        ),
        pytest.param("watch -o name", {}, "-o takes table, wide, json, yaml, and not name", id="n"),
        pytest.param(
            "version -o name", {}, "version: -o takes table, wide, json, yaml, and not", id="none"
        ),
        pytest.param(
            "watch -o table",
            {},
            "watch: a live table needs a terminal; use -o json",
            id="no terminal",
        ),
    ],
)
def test_wrong(line: str, environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)) as raised:
        parse(line.split(), environment, terminal=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "line", ["--help", "list -h", "resolve -h", "watch -h", "explain -h", "version -h"]
)
def test_help_fits_a_terminal(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as ended:
        parse(line.split(), {}, terminal=True)
    assert ended.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 90


def test_help_names_every_variable_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"], {}, terminal=True)
    text = capsys.readouterr().out
    for flag in ("SERVER", "TIMEOUT_S", "OUTPUT", "NAMESPACE", "ALL_NAMESPACES", "ALL"):
        assert f"VMSVC_{flag}" in text
    for code in ("  0  ", "  1  ", "  2  ", "  3  ", "  130  "):
        assert code in text


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cli", ("grpc", "google.protobuf", "rich", "yaml", "jinja2", "prometheus_client")),
        pytest.param(
            "commands", ("rich", "yaml", "argcomplete", "jinja2"), id="-o json, and tables of text"
        ),
    ],
)
def test_nothing_is_imported_that_takes_its_time_and_is_not_needed(
    module: str, heavy: tuple[str, ...]
) -> None:
    """And gRPC's log is turned off before it is imported, or it would come into the table."""
    program = f"import sys, vmsvc.{module}; print(*set({heavy}).intersection(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == []
