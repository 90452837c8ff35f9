"""Texts of a given size, each of another shape: what a file may hold, meant well or not.

Each is made for a `seed`: with another one, everything that it says is something else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import dataset
from bench.standstills.places import list_of

_API_VERSION = "vmoperator.vmware.com/v1alpha6"
_HEAD = f'"apiVersion":"{_API_VERSION}","kind":"VirtualMachine"'

Make = Callable[[int, int], bytes]
"""The text, of so many bytes or some less, for that seed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file is like; `suffix` is that of its name."""

    key: str
    suffix: str
    make: Make


def _until(size: int, part: Callable[[int], bytes]) -> Iterator[bytes]:
    """Parts, numbered, as many as there is room for."""
    number, left = 0, size
    while len(made := part(number)) <= left:
        left -= len(made)
        number += 1
        yield made


def _repeated(text: str, head: str = "") -> Make:
    """One text, again and again; the seed comes into it as `@`."""

    def make(size: int, seed: int) -> bytes:
        piece = text.replace("@", str(seed)).encode()
        begin = head.replace("@", str(seed)).encode()
        return begin + piece * ((size - len(begin)) // len(piece))

    return make


def _numbered(text: str, head: str = "", between: str = "", end: str = "") -> Make:
    """One text with `#` for its number, after a head, and before an end."""

    def make(size: int, seed: int) -> bytes:
        def part(number: int) -> bytes:
            numbered = text.replace("#", f"{number:06d}").replace("@", str(seed))
            return (between * (number > 0) + numbered).encode()

        begin = head.replace("@", str(seed)).encode()
        return begin + b"".join(_until(size - len(begin) - len(end), part)) + end.encode()

    return make


_LIST, _LIST_END = '{"apiVersion":"v1","kind":"List","items":[', "]}"


def _listed(text: str) -> Make:
    return _numbered(text, _LIST, ",\n", _LIST_END)


def _filled(head: str, piece: str, end: str) -> Make:
    """An object that is as large as the file by one thing in it."""

    def make(size: int, seed: int) -> bytes:
        before, after = head.replace("@", str(seed)).encode(), end.encode()
        count = (size - len(before) - len(after)) // len(piece)
        return before + piece.encode() * count + after

    return make


def _filled_numbered(head: str, piece: str, end: str) -> Make:
    return _numbered(piece, head, ",", end)


def _real_list(size: int, seed: int) -> bytes:
    """VMs as `kubectl get -o json` has them, of 5 KB each."""
    apart = len(list_of([b"", b""])) - len(list_of([b""]))
    parts = _until(
        size - len(list_of([])),
        lambda number: dataset.vm_json(number, 0, seed * 99_991 + number) + b" " * apart,
    )
    return list_of([part[:-apart] for part in parts])


def _nested(begin: str, end: str, depth: int, between: str) -> Make:
    return _repeated(begin * depth + "1" + end * depth + between)


def _random(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - nothing is kept secret by it


def _utf_16(size: int, seed: int) -> bytes:
    return _numbered(_YAML_VM)(size // 2 - 1, seed).decode().encode("utf-16")


def _broken_at_its_end(make: Make) -> Make:
    return lambda size, seed: make(size - 1, seed)[:-1] + b"?]"


def _laughs(size: int, seed: int) -> bytes:
    """Each anchor stands for ten of the one before; a comment fills the rest."""
    lines = [f"a0: &a0 [{seed}]"]
    lines += (f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40))
    text = "\n".join(lines).encode() + b"\n"
    return text + b"# \n" * ((size - len(text)) // 3)


# Long enough for a file of 16 MiB to hold no more objects than it may.
_FILL = "x" * 190
_VM = (
    f'{{{_HEAD},"metadata":{{"name":"vm-#","annotations":{{"a":"{_FILL}"}}}},'
    '"status":{"network":{"primaryIP4":"10.0.@.1"}}}'
)
_YAML_VM = (
    f"---\napiVersion: {_API_VERSION}\nkind: VirtualMachine\nmetadata:\n  name: vm-#\n"
    f"  annotations: {{a: {_FILL}}}\nstatus:\n"
    "  network: {primaryIP4: 10.0.@.1}\n"
)
_USUAL_VM = (
    f"{{{_HEAD},"
    '"metadata":{"name":"vm-#","namespace":"shop","labels":{"app":"app-#","tier":"web",'
    '"topology.kubernetes.io/zone":"zone-a"},"annotations":{"example.com/owner":"team-@",'
    f'"example.com/text":"{_FILL * 2}"}}}},'
    '"spec":{"className":"best-effort-small","imageName":"vmi-0a0044d7c690bcbea","storageClass":'
    '"wcplocal-storage-profile","powerState":"PoweredOn","network":{"interfaces":[{"name":"eth0",'
    '"network":{"name":"primary"}}]},"readinessProbe":{"tcpSocket":{"port":8080},"periodSeconds":'
    '10}},"status":{"powerState":"PoweredOn","network":{"primaryIP4":"10.@.1.1"},"conditions":'
    '[{"type":"Ready","status":"True","lastTransitionTime":"2026-11-01T08:00:00Z","reason":"",'
    '"message":""}]}}'
)
_USUAL_YAML_VM = f"""- apiVersion: {_API_VERSION}
  kind: VirtualMachine
  metadata:
    name: vm-#
    namespace: shop
    labels:
      app: app-#
      tier: web
      topology.kubernetes.io/zone: zone-a
    annotations:
      example.com/owner: team-@
      example.com/text: {_FILL * 2}
  spec:
    className: best-effort-small
    imageName: vmi-0a0044d7c690bcbea
    storageClass: wcplocal-storage-profile
    powerState: PoweredOn
    network:
      interfaces:
      - name: eth0
        network: {{name: primary}}
    readinessProbe:
      tcpSocket: {{port: 8080}}
      periodSeconds: 10
  status:
    powerState: PoweredOn
    network:
      primaryIP4: 10.@.1.1
    conditions:
    - type: Ready
      status: "True"
      lastTransitionTime: "2026-11-01T08:00:00Z"
      reason: ""
      message: ""
