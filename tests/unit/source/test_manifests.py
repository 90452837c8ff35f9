"""Text to objects: which count, which are ignored, and what is said of the rest."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from typing import Any

import pytest

from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.objects import Key, Kind, VirtualMachine, VirtualMachineService
from vmsvc_grpc.model.problem import PROBLEMS_MAX, Problem
from vmsvc_grpc.source import manifest_size
from vmsvc_grpc.source.contents import Contents, Entry
from vmsvc_grpc.source.definitions import Looked
from vmsvc_grpc.source.documents import OBJECT_SIZE_MAX, ManifestError
from vmsvc_grpc.source.manifests import AbandonedError, read_objects, reading

KINDS = frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})
VM = "apiVersion: vmoperator.vmware.com/v1alpha6\nkind: VirtualMachine\nmetadata: {name: %s}\n"


def names(contents: Contents) -> list[str]:
    return [f"{kind.value} {key}" for kind, key in contents.entries]


@pytest.mark.parametrize(
    ("text", "read", "ignored"),
    [
        pytest.param("", [], 0, id="nothing"),
        pytest.param("---\n---\n", [], 0, id="empty documents"),
        pytest.param(
            VM % "a" + "---\n" + VM % "b",
            ["VirtualMachine default/a", "VirtualMachine default/b"],
            0,
            id="documents in their order",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n",
            [],
            1,
            id="a kind of ours that was not asked for",
        ),
        pytest.param(
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: a}\n",
            [],
            1,
            id="somebody else's kind of that name",
        ),
        pytest.param(
            "apiVersion: v1\nkind: List\nitems:\n"
            "- {apiVersion: vmoperator.vmware.com/v1alpha1, kind: VirtualMachine, "
            "metadata: {name: a}}\n"
            "- {apiVersion: v1, kind: Pod}\n"
            "- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node}]}\n",
            ["VirtualMachine default/a"],
            2,
            id="a list, and one in it",
        ),
        pytest.param(
            "apiVersion: vmoperator.vmware.com/v1alpha3\nkind: VirtualMachineServiceList\nitems:\n"
            "- metadata: {name: a}\n  spec: {clusterIp: None}\n",
            ["VirtualMachineService default/a"],
            0,
            id="a list of one kind, whose items do not repeat it",
        ),
        pytest.param(
            "apiVersion: v1\nkind: PodList\nitems: [{}, {}]\n", [], 2, id="a list of another kind"
        ),
        pytest.param(
            "apiVersion: example.com/v1\nkind: AllowList\nspec: {}\n",
            [],
            1,
            id="a kind that only sounds like a list",
        ),
    ],
)
def test_objects(text: str, read: list[str], ignored: int) -> None:
    contents = read_objects(text.encode(), KINDS)
    assert names(contents) == read
    assert contents.ignored == ignored
    assert contents.flaws == ()


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        pytest.param(
            "- a\n",
            "document 1 (line 1): is not an object; it must be a mapping with apiVersion and kind",
            id="a document that is a list",
        ),
        pytest.param(
            "a: 1\n",
            "document 1 (line 1): is not an object; it needs apiVersion and kind, both text",
            id="a mapping without a kind",
        ),
        pytest.param(
            "---\napiVersion: v1\nkind: List\nitems: [1]\n",
            "document 1 (line 1) items[0]: is not an object; "
            "it must be a mapping with apiVersion and kind",
            id="an item that is a number",
        ),
        pytest.param(
            "apiVersion: v1\nkind: List\nitems: [null]\n",
            "document 1 (line 1) items[0]: is not an object; "
            "it needs apiVersion and kind, both text",
            id="an item that is null",
        ),
        pytest.param(
            "apiVersion: v1\nkind: ServiceList\nitems: x\n",
            "document 1 (line 1): ServiceList: items: must be a list; only lists have such a field",
            id="items that are none",
        ),
        pytest.param(
            VM % "_",
            "document 1 (line 1): VirtualMachine (unnamed): metadata.name: "
            "'_' is not a name that Kubernetes takes",
            id="an object whose name cannot be one",
        ),
    ],
)
def test_one_flaw_does_not_affect_the_others(text: str, flaw: str) -> None:
    contents = read_objects(f"{text}---\n{VM % 'good'}".encode(), KINDS)
    assert [f"{found.place}: {found.message}" for found in contents.flaws] == [flaw]
    assert names(contents) == ["VirtualMachine default/good"]


def test_an_object_that_cannot_be_read_is_malformed() -> None:
    contents = read_objects((VM % "a" + "status: 1\n").encode(), KINDS)
    id_ = (Kind.VIRTUAL_MACHINE, Key("default", "a"))
    assert list(contents.entries) == [id_]
    event = contents.entries[id_].event
    assert isinstance(event, Malformed)
    assert (event.kind, event.key, event.problem.field) == (*id_, "status")


def test_an_object_with_items_that_are_none_is_malformed() -> None:
    (entry,) = read_objects((VM % "a" + "items: {}\n").encode(), KINDS).entries.values()
    assert isinstance(entry.event, Malformed)
    assert entry.event.problem.field == "items"


@pytest.mark.parametrize("head", ["", "kind: List\nitems:\n- "], ids=["a document", "an item"])
def test_an_object_that_is_yaml_and_no_json_is_malformed(head: str) -> None:
    bad = (VM % "bad" + "spec: {a: !!int x}\n").replace("\n", "\n  " if head else "\n")
    text = f"{VM % 'a'}---\n{head}{bad}\n---\n{VM % 'b'}"
    contents = read_objects(text.encode(), KINDS)
    assert names(contents) == [f"VirtualMachine default/{name}" for name in ("a", "bad", "b")]
    (event,) = (one.event for one in contents.entries.values() if isinstance(one.event, Malformed))
    assert event.problem.field == "spec.a"
    assert contents.flaws == ()


def test_an_object_of_another_kind_that_is_no_json_is_a_flaw() -> None:
    text = f"apiVersion: v1\nkind: ConfigMap\ndata: {{~: x}}\n---\n{VM % 'a'}"
    contents = read_objects(text.encode(), KINDS)
    assert names(contents) == ["VirtualMachine default/a"]
    (flaw,) = contents.flaws
    assert flaw.message.startswith("ConfigMap: data: has the key '~'")


def test_a_service_of_the_wrong_shape_is_an_object_with_problems() -> None:
    text = (
        "apiVersion: vmoperator.vmware.com/v1alpha6\nkind: VirtualMachineService\n"
        "metadata: {name: a}\nspec: {ports: 1}\n"
    )
    (entry,) = read_objects(text.encode(), KINDS).entries.values()
    assert isinstance(entry.event, Apply)
    assert isinstance(entry.event.object, VirtualMachineService)
    assert entry.event.object.problems


def test_of_two_objects_with_one_name_the_first_counts() -> None:
    text = f"{VM % 'a'}---\n{VM % 'a'}status: {{zone: second}}\n"
    contents = read_objects(text.encode(), KINDS)
    (entry,) = contents.entries.values()
    assert isinstance(entry.event, Apply)
    assert isinstance(entry.event.object, VirtualMachine)
    assert entry.event.object.zone == ""
    (flaw,) = contents.flaws
    assert flaw.place == "document 2 (line 4)"
    assert flaw.message == (
        "VirtualMachine default/a is defined in document 1 (line 1) already, which counts; "
        "remove one of them"
    )


def test_timestamps_need_no_quotes() -> None:
    text = VM.replace("}", ", deletionTimestamp: 2026-01-01T00:00:00Z}") % "a"
    (entry,) = read_objects(text.encode(), KINDS).entries.values()
    assert isinstance(entry.event, Apply)
    assert isinstance(entry.event.object, VirtualMachine)
    assert entry.event.object.deleting


def test_nothing_counts_of_a_text_that_does_not_parse() -> None:
    with pytest.raises(ManifestError):
        read_objects(f"{VM % 'a'}---\n[".encode(), KINDS)


def finished(steps: Generator[None, None, Contents]) -> Contents:
    """What comes of steps, all of them taken."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            contents: Contents = end.value
            return contents


