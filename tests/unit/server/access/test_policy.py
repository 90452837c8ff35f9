"""What a policy says, and what is wrong with one, by file and line."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.access.needs import ResourceNeed, UrlNeed
from vmsvc_grpc.server.access.policy import Policy, policy
from vmsvc_grpc.server.access.policy_yaml import PolicyError
from vmsvc_grpc.server.access.principal import Principal

POLICY = """\
# Who may read what here.
rules:
- subjects:
  - {kind: User, name: ann}
  - kind: ServiceAccount
    namespace: shop
    name: web
  namespaces: [shop, data]
  verbs: [get, watch]
- subjects: [{kind: Group, name: team}]
  namespaces: ["*"]
  resources: [endpoints, virtualmachines]
  verbs: ["*"]
- subjects: [{kind: Group, name: team}]
  nonResourceURLs: [/metrics, "/debug/*"]
  verbs: [get]
"""
ANN = Principal(username="ann")
WEB = Principal(username="system:serviceaccount:shop:web")
BOB = Principal(username="bob", groups=("other", "team"))


def allows(made: Policy, who: Principal, need: ResourceNeed | UrlNeed) -> bool:
    return any(rights.allows(need) for rights in made.rights_of(who))


def endpoints(verb: str, namespace: str) -> ResourceNeed:
    return ResourceNeed(verb, "", "endpoints", namespace)


@pytest.mark.parametrize(
    ("who", "need", "allowed"),
    [
        (ANN, endpoints("get", "shop"), True),
        (WEB, endpoints("watch", "data"), True),
        (ANN, endpoints("list", "shop"), False),
        (ANN, endpoints("get", "other"), False),
        (ANN, endpoints("get", ""), False),
        (ANN, ResourceNeed("get", "vmoperator.vmware.com", "virtualmachines", "shop"), False),
        (ANN, UrlNeed("get", "/metrics"), False),
        (BOB, endpoints("list", ""), True),
        (BOB, ResourceNeed("get", "vmoperator.vmware.com", "virtualmachines", "shop"), True),
        (BOB, ResourceNeed("get", "other.example.com", "virtualmachines", "shop"), False),
        (BOB, ResourceNeed("get", "", "secrets", "shop"), False),
        (BOB, UrlNeed("get", "/metrics"), True),
        (BOB, UrlNeed("get", "/metrics/more"), False),
        (BOB, UrlNeed("get", "/debug/channelz"), True),
        (BOB, UrlNeed("post", "/metrics"), False),
        (Principal(username="team"), endpoints("get", "shop"), False),
        (Principal(username="eve", groups=("ann",)), endpoints("get", "shop"), False),
    ],
    ids=str,
)
def test_rules_give_what_they_say(who: Principal, need: ResourceNeed, allowed: bool) -> None:
    assert allows(policy(POLICY), who, need) is allowed


def test_an_empty_list_of_rules_lets_nobody_in() -> None:
    assert not allows(policy("rules: []"), ANN, ResourceNeed("get", "", "endpoints", "shop"))


class Counted(str):
    """A name that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()


def test_many_rules_and_groups_cost_no_need_more() -> None:
    """A wildcard asks for each namespace, a thousand of them in one turn of the event loop."""
    one = "- {subjects: [{kind: Group, name: team}], namespaces: [n%d], verbs: [get]}\n"
    made = policy("rules:\n" + "".join(one % number for number in range(300)))
    groups = (*(Counted(f"g-{number}") for number in range(300)), "team")
    (rights,) = made.rights_of(Principal(username="ann", groups=groups))
    Counted.looks = 0
    found = [rights.allows(endpoints("get", Counted(f"n{number}"))) for number in range(400)]
    assert found == [True] * 300 + [False] * 100
    assert Counted.looks <= 2 * 400


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("", "", "the file is empty"),
        ("rules:", "rulez:", "line 3: there is no field 'rulez'; did you mean rules?"),
        ("name: ann", "nmae: ann", "line 4: there is no field 'nmae'; did you mean name?"),
        ("kind: User", "kind: user", "line 4: there is no kind 'user'; did you mean User?"),
        ("    namespace: shop\n", "", "line 5: the field namespace is missing"),
        ("    name: web", "    name: 80", "line 7: '80' is no text to YAML"),
        ("    name: web", "    name: on", "line 7: 'on' is no text"),
        ("    name: web", "    name:", "line 7: nothing is no text"),
        ("    name: web", "    name: We/b", "cannot be a ServiceAccount"),
        ("[shop, data]", "[Shop, data]", "line 8: 'Shop' cannot be a namespace"),
        ("[shop, data]", "shop", "line 8: namespaces is a list"),
        ("[shop, data]", "[]", "line 8: namespaces is empty"),
        ("[shop, data]", "[shop, *]", "line 8: is not YAML"),
        ("[get, watch]", "[get, wach]", "line 9: there is no verb 'wach'; did you mean watch?"),
        ("[get, watch]", "[create]", "line 9: there is no verb 'create'"),
        ("virtualmachines]", "pods]", "line 12: there is no resource 'pods'"),
        ("[/metrics,", "[metrics,", "line 15: 'metrics' is no path"),
        ("[get]", "[get]\n  resources: [endpoints]", "resources go with namespaces"),
        ('  nonResourceURLs: [/metrics, "/debug/*"]\n', "", "line 14: a rule has either"),
        ("  verbs: [get, watch]", "  verbs: [get]\n  verbs: [get]", "line 10: field 'verbs'"),
        ("- {kind: User, name: ann}", "- &a {kind: User, name: ann}", "line 4: has an anchor"),
        ("- {kind: User, name: ann}", "- !!map {kind: User, name: a}", "line 4: has an anchor"),
        ("- {kind: User, name: ann}", "- ann", "line 4: a subject has kind and name"),
        ("rules:\n", "rules: {}\nx:\n", "there is no field 'x'"),
        ("", "rules: {}", "line 1: rules is a list"),
        ("# Who", "---\n{}\n---\n# Who", "a second document begins"),
        ("[shop, data]", "[" * 30 + "]" * 30, "more than 10 levels"),
        ("[shop, data]", "[shop", "is not YAML"),
        ("ann", "\x07", "is not YAML"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_whole(before: str, after: str, says: str) -> None:
    text = POLICY.replace(before, after, 1) if before else after
    assert text != POLICY
    with pytest.raises(PolicyError) as refused:
        policy(text)
    assert says in str(refused.value)
    assert str(refused.value).startswith("line ")
