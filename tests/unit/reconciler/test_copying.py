"""Which labels and annotations of a VMService its Service is given."""

from __future__ import annotations

import pytest

from tests.unit.objects import WEB
from vmsvc_grpc.model.objects import ObjectMeta
from vmsvc_grpc.reconciler.copying import Copying

DNS = "external-dns.alpha.kubernetes.io/hostname"
LOAD_BALANCER = "service.beta.kubernetes.io/aws-load-balancer-internal"


@pytest.mark.parametrize(
    ("patterns", "key", "denied"),
    [
        pytest.param((), DNS, False, id="no pattern"),
        pytest.param((DNS,), DNS, True, id="the key itself"),
        pytest.param(("external-dns",), DNS, False, id="a beginning is no match"),
        pytest.param(("external-dns*",), DNS, True, id="a star takes the slash in"),
        pytest.param(("*",), DNS, True, id="everything"),
        pytest.param(("*.kubernetes.io/*",), DNS, True, id="a domain's"),
        pytest.param(("*.kubernetes.io/*",), LOAD_BALANCER, True, id="another of the domain"),
        pytest.param(("*.kubernetes.io/*",), "kubernetes.io/x", False, id="not the domain's own"),
        pytest.param(("*/*",), "team", False, id="keys with a prefix"),
        pytest.param(("te?m",), "team", True, id="one character"),
        pytest.param(("te[ab]m",), "team", True, id="one of several"),
        pytest.param(("te[!ab]m",), "team", False, id="none of several"),
        pytest.param(("Team",), "team", False, id="upper case counts"),
        pytest.param(("x", "team"), "team", True, id="the second pattern"),
        pytest.param(("[",), "team", False, id="a bracket that is never closed"),
    ],
)
def test_which_keys_a_pattern_denies(patterns: tuple[str, ...], key: str, denied: bool) -> None:
    both = ObjectMeta(key=WEB, uid="u", labels={key: "1"}, annotations={key: "1"})
    kept = {} if denied else {key: "1"}
    assert Copying(denied_labels=patterns).labels(both) == kept
    assert Copying(denied_annotations=patterns).annotations(both) == kept
    assert Copying(denied_labels=patterns).annotations(both) == {key: "1"}
    assert Copying(denied_annotations=patterns).labels(both) == {key: "1"}


def test_some_annotations_are_never_copied() -> None:
    never = "kubectl.kubernetes.io/last-applied-configuration"
    both = ObjectMeta(key=WEB, uid="u", labels={never: "1"}, annotations={never: "1", "a": "b"})
    assert Copying().annotations(both) == {"a": "b"}
    assert Copying().labels(both) == {never: "1"}
