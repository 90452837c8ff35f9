"""We read files as kubectl does: its own reader and ours are given the same bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.kube.apiserver import Cluster
from tests.kube.kubectl_reader import KubectlReader, Reading
from vmsvc_grpc.model.events import Apply, Malformed
from vmsvc_grpc.model.kinds import kind_of
from vmsvc_grpc.model.objects import Kind, VirtualMachineService
from vmsvc_grpc.source.contents import Contents, ObjectId
from vmsvc_grpc.source.definitions import Looked
from vmsvc_grpc.source.documents import ManifestError
from vmsvc_grpc.source.manifests import read_objects

KINDS = frozenset(Kind)
VERSION = "vmoperator.vmware.com/v1alpha6"

ITEM = b"{kind: Endpoints, apiVersion: v1}"
SAMPLES = {
    "nulls": b"labels: {a: null}\nfinalizers: [null]\n",
    "whole numbers": b"port: 80.0\nother: 8e1\n",
    "tags": b"a: !vault x\nb: !!binary aGk=\nc: !!str 5\nd: ! 5\ne: !mine [1]\nf: !!float 5\n",
    "merges": b"a: &a {x: 1, z: 1}\nb: {x: 0, <<: *a, <<: {z: 2}}\nc: {<<: [{x: 3}, *a], z: 4}\n",
    "a merge of items": b"items: [%s]\n<<: {items: [null]}\nkind: EndpointsList\n" % ITEM,
    "equal keys": b"a: 1\na: 2\nb: {c: 1, c: 2}\n",
    "keys": b"1: a\n1.5: b\n1e6: c\n0x10: d\nyes: e\ny: f\n1e-7: g\n2001-01-01: h\n",
    "keys that are no numbers of JSON": b"1e308: a\n-.Inf: b\n.NAN: c\n",
    "a null in a list": b"items: [{apiVersion: v1, kind: Endpoints}, null]\nkind: SecretList\n",
    "numbers": b"a: [1_0, 0o17, 017, 08, 0b11, .5, 1., +1, -0x1F, 1:30, 2001-01-01, 1e400, 1_.5]\n",
    "large numbers": b"a: [18446744073709551615, 9223372036854775808, -9223372036854775809]\n",
    "booleans": b"a: [y, N, yes, Off, on, TRUE, tRUE, ~, Null, '', 'no']\n",
    "a mark": b"\xef\xbb\xbfa: 1\n",
    "a mark later": b"a: 1\n---\n\xef\xbb\xbfkind: Endpoints\napiVersion: v1\n",
    "a mark in a line": b"a: 1\n\xef\xbb\xbfb: 1\nc: |\n  x\n",
    "UTF-16": "\ufeffa: é😀\n".encode("utf-16-le"),
    "UTF-16, the other": "\ufeffa: é😀\n".encode("utf-16-be"),
    "no UTF-8": b"a: \xff\xc3(\xe2\x82\n",
    "separators": b"--- # a\na: |\n  x\n---\t\nkind: Endpoints\napiVersion: v1\n---#c\n",
    "dots": b"a: 1\n...\nb: 2\n---\nkind: Service\napiVersion: v1\n",
    "line ends": b"a: |\r\n  x\r\n  y\r\nb: 1\r\n---\r\nkind: b\r\napiVersion: v1\r\n",
    "no line end": b"a: |\n  x",
    "odd line ends": "a: 'x\u0085y\u2028z'\nb: 1\n".encode(),
    "JSON": b'{"kind": "Service", "apiVersion": "v1", "a": 1, "a": 80.0, "b": "\\ud800\\u0041"}'
    b'{"x": 1}',
    "JSON, then YAML": b'{"kind": "Service", "apiVersion": "v1"}\n---\n'
    b"kind: Endpoints\napiVersion: v1\n",
    "a list": b"items: [{kind: Endpoints, apiVersion: v1}, {x: 1}]\nkind: ServiceList\n",
    "a list in a list": b"items: [{apiVersion: v1, kind: x, items: [%s]}]\nkind: List\n" % ITEM,
    "a list of another kind": b"items: [%s]\nkind: Foo\n" % ITEM,
    "an object with an empty list": b"items: []\n---\nkind: Endpoints\napiVersion: v1\n",
    "an object with items that are null": b"items: null\n---\nkind: Endpoints\napiVersion: v1\n",
    "an item with items that are null": b"items: [{apiVersion: v1, kind: Service, items: null}]\n"
    b"kind: List\n",
    "an item whose kind is null": b"items: [{kind: null, x: 1}]\nkind: ServiceList\n",
    "an object without a kind": b"a: 1\n---\nb: 1\n---\nkind: Service\napiVersion: v1\n",
    "labels that are none": b"metadata: {labels: {a: 1}}\n---\nkind: Service\napiVersion: v1\n",
}


def whole(sample: bytes) -> bytes:
    """A sample as an object, unless it says itself what it is."""
    if sample.lstrip()[:1] in (b"{", b"-") or b"\0" in sample:
        return sample
    mark = b"\xef\xbb\xbf" if sample.startswith(b"\xef\xbb\xbf") else b""
    kind = b"" if sample.startswith(b"items: [{") else b"kind: Service\n"
    return mark + kind + b"apiVersion: v1\n" + sample.removeprefix(mark)


@pytest.fixture(scope="module")
def kubectl(
    find_binary: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KubectlReader]:
    with KubectlReader(find_binary("reader"), tmp_path_factory.mktemp("manifests")) as reader:
        yield reader


# -- What was read. --


def ours(content: bytes) -> tuple[list[Any], Contents]:
    """The objects of our kinds that we read, in their order, and what came of them."""
    looked: Looked = {}
    contents = read_objects(content, KINDS, looked)
    return [value for _, value in looked.values()], contents


def is_ours(value: dict[str, Any]) -> bool:
    """Whether an object that kubectl read is of a kind that we ask for."""
    return kind_of(str(value.get("apiVersion", "")), value["kind"]) is not None


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON."""
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = ({marked(k): v for k, v in value.items()} for value in (one, other))
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or math.isclose(one, other, rel_tol=1e-15)
    if isinstance(one, str) and isinstance(other, str):
        return marked(one) == marked(other)
    return one is other


