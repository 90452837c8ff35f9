"""Text from outside, as a problem shows it: on one line, printable, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmsvc_grpc.model.objects import Kind, VirtualMachineService
from vmsvc_grpc.model.parse import parse
from vmsvc_grpc.model.problem import (
    MESSAGE_CHARACTERS_MAX,
    PROBLEMS_MAX,
    VALUE_CHARACTERS_MAX,
    Problem,
    bounded,
    escaped,
    quoted,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("spec.type: use ClusterIP", "spec.type: use ClusterIP", id="ours stays"),
        pytest.param("Zürich, 東京", "Zürich, 東京", id="other scripts stay"),
        pytest.param("a\nb\r\n", r"a\nb\r\n", id="line ends"),
        pytest.param("\x1b[31mred\x7f\x9b", r"\x1b[31mred\x7f\x9b", id="what a terminal obeys"),
        pytest.param("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066", id="marks of direction"),
        pytest.param("a\u2028b\u2029", r"a\u2028b\u2029", id="separators of lines"),
        pytest.param("x\u200b\ufeff\U000e0041", r"x\u200b\ufeff\U000e0041", id="nothing to see"),
        pytest.param("\ud800", r"\ud800", id="half a surrogate pair"),
        pytest.param(r"a\nb", r"a\nb", id="a backslash stays one"),
    ],
)
def test_text_is_made_safe_to_print(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert escaped(shown) == shown


@given(st.text(st.characters(), max_size=400), st.integers(10, 300))
@example("\n" * 400, 200)
def test_escaped_text_is_printable_bounded_and_stays_as_it_is(text: str, most: int) -> None:
    shown = escaped(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    assert escaped(shown, most) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("web", "'web'", id="short"),
        pytest.param("it's", '"it\'s"', id="with a quote"),
        pytest.param("x" * VALUE_CHARACTERS_MAX, "'" + "x" * 200 + "'", id="as long as may be"),
        pytest.param("x" * 5_000_000, "'" + "x" * 200 + "...'", id="cut"),
        pytest.param("\n" * 300, "'" + r"\n" * 100 + "...'", id="cut by what it is shown as"),
        pytest.param(80, "80", id="a number"),
        pytest.param(-(10**150), "-1" + "0" * 150, id="a large number"),
        pytest.param(10**5000, "a number of 16610 bits", id="one that Python does not write"),
    ],
)
def test_a_value_is_quoted(value: str | int, shown: str) -> None:
    assert quoted(value) == shown


def test_a_problem_is_safe_however_it_was_made() -> None:
    problem = Problem("spec.x\n" + "y" * 10_000, "\x1b]0;owned\x07" + "z" * 10_000)
    assert str(problem).isprintable()
    assert len(problem.field) <= VALUE_CHARACTERS_MAX
    assert len(problem.message) <= MESSAGE_CHARACTERS_MAX
    assert Problem("a", "b") == Problem("a", "b")
    assert hash(Problem("a", "b")) == hash(Problem("a", "b"))


def test_the_problems_of_an_object_are_counted_beyond_the_first() -> None:
    few = [Problem("spec", str(n)) for n in range(PROBLEMS_MAX)]
    assert bounded(few) == tuple(few)
    more = bounded([*few, *few, *few])
    assert more[:PROBLEMS_MAX] == tuple(few)
    assert [str(problem) for problem in more[PROBLEMS_MAX:]] == [
        "(object): 20 more problems; mend these first"
    ]


HOSTILE = "\x1b[2J\u202e" + "\n2026-01-01 INFO forged" * 100_000


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"type": HOSTILE}, id="type"),
        pytest.param({"ports": [{"port": 80, "protocol": HOSTILE}]}, id="protocol"),
        pytest.param({"ports": [{"port": 80, "protocol": HOSTILE}] * 2}, id="doubled protocol"),
        pytest.param({"ports": [{"port": 80, "name": HOSTILE}]}, id="port name"),
        pytest.param({"ports": [{"port": 1, "name": HOSTILE}] * 400}, id="many port names"),
        pytest.param({"ports": [{"port": 10**5000}]}, id="port number"),
        pytest.param({"ports": [{"port": 80}], "clusterIp": HOSTILE}, id="cluster IP"),
        pytest.param({"ports": [{"port": 80}], "selector": {HOSTILE: "x"}}, id="selector's key"),
        pytest.param({"ports": [{"port": 80}], "selector": {"a": HOSTILE}}, id="selector's value"),
        pytest.param({"ports": [{"port": 80}], "ipFamilies": [HOSTILE] * 50}, id="families"),
        pytest.param({"ports": [{"port": 80}], "ipFamilyPolicy": HOSTILE}, id="family policy"),
        pytest.param(
            {
                "ports": [{"port": 80}],
                "type": "LoadBalancer",
                "loadBalancerSourceRanges": [HOSTILE] * 50,
            },
            id="source ranges",
        ),
    ],
)
def test_no_field_of_a_service_reaches_a_person_raw(spec: dict[str, object]) -> None:
    untyped = {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": "VirtualMachineService",
        "metadata": {"name": "web"},
        "spec": spec,
    }
    service = parse(Kind.VIRTUAL_MACHINE_SERVICE, untyped)
    assert isinstance(service, VirtualMachineService)
    assert service.problems
    assert len(service.problems) <= PROBLEMS_MAX + 1
    for problem in service.problems:
        assert str(problem).isprintable()
        # What to do is seen behind a value that was cut.
        assert not problem.message.endswith("...")
    assert service.declared_type.isprintable()
    assert len(service.declared_type) <= MESSAGE_CHARACTERS_MAX
