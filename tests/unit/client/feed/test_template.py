"""A template sees plain values, makes a file, and costs itself alone: issue 14, `feed template`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.client.feed.states import (
    DB,
    HTTP,
    METRICS,
    WEB,
    ByHand,
    absent,
    by_name,
    endpoint,
    state,
)
from vmsvc.feed.output import Applied, OutputError
from vmsvc.feed.template import worker
from vmsvc.feed.template.template import TEMPLATE_BYTES_MAX, Bounds, Template, Told
from vmsvc.feed.template.view import context

ROOT = Path(__file__).parents[4]

STATES = (
    state(
        WEB,
        endpoint("10.0.0.1", zone="a"),
        endpoint("10.0.0.2", zone="b", ready=False),
        endpoint("2001:db8::3", zone="a"),
        ports=(HTTP, METRICS),
    ),
    state(DB, "10.0.1.1"),
    absent("data/gone"),
)


def rendered(source: str, **variables: str) -> str:
    seen = context(by_name(*STATES), variables)
    # As it comes to the worker.
    return worker.render(
        worker.Work(
            path="t.j2",
            source=source,
            context=json.loads(json.dumps(seen)),
            output_bytes_max=10_000,
            memory_bytes_max=0,
            cpu_s_max=0,
        )
    ).decode()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            "{% for name in services %}{{ name }} {% endfor %}",
            "data/db data/gone shop/web ",
            id="services are in the order of their names",
        ),
        pytest.param(
            "{% for s in services.values() if s.present %}\n"
            "  {% for e in s.endpoints if e.ready %}\n"
            "{{ s.namespace }} {{ s.name }} {{ e.vm_name }} {{ e | reached(s.ports[0]) }}\n"
            "  {% endfor %}\n"
            "{% endfor %}\n",
            "data db vm-10.0.1.1 10.0.1.1:8080\n"
            "shop web vm-10.0.0.1 10.0.0.1:8080\n"
            "shop web vm-2001:db8::3 [2001:db8::3]:8080\n",
            id="lines of statements leave nothing",
        ),
        pytest.param(
            "{% set web = services['shop/web'] %}{{ (web | port('metrics')).target_port }} "
            "{{ (web | port(80)).name }} {{ (services['data/db'] | port).port }}",
            "9100 http 80",
            id="a port by its name, its number, or as the only one",
        ),
        pytest.param(
            "{{ services['shop/web'].endpoints[0] | reached(7) }}",
            "10.0.0.1:7",
            id="a number of its own for a port",
        ),
        pytest.param(
            "{% for zone, all in services['shop/web'].endpoints | groupby('zone') %}"
            "{{ zone }}={{ all | map(attribute='address') | join(',') }};{% endfor %}",
            "a=10.0.0.1,2001:db8::3;b=10.0.0.2;",
            id="grouped by zone",
        ),
        pytest.param(
            "{{ services['data/db'].endpoints | tojson }}",
            '[{"address": "10.0.1.1", "ready": true, "vm_name": "vm-10.0.1.1", '
            '"vm_uid": "uid-10.0.1.1", "zone": ""}]',
            id="JSON",
        ),
        pytest.param(
            "{{ services['data/gone'].absence.reason }} {{ services['shop/web'].absence }}",
            "NOT_FOUND None",
            id="why a service is absent",
        ),
        pytest.param("{{ vars.PORT }}", "8080", id="a variable that is given"),
        pytest.param("<a>&\n\n", "<a>&\n\n", id="other text as it is"),
    ],
)
def test_a_template_makes(source: str, expected: str) -> None:
    assert rendered(source, PORT="8080") == expected


def test_the_example_makes_json() -> None:
    source = (ROOT / "examples" / "template" / "zones.json.j2").read_text()
    assert json.loads(rendered(source)) == {
        "data/db": {"none": {"ready": ["10.0.1.1:8080"], "not_ready": []}},
        "data/gone": {},
        "shop/web": {
            "a": {"ready": ["10.0.0.1:8080", "[2001:db8::3]:8080"], "not_ready": []},
            "b": {"ready": [], "not_ready": ["10.0.0.2:8080"]},
        },
    }


@pytest.fixture
def template(tmp_path: Path) -> Path:
    made = tmp_path / "t.j2"
    made.write_text("{{ services['shop/web'].endpoints | map(attribute='address') | join(' ') }}\n")
    return made


def edited(template: Path, content: str | bytes | None) -> None:
    template.unlink()
    if content is not None:
        template.write_bytes(content.encode() if isinstance(content, str) else content)


class Feed(ByHand[Template]):
    """A template's output whose seconds pass as a test says."""

    def __init__(
        self,
        template: Path,
        command: str = "",
        render_s: float = 30,
        output_bytes_max: int = 10_000,
        interval_s: float = 0,
    ) -> None:
        self.file = template.with_name("out")
        self.output = Template(
            template,
            self.file,
            [WEB],
            {},
            told=Told(("sh", "-c", command), 30) if command else None,
            bounds=Bounds(render_s, output_bytes_max),
            interval_s=interval_s,
            clock=lambda: self.now_s,
        )