def test_malformed_contents_are_the_same_objects() -> None:
    text = f"{VM % 'a'}---\n{VM % 'b'}"
    steps = read_objects(text.encode(), KINDS).malformed("line 1: no YAML")
    contents = finished(steps)
    assert names(contents) == ["VirtualMachine default/a", "VirtualMachine default/b"]
    assert [entry.event for entry in contents.entries.values()] == [
        Malformed(Kind.VIRTUAL_MACHINE, Key("default", name), Problem("(file)", "line 1: no YAML"))
        for name in ("a", "b")
    ]


def test_reading_takes_a_break_at_each_object() -> None:
    text = "".join(f"---\n{VM % f'vm-{index}'}" for index in range(100))
    assert sum(1 for _ in reading(text.encode(), KINDS)) >= 100


def test_reading_takes_a_break_at_each_large_merge() -> None:
    """Each merge copies all keys, in some milliseconds, for two events of libyaml."""
    keys = ", ".join(f"k{index}: 1" for index in range(20_000))
    text = f"kind: List\na: &a {{{keys}}}\nb:\n"
    without, ten = (
        sum(1 for _ in reading((text + "  <<: *a\n" * merges).encode(), KINDS))
        for merges in (0, 10)
    )
    assert ten >= without + 9


@pytest.fixture
def entries_alive() -> Iterator[Callable[[], int]]:
    """How many entries there are of the test's own.

    It looks at nothing that was there before: what all tests have left are millions of objects.
    """
    gc.freeze()
    yield lambda: sum(type(known) is Entry for known in gc.get_objects())
    gc.unfreeze()