def marked(text: str) -> str:
    """The text as we read it where that is not quite as kubectl does, and nobody's meaning.

    A byte order mark that begins a line is another character; and of bytes that are no
    text, not as many marks may be left.
    """
    return re.sub("\ufffd+", "\ufffd", text.replace("\ufeff", "\u2060"))


def contains(found: list[Any], objects: list[dict[str, Any]]) -> bool:
    """Whether the objects are among what was found, in that order."""
    remaining = iter(found)
    return all(any(same(one, other) for other in remaining) for one in objects)


# What go-yaml takes and libyaml does not: `!a[b`, `{a:, b}` and "\\'"; and libyaml looks further
# ahead for what is no text.
LIBYAML_STRICTER = (
    "did not find expected whitespace or line break",
    "found unexpected ':'",
    "found unknown escape character",
    "control characters are not allowed",
)


# What go-yaml refuses and libyaml takes; a list of one kind within a list; and what comes after
# JSON on its line.
WE_READ = (
    "found unknown escape character",
    "is not a list: no Items field",
    "json: offset",
)


def reported(contents: Contents) -> bool:
    """Whether anything in the file is refused."""
    malformed = any(isinstance(entry.event, Malformed) for entry in contents.entries.values())
    return malformed or bool(contents.flaws)


MISSPELT = "there is no kind "


def check(content: bytes, said: Reading) -> None:
    """What kubectl reads we read; where it refuses something, so do we, or we report something."""
    if not said.parsed:
        with suppress(ManifestError):
            _, contents = ours(content)
            assert reported(contents) or any(text in str(said.errors) for text in WE_READ), said
        return
    try:
        found, contents = ours(content)
    except ManifestError as error:
        if error.message not in LIBYAML_STRICTER:
            raise
        return
    expected = [value for value in said.objects if is_ours(value)]
    assert contains(found, expected), (found, said)
    if not said.errors:
        assert len(found) == len(expected), (found, said)
        others = (value for value in said.objects if value.get("apiVersion"))
        # A kind that seems to be one of ours, misspelt, is told instead.
        misspelt = sum(flaw.message.startswith(MISSPELT) for flaw in contents.flaws)
        assert contents.ignored + misspelt == sum(not is_ours(value) for value in others), said
        mean_the_same(contents, said.objects)


def mean_the_same(contents: Contents, objects: list[dict[str, Any]]) -> None:
    written = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    expected = read_objects(written.encode(), KINDS)
    assert events(contents) == events(expected)


