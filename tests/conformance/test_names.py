"""A case's words and an API server's are told apart, and each is said where it belongs."""

from typing import Any

import pytest

from tests.conformance.case import CaseError, ObjectId
from tests.conformance.names import Names

LIVE = "9b2e1c0a-0000-4000-8000-000000000001"
LIVE_2 = "9b2e1c0a-0000-4000-8000-000000000002"


def names() -> Names:
    given = Names({"shop": "case-x7k2p", "default": "case-9qwzz"})
    given.stands_for("u-1", LIVE)
    return given


def endpoints(namespace: str, uid: str) -> dict[str, Any]:
    target = {"kind": "VirtualMachine", "namespace": namespace, "name": "shop", "uid": uid}
    return {
        "metadata": {"name": "shop", "namespace": namespace, "labels": {"shop": "u-11"}},
        "subsets": [{"addresses": [{"ip": "10.0.0.1", "targetRef": target}], "ports": None}],
    }


def test_namespaces_and_uids_are_said_in_the_others_words() -> None:
    of_case, live = endpoints("shop", "u-1"), endpoints("case-x7k2p", LIVE)
    assert names().live(of_case) == live
    assert names().as_in_case(live) == of_case


def test_what_has_only_the_same_letters_stays() -> None:
    manifest = {"metadata": {"name": "shop", "labels": {"a": "shop", "uid": "u-12"}}}
    assert names().live(manifest) == names().as_in_case(manifest) == manifest


def test_what_is_no_text_stays() -> None:
    values = {"port": 80, "flag": False, "nothing": None, "list": [1, [2]]}
    assert names().live(values) == names().as_in_case(values) == values


def test_texts_that_tell_of_an_object_are_said_in_the_cases_words() -> None:
    said = f"Service case-x7k2p/web is controlled by {LIVE} in case-9qwzz"
    assert names().as_in_case(said) == "Service shop/web is controlled by u-1 in default"


def test_an_object_made_anew_is_another() -> None:
    given = names()
    given.stands_for("u-1", LIVE_2)
    assert given.live({"uid": "u-1"}) == {"uid": LIVE_2}
    assert given.as_in_case([LIVE, LIVE_2]) == [LIVE, "u-1"]


def test_an_object_is_where_its_namespace_is() -> None:
    assert names().live_id(ObjectId("Service", "shop", "web")) == ("Service", "case-x7k2p", "web")
    with pytest.raises(CaseError, match="Service other/web is in a namespace"):
        names().live_id(ObjectId("Service", "other", "web"))