@pytest.mark.parametrize("abandoned", [True, False], ids=["abandoned", "broken at its end"])
def test_what_was_read_of_a_text_in_vain_is_freed_in_steps(
    abandoned: bool, entries_alive: Callable[[], int]
) -> None:
    """Python freed 90,000 objects at once, in 50 ms, in which nobody was served."""
    many = 600
    text = "".join(f"---\n{VM % f'vm-{index}'}" for index in range(many)) + "---\n["
    seen: Looked = {}
    steps = reading(text.encode(), KINDS, seen)
    while len(seen) < many:
        next(steps)
    alive = [entries_alive()]
    assert alive == [many]
    if abandoned:
        steps.throw(AbandonedError)
    with pytest.raises(AbandonedError if abandoned else ManifestError):
        alive.extend(entries_alive() for _ in steps)
    assert alive[-1] <= 1, "the error may have come of the last one"
    assert max(then - now for then, now in pairwise(alive)) <= 100


VMS = "vmoperator.vmware.com/v1alpha6"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            '{"items": [%s], "apiVersion": "%s", "kind": "VirtualMachineList"}', id="JSON"
        ),
        pytest.param("items: [%s]\napiVersion: %s\nkind: VirtualMachineList\n", id="YAML"),
    ],
)
@pytest.mark.parametrize("large", [0, 10])
def test_the_kind_of_a_list_may_come_after_its_items(text: str, large: int) -> None:
    annotation = "x" * (OBJECT_SIZE_MAX // 8)
    items = '{"metadata": {"name": "a"}}, {"kind": "Pod", "apiVersion": "v1"}'
    for index in range(large):  # More than one object may hold.
        items += f', {{"metadata": {{"annotations": {{"a": "{annotation}"}}, "name": "b{index}"}}}}'
    contents = read_objects((text % (items, VMS)).encode(), KINDS)
    assert names(contents) == [
        "VirtualMachine default/a",
        *(f"VirtualMachine default/b{index}" for index in range(large)),
    ]
    assert contents.ignored == 1
    assert contents.flaws == ()


def test_lists_say_of_their_own_items_what_they_are() -> None:
    text = "---\n".join(
        f"items: [{{metadata: {{name: a}}}}]\nkind: {kind}List\napiVersion: {VMS}\n"
        for kind in ("VirtualMachine", "Menu", "VirtualMachineService")
    )
    contents = read_objects(text.encode(), KINDS)
    assert names(contents) == ["VirtualMachine default/a", "VirtualMachineService default/a"]
    assert contents.ignored == 1


ITEM = f"{{apiVersion: {VMS}, kind: VirtualMachine, metadata: {{name: a}}}}"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param(f"kind: List\nitems: [{ITEM}]\n", ["a"], id="no apiVersion"),
        pytest.param(f"apiVersion: v1\nkind: list\nitems: [{ITEM}]\n", ["a"], id="a small letter"),
        pytest.param(f"items: [{ITEM}]\nkind: ResourceBundle\n", ["a"], id="any kind"),
        pytest.param(VM % "b" + f"items: [{ITEM}]\n", ["a"], id="a VM with items"),
        pytest.param(VM % "b" + "items: []\n", [], id="a VM with an empty list"),
        pytest.param(VM % "b" + "items: null\n", [], id="a VM with items that are null"),
        pytest.param(VM % "b" + "items: {}\n", ["b"], id="items that are no list"),
        pytest.param(
            f"kind: List\nitems: [{{kind: VirtualMachine, apiVersion: {VMS}, "
            "metadata: {name: b}, items: null}]\n",
            ["b"],
            id="an item with items that are null",
        ),
        pytest.param(
            f"kind: VirtualMachineList\napiVersion: {VMS}\nitems: [{{kind: null, "
            "metadata: {name: b}}]\n",
            ["b"],
            id="an item whose kind is null",
        ),
    ],
)
def test_whatever_has_a_kind_and_items_is_a_list(text: str, read: list[str]) -> None:
    contents = read_objects(text.encode(), KINDS)
    assert names(contents) == [f"VirtualMachine default/{name}" for name in read]
    assert (contents.ignored, contents.flaws) == (0, ())