def events(contents: Contents) -> dict[ObjectId, object]:
    """The model of each object, or which of its fields are wrong.

    kubectl writes keys in their order, and 80.0 as 80; so of several problems the first is
    another, and the texts differ.
    """
    return {id_: _model(entry.event) for id_, entry in contents.entries.items()}


def _model(event: Apply | Malformed) -> object:
    match event:
        case Malformed():
            return event.problem.field.partition("[")[0]
        case Apply(object=VirtualMachineService(problems=(_, *_)) as service):
            fields = {problem.field.partition("[")[0] for problem in service.problems}
            return replace(service, problems=()), fields
    return event.object


# -- The table, which kubectl itself is asked about, too. --


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples(kubectl: KubectlReader, sample: str) -> None:
    content = whole(SAMPLES[sample])
    said = kubectl.read(content)
    assert said.parsed
    check(content, said)


def printed(text: str) -> Iterator[Any]:
    """The values of JSON that kubectl prints one after another."""
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


def test_the_reader_is_kubectls(kube: Cluster, kubectl: KubectlReader, tmp_path: Path) -> None:
    """`kubectl create --dry-run=client` asks an API server for the kinds, and no more."""
    for name, sample in SAMPLES.items():
        content = whole(sample).replace(b"kind: Service\n", b"kind: ConfigMap\n")
        content = content.replace(b'"kind": "Service"', b'"kind": "ConfigMap"')
        content = content.replace(b"kind: Endpoints\n", b"kind: Secret\n")
        file = tmp_path / "sample.yaml"
        file.write_bytes(content)
        said = kubectl.read(content)
        # kubectl reads no YAML after JSON before its version 1.33, and PATH may have such a one.
        if name == "JSON, then YAML":
            continue
        if said.errors or not all(one["kind"] in ("ConfigMap", "Secret") for one in said.objects):
            continue
        arguments = ["--dry-run=client", "--validate=false", "-o", "json", "-f", str(file)]
        objects = list(printed(kube.kubectl("create", *arguments)))
        for one in objects:
            one.get("metadata", {}).pop("namespace", None)
            if not one.get("metadata"):
                one.pop("metadata", None)
        assert same(objects, said.objects), name


# -- Whatever is written, and whatever becomes of it. --

