"""What nginx reads of a target, to the letter."""

from __future__ import annotations

import pytest

from tests.unit.client.feed.states import DB, HTTP, METRICS, WEB, absent, endpoint, state
from vmsvc.feed.nginx.upstream import (
    Form,
    ParameterError,
    content,
    file_name,
    is_of,
    is_ours,
    parameters,
)
from vmsvc.feed.target import Target
from vmsvc.model import ServiceState

TARGET = Target("web", WEB)
PLAIN = Form()

ZONES = state(
    WEB,
    endpoint("10.0.1.1", zone="a"),
    endpoint("10.0.1.2", zone="a", ready=False),
    endpoint("10.0.2.1", zone="b"),
    endpoint("10.0.2.2", zone="b", ready=False),
    endpoint("10.0.3.1"),
)


def written(of: ServiceState, form: Form = PLAIN, target: Target = TARGET) -> str:
    return content(target, target.servers(of), form).decode()


def servers(of: ServiceState, form: Form) -> list[str]:
    """The lines of servers, without what they all have."""
    lines = written(of, form).splitlines()
    found = [line.strip() for line in lines if line.strip().startswith("server ")]
    return [line.removeprefix("server ").removesuffix(";") for line in found]


def test_a_target_is_an_upstream() -> None:
    assert written(state(WEB, "10.0.0.1", "2001:db8::1")) == (
        "# Written by vmsvc feed nginx, which undoes edits: web=shop/web\n"
        "upstream web {\n"
        "    server 10.0.0.1:8080;\n"
        "    server [2001:db8::1]:8080;\n"
        "}\n"
    )


def test_a_target_is_the_servers_of_an_upstream_of_ones_own() -> None:
    target = Target("web", WEB, "metrics")
    found = written(state(WEB, "10.0.0.1", ports=(HTTP, METRICS)), Form(servers_only=True), target)
    assert found == (
        "# Written by vmsvc feed nginx, which undoes edits: web=shop/web:metrics\n"
        "server 10.0.0.1:9100;\n"
    )


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(state(WEB), id="no endpoints"),
        pytest.param(absent(WEB), id="no service"),
        pytest.param(state(WEB, endpoint("10.0.0.1", ready=False)), id="none that is ready"),
    ],
)
def test_an_upstream_is_never_without_a_server(of: ServiceState) -> None:
    assert servers(of, PLAIN) == ["unix:/nonexistent down"]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        pytest.param(
            Form(),
            ["10.0.1.1:8080", "10.0.2.1:8080", "10.0.3.1:8080"],
            id="without a zone all that are ready are equal",
        ),
        pytest.param(
            Form(zone="a"),
            ["10.0.1.1:8080", "10.0.2.1:8080 backup", "10.0.3.1:8080 backup"],
            id="those of other zones, or of none, are backups",
        ),
        pytest.param(
            Form(zone="c"),
            ["10.0.1.1:8080", "10.0.2.1:8080", "10.0.3.1:8080"],
            id="with none in the zone all are equal, as backups of nothing are refused",
        ),
        pytest.param(
            Form(not_ready_down=True, zone="b"),
            [
                "10.0.1.1:8080 backup",
                "10.0.1.2:8080 backup down",
                "10.0.2.1:8080",
                "10.0.2.2:8080 down",
                "10.0.3.1:8080 backup",
            ],
            id="those that are not ready stay, marked down",
        ),
        pytest.param(
            Form(parameters="max_fails=0", zone="a"),
            [
                "10.0.1.1:8080 max_fails=0",
                "10.0.2.1:8080 max_fails=0 backup",
                "10.0.3.1:8080 max_fails=0 backup",
            ],
            id="parameters are on all",
        ),
    ],
)
def test_servers(form: Form, expected: list[str]) -> None:
    assert servers(ZONES, form) == expected


def test_none_is_a_backup_while_none_of_its_zone_is_ready() -> None:
    only = state(WEB, endpoint("10.0.1.1", zone="a", ready=False), endpoint("10.0.2.1", zone="b"))
    form = Form(not_ready_down=True, zone="a")
    assert servers(only, form) == ["10.0.1.1:8080 down", "10.0.2.1:8080"]


def test_what_nginx_does_not_need_changes_nothing() -> None:
    before = state(WEB, endpoint("10.0.0.1", vm_name="a", zone="a"))
    after = state(WEB, endpoint("10.0.0.1", vm_name="b", zone="b"))
    assert written(before) == written(after)


def test_a_file_is_named_by_its_target() -> None:
    assert file_name(TARGET, PLAIN) == "web.upstream.conf"
    assert file_name(TARGET, Form(servers_only=True)) == "web.servers"


def test_a_file_is_known_by_its_first_line() -> None:
    ours = content(TARGET, (), Form(servers_only=True))
    assert is_ours(ours)
    assert is_ours(b"")
    assert not is_ours(b"upstream web { server 10.0.0.1; }\n" + ours)
    assert is_of(TARGET, ours)
    for other in (Target("web", DB), Target("web", WEB, "http"), Target("we", WEB)):
        assert not is_of(other, ours)
    assert not is_of(Target("web", "shop/we"), ours)


def test_parameters_are_those_of_a_server() -> None:
    assert parameters(" max_fails=2  fail_timeout=5s ") == "max_fails=2 fail_timeout=5s"
    assert parameters("") == ""


@pytest.mark.parametrize(
    "text", ["down", "max_fails=2;", "max_fails=", "max_fails=2} http{", "x=1"]
)
def test_other_parameters_are_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="max_conns="):
        parameters(text)