@pytest.mark.parametrize(
    ("source", "line", "why"),
    [
        pytest.param("a\n{% for %}", 2, "Expected an expression", id="no syntax"),
        pytest.param("a\nb\n{{ service }}", 3, "'service' is undefined", id="no such name"),
        pytest.param("{{ services.values().x }}", 1, "has no attribute 'x'", id="no such field"),
        pytest.param(
            "\n{{ services['shop/web'] | port('sql') }}",
            2,
            "service shop/web has no port 'sql': it has http",
            id="no such port",
        ),
        pytest.param("\n{{ 1 / 0 }}", 2, "ZeroDivisionError: division by zero", id="no number"),
        pytest.param("{{ ''.__class__.mro() }}", 1, "is unsafe", id="not out of the sandbox"),
        pytest.param("\n{% include '/etc/passwd' %}", 2, "/etc/passwd", id="no other file"),
        pytest.param("{{ range(10 ** 9) | list }}", 1, "too big", id="a long range"),
        pytest.param(
            "\n{{ 'x' * 10 ** 10 }}", 2, "it takes more than 1024 MiB of memory", id="memory"
        ),
        pytest.param(
            "{% macro again() %}\n{{ again() }}{% endmacro %}{{ again() }}",
            2,
            "RecursionError: ",
            id="recursion",
        ),
        pytest.param(
            "{{ services['" + "x" * 10_000 + "'] }}", 1, "has no attribute 'xxx", id="long names"
        ),
        pytest.param("{{ 'x' * 10001 }}", None, "it makes more than 10000 bytes", id="much"),
        pytest.param("{{ vars.HOME }}", 1, "has no attribute 'HOME'", id="the environment"),
    ],
)
async def test_what_is_wrong_is_told_with_its_line_and_the_file_stays(
    template: Path, source: str, line: int | None, why: str
) -> None:
    edited(template, source)
    feed = Feed(template)
    feed.file.write_text("before")
    fault = await feed.fault(state(WEB, "10.0.0.1"))
    place, _, text = fault.partition(": ")
    assert place == (f"{template}:{line}" if line else str(template))
    assert why in text
    assert len(text) <= 500
    assert feed.file.read_text() == "before"


