"""Who may do what where there is no API server: a file of rules, in Kubernetes' words. Pure.

rules:
- subjects:
  - {kind: User, name: ann}
  namespaces: [shop]
  verbs: [get, list, watch]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from vmsvc_grpc.model.objects import GROUP
from vmsvc_grpc.model.problem import likely_meant, quoted
from vmsvc_grpc.model.validate import is_dns_1123_label, is_dns_1123_subdomain
from vmsvc_grpc.server.access.needs import ResourceNeed, UrlNeed
from vmsvc_grpc.server.access.policy_yaml import Node, PolicyError, only_document
from vmsvc_grpc.server.access.principal import Principal

ANY = "*"

_RESOURCES = {"endpoints": "", "virtualmachines": GROUP}
_VERBS = ("get", "list", "watch", ANY)
_SUBJECTS = {
    "User": ("kind", "name"),
    "Group": ("kind", "name"),
    "ServiceAccount": ("kind", "namespace", "name"),
}


class Subject(NamedTuple):
    """A name of one caller (User), or of several (Group)."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What some subjects may do: either to resources in namespaces, or to non-resource URLs."""

    subjects: tuple[Subject, ...]
    verbs: frozenset[str]
    namespaces: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()


class Rights:
    """What somebody may do. Answers do not take longer for many rules, but for those of URLs."""

    __slots__ = ("_namespaces", "_urls")

    def __init__(self, rules: Iterable[Rule]) -> None:
        """By these rules together, and by no other."""
        self._namespaces: dict[tuple[str, str], set[str]] = {}  # By verb and resource.
        self._urls: dict[str, list[str]] = {}  # By verb.
        for rule in rules:
            for verb in rule.verbs:
                self._urls.setdefault(verb, []).extend(rule.urls)
                for resource in rule.resources:
                    self._namespaces.setdefault((verb, resource), set()).update(rule.namespaces)

    def allows(self, need: ResourceNeed | UrlNeed) -> bool:
        """Whether they give what is needed. All namespaces are only those of `*`."""
        if isinstance(need, UrlNeed):
            return any(
                _covers(url, need.path)
                for verb in (need.verb, ANY)
                for url in self._urls.get(verb, ())
            )
        if _RESOURCES.get(need.resource) != need.group:
            return False
        for verb in (need.verb, ANY):
            namespaces = self._namespaces.get((verb, need.resource), ())
            if ANY in namespaces or need.namespace in namespaces:
                return True
        return False


class Policy:
    """Rules, by those whom they are for."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Who is in no rule may do nothing."""
        of_subject: dict[Subject, list[Rule]] = {}
        for rule in rules:
            for subject in rule.subjects:
                of_subject.setdefault(subject, []).append(rule)
        self._rights = {subject: Rights(rules) for subject, rules in of_subject.items()}

    def rights_of(self, principal: Principal) -> tuple[Rights, ...]:
        """What the rules give somebody: each of them counts. O(groups): keep it for many needs."""
        subjects = [Subject("User", principal.username)]
        subjects += (Subject("Group", group) for group in principal.groups)
        return tuple(self._rights[subject] for subject in subjects if subject in self._rights)


def policy(text: str) -> Policy:
    """The policy that a text is. Raises PolicyError, which names the first line that is wrong."""
    fields = _fields(only_document(text), ("rules",), ())
    return Policy([_rule(node) for node in _list(fields["rules"], "rules", least=0)])


def _covers(url: str, path: str) -> bool:
    """Whether a URL of a rule is about a path; with `*` at its end, whatever begins so."""
    return path.startswith(url[:-1]) if url.endswith(ANY) else path == url


def _rule(node: Node) -> Rule:
    fields = _fields(node, ("subjects", "verbs"), ("namespaces", "resources", "nonResourceURLs"))
    subjects = tuple(map(_subject, _list(fields["subjects"], "subjects")))
    verbs = _texts(fields["verbs"], "verbs", _one_of("verb", _VERBS))
    if ("namespaces" in fields) == ("nonResourceURLs" in fields):
        raise PolicyError(node.line, "a rule has either namespaces or nonResourceURLs")
    if "nonResourceURLs" in fields:
        if "resources" in fields:
            raise PolicyError(fields["resources"].line, "resources go with namespaces")
        urls = _texts(fields["nonResourceURLs"], "nonResourceURLs", _url)
        return Rule(subjects, frozenset(verbs), urls=urls)
    resources: tuple[str, ...] = ("endpoints",)
    if "resources" in fields:
        resources = _texts(fields["resources"], "resources", _one_of("resource", _RESOURCES))
    namespaces = _texts(fields["namespaces"], "namespaces", _namespace)
    return Rule(subjects, frozenset(verbs), frozenset(namespaces), frozenset(resources))


def _subject(node: Node) -> Subject:
    given = node.value if isinstance(node.value, dict) else {}
    kind = given.get("kind")
    if kind is None or not isinstance(kind.value, str):
        raise PolicyError(node.line, "a subject has kind and name, as {kind: User, name: ann}")
    _one_of("kind", _SUBJECTS)(kind.value, kind.line)
    fields = _fields(node, _SUBJECTS[kind.value], ())
    name = _text(fields["name"], "name")
    if kind.value != "ServiceAccount":
        return Subject(kind.value, name)
    namespace = _text(fields["namespace"], "namespace")
    if not (is_dns_1123_label(namespace) and is_dns_1123_subdomain(name)):
        raise PolicyError(node.line, f"{quoted(f'{namespace}/{name}')} cannot be a ServiceAccount")
    return Subject("User", f"system:serviceaccount:{namespace}:{name}")


def _fields(node: Node, needed: tuple[str, ...], possible: tuple[str, ...]) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise PolicyError(node.line, f"a mapping with {', '.join(needed)} is expected here")
    known = (*needed, *possible)
    for name, value in node.value.items():
        if name not in known:
            likely = likely_meant(name, known)
            meant = f"did you mean {likely}?" if likely else f"known are {', '.join(known)}"
            raise PolicyError(value.line, f"there is no field {quoted(name)}; {meant}")
    for name in needed:
        if name not in node.value:
            raise PolicyError(node.line, f"the field {name} is missing")
    return node.value


def _list(node: Node, name: str, least: int = 1) -> list[Node]:
    if not isinstance(node.value, list):
        raise PolicyError(node.line, f"{name} is a list")
    if len(node.value) < least:
        raise PolicyError(node.line, f"{name} is empty")
    return node.value


def _texts(node: Node, name: str, check: Callable[[str, int], None]) -> tuple[str, ...]:
    texts = []
    for item in _list(node, name):
        text = _text(item, name)
        check(text, item.line)
        texts.append(text)
    return tuple(texts)


def _text(node: Node, name: str) -> str:
    if not isinstance(node.value, str) or not node.value:
        raise PolicyError(node.line, f"{name}: a text is expected here")
    return node.value


def _one_of(what: str, known: Iterable[str]) -> Callable[[str, int], None]:
    def check(text: str, line: int) -> None:
        if text not in known:
            likely = likely_meant(text, known)
            meant = f"did you mean {likely}?" if likely else f"known are {', '.join(known)}"
            raise PolicyError(line, f"there is no {what} {quoted(text)}; {meant}")

    return check


def _namespace(text: str, line: int) -> None:
    if text != ANY and not is_dns_1123_label(text):
        raise PolicyError(line, f"{quoted(text)} cannot be a namespace; '*' is all of them")


def _url(text: str, line: int) -> None:
    if not text.startswith("/") or ANY in text[:-1]:
        raise PolicyError(line, f"{quoted(text)} is no path, as /metrics or /debug/*")
