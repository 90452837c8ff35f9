"""Who a certificate is of."""

from __future__ import annotations

import pytest

from vmsvc_grpc.server.access.certificate import ClientCertificate
from vmsvc_grpc.server.access.principal import (
    CertificateRules,
    Principal,
    UnknownCallerError,
    authenticated,
    lasting,
)


def shown(
    *common_names: str,
    o: tuple[str, ...] = (),
    uids: tuple[str, ...] = (),
    uris: tuple[str, ...] = (),
) -> ClientCertificate:
    return ClientCertificate(common_names, o, uids, uris, expires_at=100.0)


def principal(username: str, *groups: str, uid: str = "", authenticated: bool = True) -> Principal:
    always = ("system:authenticated",) if authenticated else ()
    return Principal(username=username, uid=uid, groups=(*groups, *always))


PLAIN = CertificateRules()
CLUSTER = CertificateRules(of_cluster=True)
SPIFFE = CertificateRules(trust_domain="cluster.local")
WEB = "spiffe://cluster.local/ns/shop/sa/web"


@pytest.mark.parametrize(
    ("rules", "certificate", "who"),
    [
        pytest.param(
            PLAIN,
            shown("ann", o=("shop", "data")),
            principal("ann", "shop", "data"),
            id="CN is the name, each O a group",
        ),
        pytest.param(
            PLAIN, shown("first", "last"), principal("last"), id="of several CNs the last counts"
        ),
        pytest.param(
            PLAIN, shown("ann", o=("", "shop")), principal("ann", "shop"), id="an empty O is none"
        ),
        pytest.param(PLAIN, shown("ann", uids=("7",)), principal("ann", uid="7"), id="a uid"),
        pytest.param(
            PLAIN, shown("ann", uris=(WEB,)), principal("ann"), id="without a domain, no URI counts"
        ),
        pytest.param(
            SPIFFE,
            shown("ann", uris=("https://example.com/",)),
            principal("ann"),
            id="other URIs mean nothing",
        ),
        pytest.param(
            CLUSTER,
            shown("system:node:n1", o=("system:nodes",)),
            principal("system:node:n1", "system:nodes"),
            id="the cluster's CA may name its parts",
        ),
        pytest.param(
            CLUSTER,
            shown("system:anonymous", o=("system:unauthenticated",)),
            principal("system:anonymous", "system:unauthenticated", authenticated=False),
            id="nobody is not somebody",
        ),
        pytest.param(
            SPIFFE,
            shown("ann", o=("system:masters",), uris=(WEB,)),
            principal(
                "system:serviceaccount:shop:web",
                "system:serviceaccounts",
                "system:serviceaccounts:shop",
            ),
            id="a SPIFFE ID is a ServiceAccount, whatever the subject says",
        ),
    ],
)
def test_a_certificate_is_somebodys(
    rules: CertificateRules, certificate: ClientCertificate, who: Principal
) -> None:
    found = rules.principal(certificate)
    assert found == who
    assert found.expires_at == 100.0