OTHERS = f"{{items: [{{apiVersion: {VMS}, kind: VirtualMachine, metadata: {{name: b}}}}]}}"
UNNAMED = "items: [{metadata: {name: a}}]"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        pytest.param(f"items: [{ITEM}]\n<<: {OTHERS}\n", ["VirtualMachine default/b"], id="YAML"),
        pytest.param(
            f"items: [{ITEM}]\n<<: [{{items: []}}, {OTHERS}]\n", [], id="the first of several"
        ),
        pytest.param(
            f"items: [{ITEM}]\no: &o {OTHERS}\nitems: []\n<<: *o\n",
            ["VirtualMachine default/b"],
            id="an alias",
        ),
        pytest.param(f"<<: {OTHERS}\nitems: []\n", [], id="items after the merge"),
        pytest.param(
            f"{UNNAMED}\n<<: {{kind: VirtualMachineServiceList}}\n",
            ["VirtualMachineService default/a"],
            id="a kind that is merged after the items",
        ),
        pytest.param(
            f"{UNNAMED}\nkind: VirtualMachineServiceList\n<<: {{apiVersion: v1, kind: PodList}}\n",
            [],
            id="a kind, and another one merged",
        ),
        pytest.param(
            f'{{"kind": "VirtualMachineList", "apiVersion": "{VMS}", '
            '"items": [{"metadata": {"name": "a"}}], "kind": "VirtualMachineServiceList"}',
            ["VirtualMachineService default/a"],
            id="JSON",
        ),
    ],
)
def test_of_equal_keys_of_a_list_the_last_counts(text: str, read: list[str]) -> None:
    """A merge of `items` after items were handed out was ignored, and so was a later kind."""
    before = f"{VM % 'x'}---\n"
    if not text.startswith("{"):
        text = f"apiVersion: {VMS}\nkind: VirtualMachineList\n{text}"
    looked: Looked = {}
    contents = read_objects(f"{before}{text}".encode(), KINDS, looked)
    assert names(contents) == ["VirtualMachine default/x", *read]
    assert [str(place) for place in looked] == [one.place for one in contents.entries.values()]
    assert contents.flaws == ()