ODDITIES = [
    *("null", "~", "yes", "n", "80.0", "8e1", "0x1F", "017", "1_000", "1:30", ".5", "2001-01-01"),
    *("!vault x", "!!str 5", "!!binary aGk=", "! 5", "!mine {a: b}", "!!int '5'", "!!float 5"),
    *("&a {app: web}", "*a", "&b x", "*b", "{<<: *a, app: db}", "{app: x, <<: [*a, {b: c}]}"),
    *("'it''s'", '"\\u00e9\\x41"', "|\n      text\n", ">-\n      text\n", "[null, 1]", "{a: null}"),
    *(".inf", "-.Inf", ".NAN", "1e308", "1e309", "-1e39", "0b11", "0o17", "+1", "0x_1F", "1__0"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616"),
    *("!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!timestamp 2001-01-01", "!!null ''"),
    *("!!bool yes", "!!str {a: 1}", "!!seq [1]", "!!int 0b11", "!!float .5", "!<x> y", "!!value ="),
    *(
        "|2-\n       text\n",
        ">+\n      a\n\n      b\n\n",
        "|\n      ---\n",
        '"a\\\n      b"',
        "a\n      b",
    ),
    *(
        "[a: 1, b: 2]",
        "[? a]",
        "{? a : b}",
        "{a:1}",
        '{"a":1}',
        "[1,2,]",
        "{a, b: }",
        "'a\n\n      b'",
    ),
    *(f"{{apiVersion: v1, kind: List, items: [{{apiVersion: {VERSION}, kind: VirtualMachine}}]}}",),
    *("{apiVersion: v1, kind: ServiceList, items: null}", "{kind: Service, items: {}}"),
    *("'null'", "web", "é😀", "", "'10.0.0.1'", "10.0.0.1", "{}", "[]"),
]
values = st.sampled_from(ODDITIES) | st.text(max_size=5).map(
    lambda text: json.dumps(text, ensure_ascii=True)
)
keys = st.sampled_from(
    [
        *("app", "tier", "1", "1.5", "yes", "0x10", "'q'", '"d"', "y", "<<", "2001-01-01"),
        *(
            ".inf",
            "-.INF",
            ".nan",
            "1e308",
            "1e-46",
            "-0",
            "1_0",
            "017",
            '"\\x41"',
            "? app",
            "&k k",
        ),
        *("!!str 1", "!!binary aGk=", "!x y", "!!float 1", "=", "1:30", "é", "a b"),
    ]
)


@st.composite
def manifests(draw: st.DrawFn) -> str:
    """A VM or VMService with odd values in the fields that are read, and in others."""
    kind = draw(st.sampled_from(["VirtualMachine", "VirtualMachineService", "ConfigMap", "List"]))
    lines = [f"apiVersion: {VERSION}", f"kind: {kind}", "metadata:", "  name: web"]
    for field in draw(st.lists(st.sampled_from(["labels", "annotations"]), unique=True)):
        lines.append(f"  {field}:")
        lines += (f"    {draw(keys)}: {draw(values)}" for _ in range(draw(st.integers(1, 3))))
    lines += (f"  finalizers: [{draw(values)}]" for _ in range(draw(st.integers(0, 1))))
    if kind == "VirtualMachineService":
        lines += ["spec:", "  ports:", f"  - port: {draw(values)}", "    name: http"]
        lines += ["  selector:", f"    {draw(keys)}: {draw(values)}"]
    lines += (f"items: {draw(values)}" for _ in range(draw(st.integers(0, 4)) == 4))
    if kind == "List":
        lines += ["items:", *(f"- {draw(values)}" for _ in range(draw(st.integers(0, 2))))]
    lines += (f"{draw(keys)}: {draw(values)}" for _ in range(draw(st.integers(0, 2))))
    return "\n".join(lines) + "\n"


_ITEMS = [
    f"{{apiVersion: {VERSION}, kind: VirtualMachine, metadata: {{name: a}}}}",
    f"{{apiVersion: {VERSION}, kind: VirtualMachineService, metadata: {{name: b}}}}",
    "{metadata: {name: c}}",
    "{kind: Endpoints, metadata: {name: d}}",
    "*object",
    "{<<: *object, metadata: {name: e}}",
    "null",
    "5",
]
lists = st.lists(st.sampled_from(_ITEMS), max_size=2).map(lambda items: f"[{', '.join(items)}]")
fields_of_lists = st.one_of(
    st.builds("items: {}".format, lists),
    st.builds("items: &own {}".format, lists),
    st.sampled_from(["items: *list", "items: null", "items: {}", "x: 1"]),
    st.sampled_from(["kind: List", "kind: ServiceList", "kind: null", "kind: VirtualMachineList"]),
    st.sampled_from(["apiVersion: v1", f"apiVersion: {VERSION}"]),
    st.sampled_from(["metadata: {name: z}", "metadata: {name: y, labels: {<<: *labels, a: b}}"]),
)
mappings = st.lists(fields_of_lists, min_size=1, max_size=3).map(
    lambda fields: f"{{{', '.join(fields)}}}"
)
merged = st.sampled_from(["*one", "*other"]) | mappings
merges = st.one_of(
    merged,
    st.lists(merged, max_size=2).map(lambda sources: f"[{', '.join(sources)}]"),
    st.sampled_from(["*list", "5"]),
)


@st.composite
def lists_with_merges(draw: st.DrawFn) -> str:
    """A list whose fields come in any order, several times, and by merges and aliases."""
    head = [
        f"o: &object {draw(st.sampled_from(_ITEMS[:2]))}",
        f"l: &list {draw(lists)}",
        "b: &labels {q: w}",
        f"m: &one {draw(mappings)}",
        f"n: &other {draw(mappings)}",
    ]
    fields = st.builds("<<: {}".format, merges) | fields_of_lists
    body = draw(st.lists(fields, min_size=1, max_size=5))
    usual = [f"kind: {draw(st.sampled_from(['VirtualMachineList', 'List']))}", "apiVersion: v1"]
    return "\n".join([*head, *draw(st.permutations([*body, *usual]))]) + "\n"


separators = st.sampled_from(
    ["---\n", "--- # c\n", "---\t\n", "...\n---\n", "---\n---\n", "---\n\ufeff", "---\r\n", "...\n"]
)
heads = st.sampled_from(
    [
        *(
            "",
            "",
            "",
            "---\n",
            "# text\n",
            "\n \n",
            "...\n",
            "--- # text\n",
            "\ufeff",
            "\t\n",
            "null\n---\n",
        ),
        *(
            "%YAML 1.1\n---\n",
            "%TAG ! tag:x,2000:\n---\n",
            "%X\n",
            "--- !!map\n",
            "--- &x\n",
            "- 1\n---\n",
        ),
    ]
)
line_ends = st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\u0085", "\u2028"])
codecs_used = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
DAMAGE = [
    *(
        b"\n",
        b"\r\n",
        b"\t",
        b" ",
        b"---",
        b"...",
        b"- ",
        b": ",
        b"#",
        b"'",
        b'"',
        b"[",
        b"}",
        b",",
    ),
    *(b"&a ", b"*a", b"!x ", b"<<: ", b"|", b"\xef\xbb\xbf", b"\xff", b"\x00", b"\xc2\x85", b"%"),
    *(b"{", b",", b"\\", b"null", b"\x7f", b"? ", b"\r", b"\xe2\x80\xa8", b"%YAML 1.1\n", b"--- "),
    *(b"~: ", b".inf", b"!!int ", b"!!set ", b"? [a]\n: ", b"1e308", b"items: ", b"kind: List\n"),
]


@st.composite
def damaged(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """A file in which somebody has cut, put in or doubled a few bytes."""
    content = draw(contents)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.integers(0, 4)))
        content = content[:at] + draw(st.sampled_from(DAMAGE)) + content[end:]
    return content


