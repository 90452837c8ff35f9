"""Which credentials are used, what stands in them, and what is said where there are none."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vmsvc_grpc.kube.client import ApiServer
from vmsvc_grpc.kube.credentials import InCluster, Kubeconfig, NoApiServer, find
from vmsvc_grpc.kube.errors import ApiServerError

# A certificate of nobody's; its key was thrown away.
CA = """\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUFBNuWkfuzNW/gmoCcYqr8ZuiAz4wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyMzE5MjUyNloYDzIxMjYxMDMwMTky
NTI2WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAR6c6IZ0YkLivx/BXuExJlwdpk2mGd8n1ArgIgp8+9xhU5NkTG9sTAoSOzPVlFN
Se01DfoEZLY3J2ftlaoPH/GEo1MwUTAdBgNVHQ4EFgQUpOIEP8sF//KfqJPMmB5O
SlQ3Y4gwHwYDVR0jBBgwFoAUpOIEP8sF//KfqJPMmB5OSlQ3Y4gwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAqHU/e+EPW49yzo1tavgdUYNxNTgW
CUsRcPb3cwLjJbMCIFYKhrvIVX+YrHT20YOwZ+drDs0pKe85xwzz5VVD8bZS
-----END CERTIFICATE-----
"""
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("pod-token\n")
    (folder / "ca.crt").write_text(CA)
    (folder / "namespace").write_text("vmsvc-system")
    return folder


def kubeconfig(path: Path, *, current: str = "one", **user: Any) -> Path:
    """A file with two contexts, `one` and `two`, for one user."""
    cluster = {"server": "https://10.0.0.1:6443", "tls-server-name": "kube.example"}
    contexts = [
        {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
        {"name": "two", "context": {"cluster": "d", "user": "u"}},
    ]
    path.write_text(
        json.dumps(
            {
                "current-context": current,
                "contexts": contexts,
                "clusters": [
                    {"name": "c", "cluster": cluster},
                    {"name": "d", "cluster": {"server": "http://localhost:1/"}},
                ],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


# -- Which. --


@pytest.mark.parametrize(
    ("given", "context", "environ", "mounted", "found"),
    [
        pytest.param("file", None, POD, True, "kubeconfig {file}", id="what was asked for"),
        pytest.param("file", "two", {}, False, "kubeconfig {file}, context two", id="with context"),
        pytest.param(
            None,
            "two",
            POD | {"KUBECONFIG": "file"},
            True,
            "kubeconfig {file}, context two",
            id="a context is of the default file, also in a pod",
        ),
        pytest.param(
            None,
            None,
            POD | {"KUBECONFIG": "file"},
            True,
            "the pod's service account at 10.96.0.1:443",
            id="a pod",
        ),
        pytest.param(
            None,
            None,
            POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"},
            True,
            "the pod's service account at [fd00::1]:443",
            id="a pod of an IPv6 cluster",
        ),
        pytest.param(
            None,
            None,
            POD | {"KUBECONFIG": "file"},
            False,
            "kubeconfig {file}",
            id="a pod without a service account",
        ),
        pytest.param(
            None, None, {"KUBECONFIG": "file"}, True, "kubeconfig {file}", id="no pod, as it seems"
        ),
    ],
)
def test_which_credentials_are_used(
    given: str | None,
    context: str | None,
    environ: Mapping[str, str],
    mounted: bool,
    found: str,
    service_account: Path,
    tmp_path: Path,
) -> None:
    file = str(kubeconfig(tmp_path / "file"))
    folder = service_account if mounted else tmp_path / "none"
    names = {name: file if value == "file" else value for name, value in environ.items()}
    credentials = find(file if given else None, context, names, folder)
    assert str(credentials) == found.format(file=file)


def test_the_default_file_is_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config")
    assert str(find(None, None, {}, tmp_path)) == "kubeconfig ~/.kube/config"


@pytest.mark.parametrize(
    ("given", "context", "sentence"),
    [
        pytest.param("nowhere", None, "--kubeconfig: there is no file nowhere", id="no such file"),
        pytest.param(
            None,
            "two",
            "--context two: there is no kubeconfig elsewhere; name one with --kubeconfig",
            id="a context of nothing",
        ),
        pytest.param(
            None,
            None,
            "no API server to read from: this is no pod with a service account (none), and there "
            "is no kubeconfig elsewhere; use --kubeconfig FILE",
            id="nothing at all",
        ),
    ],
)
def test_where_there_are_none(given: str | None, context: str | None, sentence: str) -> None:
    with pytest.raises(NoApiServer) as caught:
        find(given, context, POD | {"KUBECONFIG": "elsewhere"}, Path("none"))
    assert str(caught.value) == sentence


# -- What stands in them. --


async def test_a_pod_has_a_token_and_a_namespace(service_account: Path) -> None:
    credentials = InCluster("10.96.0.1:443", service_account)
    access = await credentials.load()
    assert access.host == "https://10.96.0.1:443"
    assert access.authorization == "Bearer pod-token"
    assert access.namespace == "vmsvc-system"
    assert access.fresh_s == 60.0
    assert access.tls.get_ca_certs()
    # Connections are kept for as long as nothing has changed.
    assert (await credentials.load()).tls is access.tls


async def test_a_host_that_none_can_be_is_an_error_as_others(service_account: Path) -> None:
    async with ApiServer(InCluster("h..h:443", service_account)) as api:
        with pytest.raises(ApiServerError, match="label empty or too long"):
            await api.request("GET", "/version")


def missing(file: Path) -> None:
    file.unlink()


def blank(file: Path) -> None:
    file.write_text(" \n")


def no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")


def huge(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


Spoil = Callable[[Path], None]
SPOILT = pytest.mark.parametrize(
    "spoil", [missing, blank, no_text, huge, fifo, device, directory], ids=lambda f: f.__name__
)


@SPOILT
@pytest.mark.parametrize("name", ["token", "ca.crt", "namespace"])
async def test_a_pod_one_of_whose_files_cannot_be_read_is_asked_again(
    name: str, spoil: Spoil, service_account: Path
) -> None:
    """A projected token may come late: that ended the process (issue 9, point 22)."""
    content = (service_account / name).read_text()
    spoil(service_account / name)
    credentials = InCluster("10.96.0.1:443", service_account)
    with pytest.raises(NoApiServer, match=f"^the pod's service account .* cannot .*{name}") as said:
        await credentials.load()
    assert said.value.may_pass
    (service_account / f"{name}.new").write_text(content)
    with contextlib.suppress(OSError):
        (service_account / name).rmdir()
    (service_account / f"{name}.new").rename(service_account / name)
    assert (await credentials.load()).authorization == "Bearer pod-token"


async def test_a_pods_namespace_is_the_name_of_one(service_account: Path) -> None:
    (service_account / "namespace").write_text("../kube-system")
    with pytest.raises(NoApiServer, match=r"no name of one: '\.\./kube-system'"):
        await InCluster("10.96.0.1:443", service_account).load()


@SPOILT
@pytest.mark.parametrize(
    "field", ["tokenFile", "client-certificate", "client-key", "certificate-authority", "file"]
)
async def test_a_file_that_a_kubeconfig_names_and_that_cannot_be_read_is_named(
    field: str, spoil: Spoil, tmp_path: Path
) -> None:
    """Nothing is read without end, nothing waits for ever, and nobody is asked as nobody."""
    files = {name: tmp_path / name for name in ("client-certificate", "client-key", "tokenFile")}
    for file in files.values():
        file.write_text("x")
    user = {name: file.name for name, file in files.items()}
    path = kubeconfig(tmp_path / "file", **user)
    config = json.loads(path.read_text())
    config["clusters"][0]["cluster"]["certificate-authority"] = "certificate-authority"
    (tmp_path / "certificate-authority").write_text(CA)
    path.write_text(json.dumps(config))
    spoil(tmp_path / field)
    with pytest.raises(NoApiServer) as said:
        await Kubeconfig(str(path)).load()
    assert str(tmp_path / field) in str(said.value)
    assert str(said.value).isprintable()
    # Somebody may be writing it; all else is the kubeconfig's own fault, and said at once.
    assert said.value.may_pass == (spoil is blank and field != "file")


async def test_a_ca_that_is_being_written(service_account: Path) -> None:
    (service_account / "ca.crt").write_text(CA[:100])
    with pytest.raises(NoApiServer):
        await InCluster("10.96.0.1:443", service_account).load()


async def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    access = await Kubeconfig(str(kubeconfig(tmp_path / "file", token="t"))).load()
    assert access.host == "https://10.0.0.1:6443"
    assert access.server_name == "kube.example"
    assert access.authorization == "Bearer t"
    assert access.namespace == "shop"
    assert access.fresh_s is None


async def test_a_kubeconfig_with_a_token_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    credentials = Kubeconfig(str(kubeconfig(tmp_path / "file", tokenFile="token")))
    assert (await credentials.load()).authorization == "Bearer one"
    token.write_text("two\n")
    assert (await credentials.load()).authorization == "Bearer two"


async def test_a_kubeconfig_with_a_plugin(tmp_path: Path) -> None:
    version = "client.authentication.k8s.io/v1"
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": "made"}}
    plugin = {
        "apiVersion": version,
        "command": sys.executable,
        "args": ["-c", f"print({json.dumps(answer)!r})"],
    }
    file = kubeconfig(tmp_path / "file", exec=plugin)
    assert (await Kubeconfig(str(file)).load()).authorization == "Bearer made"


async def test_another_context(tmp_path: Path) -> None:
    access = await Kubeconfig(str(kubeconfig(tmp_path / "file")), "two").load()
    assert access.host == "http://localhost:1"
    assert access.namespace == "default"
    assert access.authorization == ""


async def test_the_context_stays_if_another_becomes_the_current_one(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "file")
    credentials = Kubeconfig(str(file))
    await credentials.load()
    kubeconfig(file, current="two")
    assert (await credentials.load()).host == "https://10.0.0.1:6443"
    assert str(credentials) == f"kubeconfig {file}, context one"


@pytest.mark.parametrize(
    ("text", "context", "said"),
    [
        pytest.param("", None, "no current-context", id="empty"),
        pytest.param("{", None, "cannot be used", id="no YAML"),
        pytest.param("[1]", None, "not a kubeconfig", id="a list"),
        pytest.param("{contexts: []}", None, "current-context", id="no current context"),
        pytest.param("{contexts: [], clusters: []}", "mine", "mine", id="no such context"),
        pytest.param(
            "{contexts: [{name: a, context: {cluster: b}}], current-context: a}",
            None,
            "cannot be used",
            id="no such cluster",
        ),
        pytest.param(
            "{contexts: [{name: a, context: {cluster: b}}], current-context: a, clusters: "
            "[{name: b, cluster: {server: 'https://c', certificate-authority: none}}]}",
            None,
            "cannot be used",
            id="no such CA",
        ),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used(
    text: str, context: str | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(NoApiServer, match=said) as caught:
        await Kubeconfig(str(file), context).load()
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_kubeconfig_that_has_gone(tmp_path: Path) -> None:
    with pytest.raises(NoApiServer):
        await Kubeconfig(str(tmp_path / "none")).load()