def test_items_that_do_not_count_are_freed_in_steps(entries_alive: Callable[[], int]) -> None:
    many = 600
    items = ", ".join(ITEM.replace("name: a", f"name: vm-{index}") for index in range(many))
    text = f"kind: List\nitems: [{items}]\n<<: {OTHERS}\n"
    alive = [entries_alive() for _ in reading(text.encode(), KINDS)]
    assert max(alive) >= many - 10
    assert max(then - now for then, now in pairwise(alive)) <= 100
    assert alive[-1] <= 10


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("l: &l [%s, %s]\nkind: List\nitems: *l\n", id="an alias"),
        pytest.param("<<: {items: [%s, %s]}\nkind: List\n", id="a merge"),
    ],
)
def test_items_of_which_only_the_first_are_kept_hide_their_file(rest: str) -> None:
    """An object is kept only so far. These items went without a word."""
    filler = "x" * (OBJECT_SIZE_MAX // 2)
    with pytest.raises(ManifestError, match="an alias or '<<' in an object of more than"):
        read_objects((rest % (filler, filler)).encode(), KINDS)


def test_a_list_without_a_kind_is_nothing() -> None:
    contents = read_objects(f"items: [soup, {ITEM}]\n".encode(), KINDS)
    assert names(contents) == []
    assert len(contents.flaws) == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{}" * 220_000, id="objects without a kind"),
        pytest.param(
            '{"apiVersion": "v1", "kind": "List", "items": [%s 1]}' % ("1," * 219_999), id="a list"
        ),
    ],
)
def test_of_many_flaws_the_first_are_kept(text: str) -> None:
    contents = read_objects(text.encode(), KINDS)
    assert len(contents.flaws) == PROBLEMS_MAX
    assert contents.more_flaws == 220_000 - PROBLEMS_MAX


LIST = '{"apiVersion": "v1", "kind": "List", "items": [%s]}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{}" * 301, id="values of JSON"),
        pytest.param("---\n" * 302, id="empty documents"),
        pytest.param("a\n---\n" * 100 + "{items: [%s]}" % ("1," * 201), id="both, in YAML"),
        pytest.param(LIST % ("1," * 300 + "1"), id="items"),
        pytest.param(
            LIST % ",".join([LIST % ("1," * 99 + "1")] * 4), id="items of lists within a list"
        ),
    ],
)
def test_a_file_of_too_many_parts_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_size, "PARTS_MAX", 300)
    with pytest.raises(ManifestError, match="more than 300 documents and items of lists"):
        read_objects(text.encode(), KINDS)


def test_what_is_read_again_as_yaml_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_size, "PARTS_MAX", 300)
    named = '{"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}},'
    text = LIST % (named * 200)  # JSON has no comma at the end of a list.
    assert read_objects(text.encode(), KINDS).ignored == 200


def test_a_file_defines_so_many_objects_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_size, "OBJECTS_MAX", 2)
    contents = read_objects("---\n".join(VM % name for name in "abab").encode(), KINDS)
    assert [flaw.message for flaw in contents.flaws] == [
        f"VirtualMachine default/{name} is defined in document {number} (line {line}) already, "
        "which counts; remove one of them"
        for name, number, line in (("a", 1, 1), ("b", 2, 4))
    ]
    with pytest.raises(ManifestError, match=r"more than 2 objects \(.*\); split it"):
        read_objects("---\n".join(VM % name for name in "abc").encode(), KINDS)