async def test_a_template_that_does_not_end_is_ended(template: Path) -> None:
    edited(
        template, "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    feed = Feed(template, render_s=0.5)
    fault = await feed.fault(state(WEB, "10.0.0.1"))
    assert fault == f"{template}: it takes more than 0.5 s to render"
    assert not feed.file.exists()


@pytest.mark.parametrize("nested", ["(", "[", "not ", "-", "{% if 1 %}"])
async def test_a_template_that_is_nested_without_end_is_one_fault(
    template: Path, nested: str
) -> None:
    """Parsers recurse, and some end their process by that."""
    edited(template, "{{ " * ("%" not in nested) + nested * 100_000)
    feed = Feed(template)
    assert (await feed.fault(state(WEB, "10.0.0.1"))).startswith(str(template))
    edited(template, "right")
    feed.output.reread()
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(1)


async def test_a_machine_that_starts_no_process_is_one_fault(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(template)
    with monkeypatch.context() as gone:
        gone.setattr(sys, "executable", str(template.with_name("gone")))
        fault = await feed.fault(state(WEB, "10.0.0.1"))
    assert fault == f"{template}: no process renders it: No such file or directory"
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(1)


def test_a_worker_whose_feed_is_gone_ends_by_itself() -> None:
    work = worker.Work(
        path="t.j2",
        source="{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        context={},
        output_bytes_max=1,
        memory_bytes_max=1024**3,
        cpu_s_max=1,
    )
    ended = subprocess.run(
        [sys.executable, "-m", "vmsvc.feed.template.worker"],
        input=json.dumps(work).encode(),
        check=False,
        timeout=60,
    )
    assert ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


async def test_the_file_follows(template: Path) -> None:
    feed = Feed(template)
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(1)
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(0)
    assert await feed.apply(state(WEB, "10.0.0.1", "10.0.0.2")) == Applied(1)
    assert feed.file.read_text() == "10.0.0.1 10.0.0.2\n"
    feed.file.write_text("edited")
    assert await feed.apply(state(WEB, "10.0.0.1", "10.0.0.2")) == Applied(1)
    assert feed.file.read_text() == "10.0.0.1 10.0.0.2\n"


async def test_nothing_is_made_of_a_part_of_what_was_named(template: Path) -> None:
    feed = Feed(template)
    assert await feed.fault(state(DB)) == f"{feed.file} waits for what is not known yet: {WEB}"
    assert not feed.file.exists()


async def test_it_is_made_no_more_often_than_said_and_of_the_newest(template: Path) -> None:
    feed = Feed(template, interval_s=10)
    await feed.apply(state(WEB, "10.0.0.1"))
    feed.now_s = 4.0
    assert await feed.apply(state(WEB, "10.0.0.2")) == Applied(0, 6.0)
    assert await feed.apply(state(WEB, "10.0.0.3")) == Applied(0, 6.0)
    feed.now_s = 10.0
    assert await feed.apply(state(WEB, "10.0.0.3")) == Applied(1)
    assert feed.file.read_text() == "10.0.0.3\n"


async def test_a_fault_is_told_while_it_is_too_soon_to_try_again(template: Path) -> None:
    edited(template, "{{ 1 / services['shop/web'].endpoints | length }}")
    feed = Feed(template, interval_s=10)
    fault = await feed.fault(state(WEB))
    assert await feed.fault(state(WEB, "10.0.0.1")) == fault
    feed.now_s = 10.0
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(1)


async def test_the_command_runs_once_the_file_is_new(template: Path) -> None:
    seen = template.with_name("seen")
    command = f"cat {template.with_name('out')} >> {seen}"
    feed = Feed(template, command)
    for _ in range(2):
        await feed.apply(state(WEB, "10.0.0.1"))
    await feed.apply(state(WEB, "10.0.0.2"))
    # A feed that starts anew knows what the command has been run for.
    assert await Feed(template, command).apply(state(WEB, "10.0.0.2")) == Applied(0)
    assert seen.read_text() == "10.0.0.1\n10.0.0.2\n"


async def test_a_command_that_fails_is_run_again_and_the_file_is_new(template: Path) -> None:
    allowed = template.with_name("allowed")
    command = (
        f"echo run >> {template.with_name('runs')}; test -e {allowed} || {{ echo no; exit 3; }}"
    )
    fault = "command sh failed with exit code 3: no"
    assert await Feed(template, command).fault(state(WEB, "10.0.0.1")) == fault
    feed = Feed(template, command)
    assert await feed.fault(state(WEB, "10.0.0.1")) == fault
    assert feed.file.read_text() == "10.0.0.1\n"
    allowed.touch()
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(1)
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(0)
    assert template.with_name("runs").read_text() == "run\n" * 3


async def test_a_template_is_read_when_it_is_told_to_be(template: Path) -> None:
    feed = Feed(template, interval_s=10)
    await feed.apply(state(WEB, "10.0.0.1"))
    edited(template, "new")
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(0)
    feed.output.reread()
    assert await feed.apply(state(WEB, "10.0.0.1")) == Applied(1)
    assert feed.file.read_text() == "new"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "there is no template", id="missing"),
        pytest.param(b"\xff", "is not UTF-8", id="other bytes"),
        pytest.param(b"x" * (TEMPLATE_BYTES_MAX + 1), "has more than 1048576 bytes", id="large"),
    ],
)
async def test_a_template_that_cannot_be_read_leaves_the_one_of_before(
    template: Path, content: bytes | None, why: str
) -> None:
    feed = Feed(template)
    edited(template, content)
    with pytest.raises(OutputError, match=why):
        feed.output.reread()
    with pytest.raises(OutputError, match=why):
        Feed(template)
    await feed.apply(state(WEB, "10.0.0.1"))
    assert feed.file.read_text() == "10.0.0.1\n"
