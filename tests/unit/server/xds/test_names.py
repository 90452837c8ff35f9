"""Names of xDS resources, as a table."""

from __future__ import annotations

import pytest

from vmsvc_grpc.model.objects import Key, ServicePort
from vmsvc_grpc.server.xds.names import (
    CLUSTER_LOCAL,
    References,
    canonical_names,
    ports_by_text,
)

HTTP = ServicePort("http", "TCP", 80, 9376)
DNS_TCP = ServicePort("dns-tcp", "TCP", 53, 5353)
DNS_UDP = ServicePort("dns", "UDP", 53, 5354)
NTP = ServicePort("ntp", "UDP", 123, 123)
SCTP = ServicePort("sig", "SCTP", 2905, 2905)
EIGHTY = ServicePort("80", "TCP", 8080, 8080)

WEB = Key("shop", "web")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        pytest.param("web.shop:80", (WEB, "80"), id="name, namespace, number"),
        pytest.param("web.shop:http", (WEB, "http"), id="a port by its name"),
        pytest.param("web.shop", (WEB, ""), id="no port"),
        pytest.param("web.shop.svc:80", (WEB, "80"), id="as in DNS, in short"),
        pytest.param("web.shop.svc.cluster.local:80", (WEB, "80"), id="as in DNS"),
        pytest.param("web.shop.svc.cluster.local.:80", (WEB, "80"), id="with its dot"),
        pytest.param("web.shop.:80", (WEB, "80"), id="a dot, in short"),
        pytest.param("web.shop.svc.", (WEB, ""), id="a dot, and no port"),
        pytest.param("web.shop..:80", None, id="two dots"),
        pytest.param("web.:80", None, id="a dot, and no namespace"),
        pytest.param("web.svc:80", (Key("svc", "web"), "80"), id="a namespace named svc"),
        pytest.param("web", None, id="no namespace"),
        pytest.param("web.", None, id="an empty namespace"),
        pytest.param(".shop:80", None, id="an empty name"),
        pytest.param("web.shop:", None, id="an empty port"),
        pytest.param("web.shop.svc.cluster:80", None, id="half a suffix"),
        pytest.param("web.shop.example.com:80", None, id="another suffix"),
        pytest.param("xdstp://shop/envoy.config.cluster.v3.Cluster/web", None, id="xdstp"),
        pytest.param("", None, id="nothing"),
        pytest.param("web.shop:" + "x" * 300, None, id="longer than any"),
        pytest.param("*", None, id="the wildcard is no name"),
    ],
)
def test_a_name_means_a_service_and_a_port_or_nothing(
    name: str, meant: tuple[Key, str] | None
) -> None:
    assert said(CLUSTER_LOCAL, name) == meant


def said(references: References, name: str) -> tuple[Key, str] | None:
    asked = references.of(name)
    assert asked is None or asked.name == name
    return asked and (asked.service, asked.port)


def test_those_who_ask_for_the_same_share_its_text() -> None:
    first, second = (CLUSTER_LOCAL.of("web.shop:" + port) for port in ("80", "8" + "0"))
    assert first is not None
    assert first is second


def test_a_cluster_may_have_another_domain() -> None:
    inside, outside = "web.shop.svc.k8s.example.org:80", "web.shop.svc.cluster.local:80"
    long = f"{'w' * 63}.{'n' * 63}.svc.k8s.example.org.:{'p' * 63}"
    references = References("k8s.example.org")
    assert CLUSTER_LOCAL.of(inside) is None
    assert (said(references, inside), said(references, outside)) == ((WEB, "80"), None)
    assert said(references, "web.shop.svc:80") == (WEB, "80")
    assert said(references, long) == (Key("n" * 63, "w" * 63), "p" * 63)


@pytest.mark.parametrize(
    ("ports", "text", "port"),
    [
        pytest.param((HTTP, NTP), "80", HTTP, id="by number"),
        pytest.param((HTTP, NTP), "http", HTTP, id="by name"),
        pytest.param((HTTP,), "", HTTP, id="the only one"),
        pytest.param((HTTP, NTP), "", None, id="none said, of two"),
        pytest.param((HTTP,), "81", None, id="no such number"),
        pytest.param((HTTP,), "https", None, id="no such name"),
        pytest.param((HTTP,), "080", None, id="a number written otherwise"),
        pytest.param((DNS_UDP, DNS_TCP), "53", DNS_TCP, id="a number of two is TCP's"),
        pytest.param((DNS_UDP, DNS_TCP), "dns", DNS_UDP, id="UDP's then has its name"),
        pytest.param((NTP,), "123", NTP, id="UDP alone has its number"),
        pytest.param((EIGHTY, HTTP), "80", HTTP, id="a number comes before a name"),
        pytest.param((SCTP,), "2905", None, id="SCTP has no name"),
        pytest.param((SCTP, HTTP), "", HTTP, id="SCTP does not count"),
        pytest.param((), "", None, id="a headless service without ports"),
    ],
)
def test_a_port_is_found(
    ports: tuple[ServicePort, ...], text: str, port: ServicePort | None
) -> None:
    assert ports_by_text(ports).get(text) == port


@pytest.mark.parametrize(
    ("ports", "names"),
    [
        pytest.param((HTTP, NTP), ["web.shop:80", "web.shop:123"], id="one for each port"),
        pytest.param((DNS_UDP, DNS_TCP), ["web.shop:53"], id="a shared number once"),
        pytest.param((SCTP,), [], id="none for SCTP"),
        pytest.param((), [], id="none without ports"),
    ],
)
def test_canonical_names(ports: tuple[ServicePort, ...], names: list[str]) -> None:
    assert list(canonical_names(WEB, ports)) == names