@st.composite
def files(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(manifests(), min_size=1, max_size=3))
    text = "".join(part + draw(separators) for part in parts[:-1]) + parts[-1]
    text = draw(heads) + text
    return text.replace("\n", draw(line_ends)).encode(draw(codecs_used))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.just("items"), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def json_files(draw: st.DrawFn) -> bytes:
    head = {
        "apiVersion": VERSION,
        "kind": draw(st.sampled_from(["List", "VirtualMachine", "VirtualMachineService", "X"])),
    }
    bodies = draw(
        st.lists(st.dictionaries(st.text(max_size=3), json_values), min_size=1, max_size=3)
    )
    ascii_only = draw(st.booleans())
    form = draw(st.sampled_from([None, 2, "\t"]))
    gap = draw(st.sampled_from(["", "\n", " ", "\n---\n"]))
    tail = draw(
        st.sampled_from(
            ["", "", "", "\n", "x", "}", ",", "\0", "\n---\n", "[1]", "null", "\nkind: x"]
        )
    )
    texts = (json.dumps(head | one, ensure_ascii=ascii_only, indent=form) for one in bodies)
    return (gap.join(texts) + tail).encode(draw(codecs_used))


def several(documents: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Files of some documents."""
    return st.lists(documents, min_size=1, max_size=2).map(lambda some: "---\n".join(some).encode())


relaxed = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=300,
)


@relaxed
@given(content=files())
def test_manifests(kubectl: KubectlReader, content: bytes) -> None:
    check(content, kubectl.read(content))


@relaxed
@given(content=several(lists_with_merges()))
@example(content=b"apiVersion: v1\nkind: List\nitems: [%s]\n<<: {items: []}\n" % ITEM)
@example(
    content=b"apiVersion: v1\nkind: ServiceList\nitems: [{metadata: {name: a}}]\n"
    b"<<: {kind: EndpointsList}\n",
)
def test_lists_with_merges(kubectl: KubectlReader, content: bytes) -> None:
    check(content, kubectl.read(content))


@relaxed
@given(content=damaged(files()))
def test_damaged_manifests(kubectl: KubectlReader, content: bytes) -> None:
    check(content, kubectl.read(content))


@relaxed
@given(content=json_files() | damaged(json_files()))
@example(content=b'{"a": "\x7f"}')
@example(
    content=b'{"apiVersion": "vmoperator.vmware.com/v1alpha6", "kind":\nVirtualMachine"}',
)
def test_json(kubectl: KubectlReader, content: bytes) -> None:
    check(content, kubectl.read(content))


@relaxed
@given(content=damaged(st.sampled_from([whole(sample) for sample in SAMPLES.values()])))
def test_damaged_samples(kubectl: KubectlReader, content: bytes) -> None:
    check(content, kubectl.read(content))


@relaxed
@given(st.lists(json_values, min_size=1, max_size=2))
def test_what_others_write(kubectl: KubectlReader, read: list[Any]) -> None:
    objects = [{"apiVersion": "v1", "kind": "Service", "value": value} for value in read]
    content = yaml.safe_dump_all(objects, allow_unicode=True).encode()
    check(content, kubectl.read(content))