def test_a_vmservice_counts_as_three_objects_also_where_its_list_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """60,000 of them took 25 times their size in memory (issue 9, point 5)."""
    monkeypatch.setattr(manifest_size, "OBJECTS_MAX", 4)
    group = "vmoperator.vmware.com"
    item = f'{{"apiVersion": "{group}/v1alpha6", "kind": "%s", "metadata": {{"name": "a"}}}},'
    items = [item % kind for kind in ("VirtualMachineService", "VirtualMachine")]
    text = LIST % "".join(items)  # JSON has no comma at the end of a list.
    assert len(read_objects(text.encode(), KINDS).entries) == 2
    monkeypatch.setattr(manifest_size, "OBJECTS_MAX", 3)
    with pytest.raises(ManifestError, match=r"counting a VirtualMachineService as 3, .*; split it"):
        read_objects(text.encode(), KINDS)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param({"metadata": {"ownerReferences": [{}] * 90}}, id="owners"),
        pytest.param({"metadata": {"labels": {f"a{n}": "" for n in range(90)}}}, id="labels"),
        pytest.param({"metadata": {"annotations": {f"a{n}": "" for n in range(90)}}}, id="notes"),
        pytest.param({"metadata": {"finalizers": ["a/b"] * 90}}, id="finalizers"),
        pytest.param({"status": {"conditions": [{}] * 90}}, id="conditions"),
        pytest.param({"status": {"loadBalancer": {"ingress": [{}] * 90}}}, id="ingress"),
        pytest.param(
            {"spec": {"ports": [{"port": n, "name": f"p{n}"} for n in range(1, 91)]}}, id="ports"
        ),
    ],
)
def test_an_object_of_many_parts_counts_as_more(
    rest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners and conditions of three bytes each took 71 times their size in memory."""
    monkeypatch.setattr(manifest_size, "OBJECTS_MAX", 11)
    given = {
        "apiVersion": "vmoperator.vmware.com/v1alpha6",
        "kind": "VirtualMachineService",
        **rest,
        "metadata": {"name": "a", **rest.get("metadata", {})},
    }
    with pytest.raises(ManifestError, match="10 parts as one"):
        read_objects(json.dumps(given).encode(), KINDS)
    monkeypatch.setattr(manifest_size, "OBJECTS_MAX", 12)
    assert len(read_objects(json.dumps(given).encode(), KINDS).entries) == 1


LARGE = "x" * (OBJECT_SIZE_MAX + 1)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            f"apiVersion: {VMS}\nkind: VirtualMachine\nmetadata: {{annotations: {{a: {LARGE}}}, "
            "name: a}\n",
            id="the name",
        ),
        pytest.param(f"data: {LARGE}\n{VM % 'a'}", id="the kind"),
        pytest.param(
            f"metadata: {{a: {LARGE}}}\nitems: [{ITEM}]\nkind: List\n", id="the kind of a list"
        ),
        pytest.param(
            f"kind: List\nitems: [{{kind: List, apiVersion: v1, items: [{{a: {LARGE}}}, {ITEM}]}}]",
            id="items of a list within a list",
        ),
    ],
)
def test_what_is_too_large_for_us_to_know_what_it_is_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match="not all was read"):
        read_objects(text.encode(), KINDS)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        pytest.param(
            f"items: [{'{a: 1},' * 5_000}]\nkind: VirtualMachineList\napiVersion: {VMS}\n",
            2,
            id="items without a name before their kind",
        ),
        pytest.param(
            LIST % LIST % ",".join(['{"a": 1}'] * 5_000), 1, id="a list of them within a list"
        ),
        pytest.param(
            LIST % LIST % ",".join([LIST % ""] * 5_000), 1, id="empty lists in a list within a list"
        ),
    ],
)
def test_reading_takes_a_break_whatever_it_finds(text: str, passes: int) -> None:
    assert sum(1 for _ in reading(text.encode(), KINDS)) >= passes * 5_000 // 50


def test_an_object_that_is_too_large_costs_itself() -> None:
    large = VM % "large" + "spec:\n" + "  a: b\n" * (OBJECT_SIZE_MAX // 5)
    contents = read_objects(f"{large}---\n{VM % 'good'}".encode(), KINDS)
    assert names(contents) == ["VirtualMachine default/large", "VirtualMachine default/good"]
    event = contents.entries[Kind.VIRTUAL_MACHINE, Key("default", "large")].event
    assert isinstance(event, Malformed)
    assert "no API server holds as much" in event.problem.message


def test_what_follows_a_document_is_a_flaw() -> None:
    contents = read_objects(f"{VM % 'a'}...\n{VM % 'b'}".encode(), KINDS)
    assert names(contents) == ["VirtualMachine default/a"]
    assert contents.flaws == (("line 5", "is not read; begin a document with a line '---'"),)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("{name: a}", "lab/a"),
        ("{name: a, namespace: shop}", "shop/a"),
        ("{name: a, namespace: default}", "default/a"),
        ("{name: a, namespace: null}", "lab/a"),
        ('{name: a, namespace: ""}', "lab/a"),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_objects_that_name_no_namespace_are_in_the_one_that_is_given(
    metadata: str, expected: str, listed: bool
) -> None:
    text = (VM % "a").replace("{name: a}", metadata)
    assert metadata in text
    if listed:
        item = text.replace("\n", "\n  ").rstrip()
        text = f"apiVersion: v1\nkind: List\nitems:\n- {item}\n"
    assert names(read_objects(text.encode(), KINDS, namespace="lab")) == [
        f"VirtualMachine {expected}"
    ]
    (entry,) = read_objects(text.encode(), KINDS, namespace="lab").entries.values()
    (default,) = read_objects(text.encode(), KINDS).entries.values()
    assert isinstance(entry.event, Apply)
    assert isinstance(default.event, Apply)
    assert isinstance(entry.event.object, VirtualMachine)
    assert isinstance(default.event.object, VirtualMachine)
    moved = entry.event.object.key != default.event.object.key
    assert (entry.event.object.uid != default.event.object.uid) == moved


@pytest.mark.parametrize(
    ("api_version", "kind", "flaw"),
    [
        ("v1alpha6", "virtualmachineservice", "did you mean VirtualMachineService?"),
        ("v1alpha6", "VirtualMachineSerivce", "did you mean VirtualMachineService?"),
        ("v1alpha6", "VirtualMachines", "did you mean VirtualMachine?"),
        ("v1alpha6", "Virtualmachine", "did you mean VirtualMachine?"),
        ("", "VirtualMachine", "has no version; write vmoperator.vmware.com/v1alpha"),
        ("v1alpha6", "VirtualMachineClass", None),
        ("v1alpha6", "VirtualMachineImage", None),
        ("v1alpha6", "VirtualMachineGroup", None),
        ("v1alpha6", "VirtualMachineSnapshot", None),
        ("v1alpha6", "VirtualMachineSetResourcePolicy", None),
        ("v1alpha6", "VirtualMachineReplicaSet", None),
        ("v1alpha6", "V" * 100_000, None),
    ],
)
def test_a_kind_that_is_misspelt_is_a_flaw_and_another_kind_is_none(
    api_version: str, kind: str, flaw: str | None
) -> None:
    of = f"vmoperator.vmware.com/{api_version}".removesuffix("/")
    text = f"apiVersion: {of}\nkind: {kind}\nmetadata: {{name: a}}\n"
    read = read_objects(
        text.encode(), frozenset({Kind.VIRTUAL_MACHINE, Kind.VIRTUAL_MACHINE_SERVICE})
    )
    assert not read.entries
    assert read.ignored == (flaw is None)
    assert [flaw in found.message for found in read.flaws if flaw] == [True] * bool(flaw)
    others = read_objects(text.encode(), frozenset({Kind.SERVICE}))
    assert (others.flaws, others.ignored) == ((), 1)