@pytest.mark.parametrize(
    ("rules", "certificate", "words"),
    [
        pytest.param(PLAIN, shown(), "no common name", id="no CN"),
        pytest.param(PLAIN, shown("ann", ""), "no common name", id="an empty last CN"),
        pytest.param(PLAIN, shown("system:admin"), "reserved", id="a CN of Kubernetes' own"),
        pytest.param(
            PLAIN, shown("ann", o=("shop", "system:masters")), "reserved", id="an O of its own"
        ),
        pytest.param(PLAIN, shown("ann", uids=("1", "2")), "uid", id="two uids"),
        pytest.param(CLUSTER, shown("ann", uids=("",)), "uid", id="an empty uid"),
        pytest.param(
            SPIFFE, shown("system:admin"), "reserved", id="a trust domain is not the cluster's CA"
        ),
        pytest.param(
            SPIFFE,
            shown("ann", uris=("spiffe://other/ns/shop/sa/web",)),
            "trust domain",
            id="another domain",
        ),
        pytest.param(
            SPIFFE,
            shown("ann", uris=("spiffe://cluster.local.evil/ns/shop/sa/web",)),
            "trust domain",
            id="a domain that only begins like ours",
        ),
        pytest.param(
            SPIFFE,
            shown("ann", uris=("SPIFFE://cluster.local/ns/shop/sa/web",)),
            "trust domain",
            id="a scheme in capitals",
        ),
        pytest.param(SPIFFE, shown("ann", uris=(WEB, WEB + "2")), "2 URIs", id="two SPIFFE IDs"),
        pytest.param(
            SPIFFE,
            shown("ann", uris=(WEB, "https://example.com/")),
            "2 URIs",
            id="another URI beside one",
        ),
        *(
            pytest.param(
                SPIFFE, shown("ann", uris=(f"spiffe://cluster.local{path}",)), words, id=path
            )
            for path, words in (
                ("", "no ServiceAccount"),
                ("/ns/shop", "no ServiceAccount"),
                ("/ns/shop/sa/web/more", "no ServiceAccount"),
                ("/ns/shop/sa/", "no ServiceAccount"),
                ("/ns//sa/web", "no ServiceAccount"),
                ("/ns/Shop/sa/web", "no ServiceAccount"),
                ("/ns/shop/sa/web:kube-system", "no ServiceAccount"),
                ("/ns/shop/sa/we%62", "no ServiceAccount"),
                ("/ns/shop/sa/web?x", "no ServiceAccount"),
                ("/ns/shop/sa/web\n", "no ServiceAccount"),
                ("@evil/ns/shop/sa/web", "trust domain"),
                (":1/ns/shop/sa/web", "trust domain"),
            )
        ),
    ],
)
def test_a_certificate_is_refused(
    rules: CertificateRules, certificate: ClientCertificate, words: str
) -> None:
    with pytest.raises(UnknownCallerError, match=words) as refused:
        rules.principal(certificate)
    assert str(refused.value).isprintable()


def test_when_a_credential_expires_makes_nobody_another() -> None:
    early = Principal(username="ann", expires_at=1.0)
    assert early == Principal(username="ann", expires_at=2.0)
    assert hash(early) == hash(Principal(username="ann"))


def test_who_is_in_the_group_of_all_already_stays_the_same() -> None:
    ann = Principal(username="ann", groups=("system:authenticated", "shop"))
    assert authenticated(ann) is ann


def test_what_says_which_credential_it_is_and_where_makes_nobody_another() -> None:
    """The rest does: a webhook that authorizes may go by it."""
    ours = "authentication.kubernetes.io"
    said = {
        "scopes.example/of": ["b", "a"],
        **{
            f"{ours}/{name}": ["x"]
            for name in ("credential-id", "node-name", "node-uid", "pod-name", "pod-uid")
        },
        f"{ours}/pod-name-of-others": ["y"],
        "pod-name": [],
    }
    assert lasting(said) == (
        (f"{ours}/pod-name-of-others", ("y",)),
        ("pod-name", ()),
        ("scopes.example/of", ("b", "a")),
    )


def test_a_new_certificate_of_somebody_makes_nobody_another() -> None:
    renewed = ClientCertificate(("ann",), expires_at=200.0)
    assert PLAIN.principal(renewed) == PLAIN.principal(shown("ann"))


class Counted(str):
    """A group that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()


def test_groups_are_not_looked_at_for_each_right() -> None:
    """A wildcard looks up a thousand rights in one turn of the event loop."""
    groups = tuple(Counted(f"g-{number}") for number in range(10))
    principal = Principal(username="ann", groups=groups)
    rights = {(principal, number): None for number in range(100)}
    assert (Counted.looks, len(rights)) == (10, 100)
    assert hash(Principal(username="ann", groups=tuple(map(str, groups)))) == hash(principal)