"""
_SERVICE = (
    f'{{"apiVersion":"{_API_VERSION}",'
    '"kind":"VirtualMachineService","metadata":{"name":"s-#",'
    f'"annotations":{{"a":"{_FILL * 3}"}}}},"spec":{{'
    '"selector":{"app":"a-#"},"type":"ClusterIP","ports":[{"name":"http","protocol":"TCP",'
    '"port":80,"targetPort":8@}]}}'
)
_PORT = '{"name":"p#","protocol":"TCP","port":80}'
_PORTS = _SERVICE.replace("#", "many").partition('{"name":"http"')[0]
_ONE_SERVICE = _SERVICE.replace("s-#", "one").replace("a-#", "a")
_VM_OF_ONE = _VM.replace('"name":"vm-#"', '"name":"vm-#","labels":{"app":"a"}')
_WRONG = f'{{{_HEAD},"metadata":{{"name":"vm-#","labels":[1,{{"a":"@"}},"{_FILL}"]}}}}'
_OTHER = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c-#"},"data":{"a":"@"}}'
_ANNOTATIONS = f'{{{_HEAD},"metadata":{{"name":"vm","annotations":{{'
_LABELS = _ANNOTATIONS.replace("annotations", "labels")
_LONG_JSON = f'{{{_HEAD},"metadata":{{"name":"vm","annotations":{{"a":"@'
_LONG_YAML = (
    f"apiVersion: {_API_VERSION}\nkind: VirtualMachine\nmetadata:\n  name: vm\n  annotations:\n"
)

SHAPES = (
    Shape("empty-objects", "json", _repeated("{}")),
    Shape("empty-objects-300k", "json", _repeated("{}" + " " * 54)),
    Shape("list-of-texts", "json", _listed('"%s"' % ("x" * 70))),
    Shape("list-of-numbers", "json", _filled(_LIST, "1,", "1" + _LIST_END)),
    Shape("unnamed-items", "json", _listed('{"some":"#","text":"%s@"}' % ("x" * 30))),
    Shape("kind-last", "json", _numbered(_VM, '{"items":[', ",", '],"kind":"List"}')),
    Shape("nested-1000", "json", _nested('{"a":', "}", 1000, "\n")),
    Shape("nested-lists-1000", "json", _repeated('{"a":' + "[" * 1000 + "]" * 1000 + "}\n")),
    Shape("brackets", "json", _repeated("[", '{"a":')),
    Shape("yaml-nested-1000", "yaml", _nested("{a: ", "}", 1000, "\n---\n")),
    Shape("yaml-brackets", "yaml", _repeated("[")),
    Shape("yaml-dashes", "yaml", _repeated("- ")),
    Shape("yaml-flow", "yaml", _filled("[", "a,", "a]")),
    Shape("separators", "yaml", _repeated("---\n")),
    Shape("blank-lines", "yaml", _repeated("\n")),
    Shape("blanks", "yaml", _repeated(" ")),
    Shape("comments", "yaml", _repeated("# text @\n")),
    Shape("one-comment", "yaml", _repeated("x", "# ")),
    Shape("directives", "yaml", _repeated("%YAML 1.1\n")),
    Shape("vms", "json", _numbered(_VM, between="\n")),
    Shape("vms-list", "json", _listed(_VM)),
    Shape("vms-yaml", "yaml", _numbered(_YAML_VM)),
    Shape("usual-vms", "json", _listed(_USUAL_VM)),
    Shape("usual-vms-yaml", "yaml", _numbered(_USUAL_YAML_VM, "kind: List\nitems:\n")),
    Shape("real-vms", "json", _real_list),
    Shape("services", "json", _listed(_SERVICE)),
    Shape("one-service", "json", _numbered(_VM_OF_ONE, _LIST + _ONE_SERVICE + ",", ",", _LIST_END)),
    Shape("wrong-labels", "json", _listed(_WRONG)),
    Shape("refused-services", "json", _listed(_SERVICE.replace("ClusterIP", "@"))),
    Shape("other-kinds", "json", _listed(_OTHER)),
    Shape("duplicates", "json", _repeated(_VM.replace("#", "a") + "\n")),
    Shape("duplicates-yaml", "yaml", _repeated(_YAML_VM.replace("#", "a"))),
    Shape("ports", "json", _filled_numbered(_PORTS, _PORT, "]}}")),
    Shape("annotations", "json", _filled_numbered(_ANNOTATIONS, '"a#":"@"', "}}}")),
    Shape("annotations-yaml", "yaml", _numbered('    a#: "@"\n', _LONG_YAML)),
    Shape("labels", "json", _filled_numbered(_LABELS, '"a#":"@"', "}}}")),
    Shape(
        "labels-yaml",
        "yaml",
        _numbered("    a#: a@\n", _LONG_YAML.replace("annotations", "labels")),
    ),
    Shape("one-number", "json", _filled(_LONG_JSON[:-2], "1", "}}}")),
    Shape("one-number-yaml", "yaml", _filled(_LONG_YAML + "    a: ", "1", "\n")),
    Shape("numbers-yaml", "yaml", _repeated("- 1_0.5e3\n- 0x1F\n- .inf\n")),
    Shape("keys-yaml", "yaml", _repeated("? @\n")),
    Shape("tags", "yaml", _repeated("- !a {}\n- !!str @\n")),
    Shape("lists-in-lists", "json", _listed(_LIST + _OTHER + _LIST_END)),
    Shape("empty-documents-400k", "yaml", _repeated("---\n" + "#" * 36 + "\n")),
    Shape("crlf", "yaml", _repeated("- a\r\n")),
    Shape("one-text", "json", _filled(_LONG_JSON, "x", '"}}}')),
    Shape("one-escaped-text", "json", _filled(_LONG_JSON, "\\u0041", '"}}}')),
    Shape("one-text-yaml", "yaml", _filled(_LONG_YAML + "    a: @", "x", "\n")),
    Shape("one-quoted-text-yaml", "yaml", _filled(_LONG_YAML + '    a: "@', "\\n", '"\n')),
    Shape("one-block-yaml", "yaml", _filled(_LONG_YAML + "    a: |\n      @", "x\n      ", "\n")),
    Shape("one-binary-yaml", "yaml", _filled(_LONG_YAML + "    a: !!binary ", "AAAA", "\n")),
    Shape("laughs", "yaml", _laughs),
    Shape("anchors", "yaml", _numbered("- &a# @\n- *a#\n")),
    Shape("anchors-alone", "yaml", _numbered("- &a#\n")),
    Shape("aliases", "yaml", _repeated("- *a\n", "- &a {x: 1}\n")),
    Shape("merges", "yaml", _numbered("- <<: *a\n  b#: @\n", "- &a {x: 1, y: 2}\n")),
    Shape("utf-16", "yaml", _utf_16),
    Shape("binary", "yaml", _random),
    Shape("zeros", "yaml", _repeated("\0")),
    Shape("broken-json", "json", _broken_at_its_end(_listed(_USUAL_VM))),
    Shape("broken-json-stream", "json", _broken_at_its_end(_numbered(_VM, between="\n"))),
    Shape("broken-yaml", "yaml", _broken_at_its_end(_numbered(_YAML_VM))),
)
"""In no order that means anything."""
