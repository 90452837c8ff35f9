"""A real nginx follows: issue 14, `feed nginx`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.envoy import Machines, machines
from tests.integration.nginx import Nginx, prepared
from tests.integration.serving import until
from tests.unit.client.feed.states import DB, WEB, ByHand, by_name, endpoint, state
from vmsvc.feed.nginx import nginx as feed_nginx
from vmsvc.feed.nginx.upstream import Form, content
from vmsvc.feed.output import Applied, OutputError
from vmsvc.feed.target import Server, Target
from vmsvc.model import Endpoint, Port, ServiceState

TARGETS = (Target("web", WEB), Target("db", DB))
PLAIN = Form()


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[Nginx]:
    async with prepared(tmp_path) as made:
        yield made


@pytest.fixture
async def vms() -> AsyncIterator[Machines]:
    async with machines("a", "b", "c") as running:
        yield running


class Feed(ByHand[feed_nginx.Nginx]):
    """An output whose seconds pass as a test says."""

    def __init__(
        self, nginx: Nginx, *targets: Target, form: Form = PLAIN, interval_s: float = 0
    ) -> None:
        self.output = feed_nginx.Nginx(
            targets or TARGETS[:1],
            nginx.directory,
            form,
            commands=feed_nginx.Commands(nginx.test, nginx.reload),
            reload_interval_s=interval_s,
            clock=lambda: self.now_s,
        )


def serving(vms: Machines, service: str, *names: str) -> ServiceState:
    port = Port("http", 80, vms.port, "TCP")
    return state(service, *(vms.addresses[name] for name in names), ports=(port,))


async def test_it_follows_a_service(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    feed = Feed(nginx)
    for names in ("ab", "bc", "c", "abc"):
        assert await feed.apply(serving(vms, WEB, *names)) == Applied(1)
        await nginx.answers(*names)
    await nginx.reloaded(4)


async def test_what_is_as_it_should_be_is_left_alone(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    await Feed(nginx).apply(serving(vms, WEB, "a"))
    before = sorted((path, path.stat().st_mtime_ns) for path in nginx.directory.iterdir())
    for feed in (Feed(nginx), Feed(nginx)):
        assert await feed.apply(serving(vms, WEB, "a")) == Applied(0)
        assert await feed.apply() == Applied(0)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in nginx.directory.iterdir())
    await nginx.reloaded(1)


async def test_that_what_nginx_has_taken_cannot_be_noted_is_no_failed_reload(
    nginx: Nginx, vms: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    await nginx.start()
    feed = Feed(nginx)

    def full(_: object) -> None:
        raise OutputError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(feed_nginx, "take", full)
        fault = await feed.fault(serving(vms, WEB, "a"))
    assert fault == "nginx has been reloaded, and will be again: No space left on device"
    await nginx.answers("a")
    assert await feed.apply(serving(vms, WEB, "a")) == Applied(1)


async def test_what_fails_in_the_same_way_is_one_fault(nginx: Nginx, vms: Machines) -> None:
    # It says it with a time and its process, and does not run.
    aloud = [word if word != "error.log" else "stderr" for word in nginx.reload]
    feed = Feed(nginx)
    feed.output._commands = feed_nginx.Commands(nginx.test, aloud)
    faults = {await feed.fault(serving(vms, WEB, "a")) for _ in range(3)}
    assert len(faults) == 1
    assert "[notice] signal process started" in faults.pop()


async def test_an_nginx_that_includes_a_file_that_is_missing_can_start(
    nginx: Nginx, vms: Machines
) -> None:
    nginx.include("include upstreams/web.upstream.conf;")
    feed = Feed(nginx)
    feed.output.begin()
    await nginx.start()
    assert await nginx.ask() == "502"
    assert await feed.apply() == Applied(1)
    await feed.apply(serving(vms, WEB, "a"))
    await nginx.answers("a")


async def test_a_reload_that_nobody_heard_is_made_up_for(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    feed = Feed(nginx)
    await feed.apply(serving(vms, WEB, "a"))
    await nginx.stop()
    assert "its reload failed" in await feed.fault(serving(vms, WEB, "b"))
    assert "its reload failed" in await feed.fault(serving(vms, WEB, "b"))
    await nginx.start()
    await nginx.answers("b")
    # Another feed, as this one may have been restarted with nginx.
    assert await Feed(nginx).apply(serving(vms, WEB, "b")) == Applied(1)
    assert await Feed(nginx).apply(serving(vms, WEB, "b")) == Applied(0)


async def test_a_file_that_nginx_refuses_is_put_back(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    feed = Feed(nginx, form=Form(servers_only=True))
    nginx.include("upstream web { include upstreams/web.servers; }")
    await feed.apply(serving(vms, WEB, "a"))
    await nginx.answers("a")
    file = nginx.directory / "web.servers"
    before = file.read_bytes()
    # It knows no backups.
    nginx.include("upstream web { ip_hash; include upstreams/web.servers; }")
    zoned = Feed(nginx, form=Form(servers_only=True, zone="z"))
    ours = endpoint(vms.addresses["b"], zone="z")
    both = state(WEB, ours, vms.addresses["c"], ports=serving(vms, WEB, "a").ports)
    for _ in range(2):
        fault = await zoned.fault(both)
        assert fault.startswith("web.servers stays as it was: command ")
        assert 'balancing method does not support parameter "backup"' in fault
        assert file.read_bytes() == before
    await nginx.reloaded(1)
    assert await nginx.ask() == "a"
    await zoned.apply(serving(vms, WEB, "c"))
    await nginx.answers("c")


async def test_what_nginx_refuses_of_one_target_costs_that_one(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    nginx.include("upstream db { server 127.0.0.1:1 down; } include upstreams/*.conf;")
    feed = Feed(nginx, *TARGETS)
    for names in ("a", "b"):
        fault = await feed.fault(serving(vms, WEB, names), serving(vms, DB, names))
        assert fault.startswith("db.upstream.conf stays as it was: ")
        assert 'duplicate upstream "db"' in fault
        await nginx.answers(names)
    assert not (nginx.directory / "db.upstream.conf").exists()
    await nginx.reloaded(2)
    nginx.include("include upstreams/*.conf;")
    await feed.apply(serving(vms, WEB, "b"), serving(vms, DB, "c"))
    await nginx.answers("c", upstream="db")


async def test_a_fault_in_the_rest_of_its_configuration_is_told_as_that(
    nginx: Nginx, vms: Machines
) -> None:
    await nginx.start()
    feed = Feed(nginx, *TARGETS)
    await feed.apply(serving(vms, WEB, "a"), serving(vms, DB, "a"))
    await nginx.answers("a")
    nginx.include("include upstreams/*.conf; nonsense;")
    fault = await feed.fault(serving(vms, WEB, "b"), serving(vms, DB, "b"))
    assert "stay as they were, as nginx refuses even that" in fault
    assert 'unknown directive "nonsense"' in fault
    assert await nginx.ask() == "a"
    await nginx.reloaded(1)


async def test_a_port_that_a_service_lacks_costs_that_one(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    feed = Feed(nginx, TARGETS[0], Target("db", DB, "sql"))
    fault = await feed.fault(serving(vms, WEB, "a"), serving(vms, DB, "b"))
    assert fault == "db: service data/db has no port 'sql': it has http"
    await nginx.answers("a")
    await nginx.answers("502", upstream="db")


async def test_reloads_keep_their_distance_and_take_the_newest(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    feed = Feed(nginx, interval_s=10)
    assert await feed.apply(serving(vms, WEB, "a")) == Applied(1)
    for second, names in enumerate(["b", "ab", "bc", "c"]):
        feed.now_s = float(second)
        assert await feed.apply(serving(vms, WEB, *names)) == Applied(0, 10.0 - second)
    feed.now_s = 10.0
    assert await feed.apply(serving(vms, WEB, "c")) == Applied(1)
    await nginx.answers("c")
    await nginx.reloaded(2)


async def test_a_state_that_comes_and_goes_between_reloads_costs_none(
    nginx: Nginx, vms: Machines
) -> None:
    await nginx.start()
    feed = Feed(nginx, interval_s=10)
    await feed.apply(serving(vms, WEB, "a"))
    assert (await feed.apply(serving(vms, WEB, "b"))).again_in_s == 10
    assert await feed.apply(serving(vms, WEB, "a")) == Applied(0)
    await nginx.reloaded(1)


async def test_a_fault_is_told_while_it_is_too_soon_to_try_again(
    nginx: Nginx, vms: Machines
) -> None:
    await nginx.start()
    nginx.include("nonsense;")
    feed = Feed(nginx, interval_s=10)
    fault = await feed.fault(serving(vms, WEB, "a"))
    nginx.include("include upstreams/*.conf;")
    assert await feed.fault(serving(vms, WEB, "b")) == fault
    feed.now_s = 10.0
    assert await feed.apply(serving(vms, WEB, "b")) == Applied(1)


@pytest.mark.parametrize("edit", ["", "upstream web { server 127.0.0.1:1; }\n", None])
async def test_what_others_do_to_a_file_is_put_right(
    nginx: Nginx, vms: Machines, edit: str | None
) -> None:
    await nginx.start()
    feed = Feed(nginx)
    await feed.apply(serving(vms, WEB, "a"))
    file = nginx.directory / "web.upstream.conf"
    before = file.read_text()
    if edit is None:
        file.unlink()
    else:
        file.write_text(before.splitlines()[0] * bool(edit) + "\n" + edit)
    # It may be that nginx was told to read that.
    assert await feed.apply() == Applied(1)
    assert file.read_text() == before
    await nginx.reloaded(2)


async def test_a_file_that_is_not_ours_stays(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    file = nginx.directory / "web.upstream.conf"
    file.write_text("upstream mine { server 127.0.0.1:1; }\n")
    feed = Feed(nginx, *TARGETS)
    fault = await feed.fault(serving(vms, WEB, "a"), serving(vms, DB, "b"))
    assert fault == f"{file} was not written by us, and stays: move it away"
    assert file.read_text() == "upstream mine { server 127.0.0.1:1; }\n"
    await nginx.answers("b", upstream="db")


async def test_a_service_that_is_not_known_stays_as_it_is(nginx: Nginx, vms: Machines) -> None:
    await nginx.start()
    await Feed(nginx, *TARGETS).apply(serving(vms, WEB, "a"), serving(vms, DB, "b"))
    assert await Feed(nginx, *TARGETS).apply(serving(vms, WEB, "c")) == Applied(1)
    await nginx.answers("c")
    await nginx.answers("b", upstream="db")


async def test_another_service_is_not_served_by_the_one_of_before(
    nginx: Nginx, vms: Machines
) -> None:
    await nginx.start()
    await Feed(nginx).apply(serving(vms, WEB, "a"))
    await Feed(nginx, Target("web", DB)).apply()
    await nginx.answers("502")


async def test_nothing_untested_is_left_where_it_is_cancelled(
    nginx: Nginx, vms: Machines, tmp_path: Path
) -> None:
    feed = Feed(nginx)
    await nginx.start()
    await feed.apply(serving(vms, WEB, "a"))
    file = nginx.directory / "web.upstream.conf"
    before = file.read_bytes()
    slow = feed_nginx.Nginx(
        TARGETS[:1],
        nginx.directory,
        PLAIN,
        commands=feed_nginx.Commands(("sleep", "60"), nginx.reload, 60),
        reload_interval_s=0,
    )
    task = asyncio.create_task(slow.apply(by_name(serving(vms, WEB, "b"))))
    await until(lambda: file.read_bytes() != before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert file.read_bytes() == before


ENDPOINTS = st.builds(
    endpoint,
    st.ip_addresses().map(str).filter(lambda text: "%" not in text),
    ready=st.booleans(),
    zone=st.sampled_from(["", "a", "b"]),
)
FORMS = st.builds(
    Form,
    zone=st.sampled_from(["", "a", "c"]),
    not_ready_down=st.booleans(),
    parameters=st.sampled_from(["", "max_fails=0 fail_timeout=3s"]),
)
UPSTREAMS = st.lists(st.tuples(st.lists(ENDPOINTS, max_size=5), FORMS), min_size=8, max_size=16)


def as_read(dump: str, upstream: str) -> Mapping[str, list[str]]:
    """The servers of an upstream in what `nginx -T` prints, with the parameters of each."""
    body = dump.partition(f"upstream {upstream} {{")[2].partition("}")[0]
    lines = [line.split() for line in body.split(";") if line.strip()]
    assert {line[0] for line in lines} == {"server"}
    return {line[1]: line[2:] for line in lines}


async def test_nginx_reads_just_the_servers_of_a_state(nginx: Nginx) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(UPSTREAMS)
    def follows(upstreams: list[tuple[list[Endpoint], Form]]) -> None:
        file, targets = nginx.directory / "all.conf", []
        with file.open("wb") as all_of_them:
            for number, (endpoints, form) in enumerate(upstreams):
                target = Target(f"web{number}", WEB)
                servers = target.servers(state(WEB, *endpoints))
                all_of_them.write(content(target, servers, form))
                targets.append((target.name, servers, form))
        dump = asyncio.run_coroutine_threadsafe(nginx.dump(), loop).result()
        for name, servers, form in targets:
            holds(as_read(dump, name), servers, form)

    await asyncio.to_thread(follows)


def holds(read: Mapping[str, list[str]], servers: Sequence[Server], form: Form) -> None:
    ready = {server.reached for server in servers if server.ready}
    near = {server.reached for server in servers if server.zone == form.zone}
    up = {address for address, words in read.items() if "down" not in words}
    primary = {address for address, words in read.items() if "backup" not in words}
    assert up == ready
    if form.not_ready_down and servers:
        assert set(read) == {server.reached for server in servers}
    assert primary & up == (ready & near if form.zone and ready & near else ready)
    for address, words in read.items():
        parameters = [word for word in words if word not in ("backup", "down")]
        assert parameters == form.parameters.split() * (address != "unix:/nonexistent")
