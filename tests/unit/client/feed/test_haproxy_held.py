"""HAProxy's own words for its servers, as 2.6.12 writes them."""

from __future__ import annotations

import ipaddress

import pytest

from vmsvc.feed.haproxy import server_state
from vmsvc.feed.haproxy.held import HeldError, HeldServer, NoSuchBackendError, held
from vmsvc.feed.haproxy.wanted import State

COLUMNS = (
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state "
    "srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl "
    "srv_check_port srv_check_addr srv_agent_addr srv_agent_port"
)


def row(name: str, address: str, values: str, port: int = 80) -> str:
    """`values`: from srv_op_state to srv_agent_state."""
    return f"3 web 1 {name} {address} {values} 0 0 - {port} - 0 0 - - 0"


def answer(*rows: str) -> str:
    return "\n".join(("1", COLUMNS, *rows))


STAT = """\
# pxname,svname,qcur,qmax,scur,smax,bck,type,check_desc,
web,plain,0,0,0,7,0,2,,
web,busy,2,3,4,5,0,2,"a, quoted ""text\""",
web,far,0,0,0,0,1,2,,"""


@pytest.mark.parametrize(
    ("found", "server"),
    [
        pytest.param(
            row("plain", "10.0.0.1", "2 0 1 1 17 1 0 2 0 0"),
            HeldServer("plain", ipaddress.ip_address("10.0.0.1"), 80, State.READY, since_s=17),
            id="a server of the configuration",
        ),
        pytest.param(
            row("busy", "fd00::1", "2 12 50 100 0 1 0 2 0 0", port=8080),
            HeldServer(
                "busy",
                ipaddress.ip_address("fd00::1"),
                8080,
                State.DRAIN,
                reweighted=True,
                sessions=6,
            ),
            id="one that drains, with another weight; the queue counts",
        ),
        pytest.param(
            row("far", "10.0.0.1", "0 9 1 1 0 1 0 0 2 0"),
            HeldServer(
                "far",
                ipaddress.ip_address("10.0.0.1"),
                80,
                State.MAINT,
                unchecked=True,
                backup=True,
            ),
            id="maintenance outdoes draining; checks are configured, and off",
        ),
        pytest.param(
            row("plain", "10.0.0.1", "2 32 1 100 0 1 0 2 7 22"),
            HeldServer("plain", ipaddress.ip_address("10.0.0.1"), 80, State.READY, agent=True),
            id="an agent sets the weight, and checks are on",
        ),
        pytest.param(
            row("new", "-", "0 5 1 1 0 1 0 0 8 0", port=0),
            HeldServer("new", None, 0, State.MAINT),
            id="one that was added since, and has no address",
        ),
    ],
)
def test_a_server_is_read(found: str, server: HeldServer) -> None:
    assert held(STAT, answer(found)) == (server,)


def test_an_empty_backend_has_no_servers() -> None:
    assert held("# pxname,svname,qcur,scur,bck,", answer()) == ()


def test_a_backend_that_is_missing_is_told_from_an_empty_one() -> None:
    with pytest.raises(NoSuchBackendError):
        held("No such proxy.", "Can't find backend.")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("Permission denied", id="refused"),
        pytest.param("", id="nothing"),
        pytest.param("2\n# be_id", id="another format"),
        pytest.param("1\n# be_id srv_name\n3 web", id="columns are missing"),
        pytest.param(answer("3 web 1 plain 10.0.0.1"), id="a row is cut"),
    ],
)
def test_an_answer_that_is_none_is_shown(said: str) -> None:
    with pytest.raises(HeldError, match=r"^HAProxy's answer is not understood"):
        held(STAT, said)


def test_the_file_of_states_has_the_slots_and_nothing_that_only_time_changes() -> None:
    other = row("other", "10.0.0.2", "2 0 1 1 9 1 0 2 0 0")
    before = answer(row("slot1", "10.0.0.1", "2 4 1 1 17 6 3 4 7 0"), other)
    later = before.replace(" 17 ", " 300 ").replace(" 7 0 ", " 6 0 ")
    missing = "Can't find backend."
    file = server_state.content([(before, {"slot1"}), (missing, {"slot1"})])
    assert file == f"1\n{COLUMNS}\n{row('slot1', '10.0.0.1', '2 4 1 1 0 6 3 4 6 0')}\n"
    assert server_state.content([(later, {"slot1"})]) == file
    assert server_state.content([(before, set())]) == ""


@pytest.mark.parametrize(
    "stat",
    [
        pytest.param(f'# svname,qcur,scur,bck\n"{"x" * 200_000}",0,0,0', id="a field without end"),
        pytest.param("# svname,qcur\nplain,0", id="columns that are missing"),
    ],
)
def test_statistics_that_are_none_are_an_error_of_their_backend(stat: str) -> None:
    with pytest.raises(HeldError, match=r"^HAProxy's answer is not understood"):
        held(stat, answer(row("plain", "10.0.0.1", "2 0 1 1 17 1 0 2 0 0")))


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("1\n# srv_name\nslot1", id="columns that are missing"),
        pytest.param(answer(row("slot1", "10.0.0.1", "2 0 1 1 17 1 0 2 x 0")), id="no numbers"),
    ],
)
def test_states_that_are_none_are_kept_in_no_file(state: str) -> None:
    with pytest.raises(HeldError, match=r"^HAProxy's servers are not understood"):
        server_state.content([(state, ["slot1"])])
