"""Which variable names the proxy that gRPC goes through."""

from __future__ import annotations

import pytest

from vmsvc.proxy import proxy_variable

FAR = "endpoints.example:50051"
HTTPS = {"https_proxy": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("server", "environment", "variable"),
    [
        pytest.param(FAR, {}, "", id="none"),
        pytest.param(FAR, HTTPS, "https_proxy", id="one"),
        pytest.param(FAR, {**HTTPS, "grpc_proxy": "http://p:1"}, "grpc_proxy", id="gRPC's own"),
        pytest.param(FAR, {"http_proxy": "http://p:1"}, "http_proxy", id="of http"),
        pytest.param(FAR, {"https_proxy": ""}, "", id="an empty one"),
        pytest.param(FAR, {"HTTPS_PROXY": "http://p:1"}, "", id="gRPC reads none in capitals"),
        pytest.param(FAR, {**HTTPS, "no_proxy": "a, .example"}, "", id="excepted by its end"),
        pytest.param(FAR, {**HTTPS, "no_proxy": "example.com,,"}, "https_proxy", id="not excepted"),
        pytest.param(
            FAR, {**HTTPS, "no_proxy": "example", "no_grpc_proxy": "b"}, "https_proxy", id="gRPC's"
        ),
        pytest.param("10.0.0.7:1", {**HTTPS, "no_proxy": "10.0.0.0/8"}, "", id="a network"),
        pytest.param("[fd00::7]:1", {**HTTPS, "no_proxy": "fd00::/8"}, "", id="of IPv6"),
        pytest.param("dns:///h:1", HTTPS, "https_proxy", id="by gRPC's name"),
        pytest.param("127.0.0.1:1", HTTPS, "", id="this machine"),
        pytest.param("[::1]:1", HTTPS, "", id="by IPv6"),
        pytest.param("localhost:1", HTTPS, "", id="by name"),
        pytest.param("unix:/run/vmsvc.sock", HTTPS, "", id="no address"),
    ],
)
def test_proxy(server: str, environment: dict[str, str], variable: str) -> None:
    assert proxy_variable(server, environment) == variable
