"""The Python client and `vmsvc` with TLS, client certificates and tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority, Pair
from tests.integration.scripted import ScriptedServer
from tests.program import PATIENCE_S, Program, serving
from vmsvc import (
    AsyncClient,
    Client,
    RetryPolicy,
    ServiceState,
    Synced,
    TokenFile,
    UnauthenticatedError,
    UnavailableError,
)
from vmsvc.tls import FilesError, TlsFiles, credentials
from vmsvc.v1 import endpoint_service_pb2 as pb

MANIFESTS = Path(__file__).parents[2] / "examples"
ANSWER = pb.ResolveEndpointsResponse(endpoint_set=pb.EndpointSet(service="shop/web"))
SNAPSHOT = pb.WatchEndpointsResponse(snapshot=pb.EndpointSet(service="shop/web", version=1))
SYNCED = pb.WatchEndpointsResponse(synced=pb.Synced())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def secured(authority: Authority, pair: Pair, log: Path) -> Iterator[Program]:
    arguments: list[str | Path] = ["--manifests", MANIFESTS, "--drain-s", "0.1"]
    arguments += ["--listen", "tls://127.0.0.1:0", "--client-ca", authority.certificate]
    with serving([*arguments, "--tls-cert", pair.certificate, "--tls-key", pair.key], log) as one:
        yield one


@pytest.fixture(scope="module")
def program(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    yield from secured(authority, authority.issue(), tmp_path_factory.mktemp("program") / "log")


@pytest.fixture(scope="module")
def elsewhere(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A server whose certificate is for another name than its address."""
    pair = authority.issue(names="DNS:endpoints.example")
    yield from secured(authority, pair, tmp_path_factory.mktemp("elsewhere") / "log")


def vmsvc(*arguments: str | Path, **variables: str) -> tuple[int, str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("VMSVC_")}
    done = subprocess.run(
        [Path(sys.executable).parent / "vmsvc", *arguments],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_asks_over_tls_by_flags_and_by_variables(
    program: Program, authority: Authority
) -> None:
    ca, own = str(authority.certificate), authority.issue("/O=team/CN=shop", "")
    flags = ("--tls", "--cacert", ca, "--cert", own.certificate, "--key", own.key)
    code, said, errors = vmsvc("resolve", "shop/web", "--server", program.grpc, *flags)
    assert (code, errors) == (0, "")
    assert "10.20.0.11" in said
    variables = {"VMSVC_SERVER": program.grpc, "VMSVC_TLS": "true", "VMSVC_CACERT": ca}
    assert vmsvc("resolve", "shop/web", **variables)[0] == 0


async def test_files_of_tls_are_read_anew_when_they_change(
    program: Program, authority: Authority, tmp_path: Path
) -> None:
    """Clients that trust another CA first, and the server's once that is in their file."""
    file = tmp_path / "ca.crt"
    file.write_bytes(Authority(tmp_path / "other").certificate.read_bytes())
    files = TlsFiles(str(file))
    assert files() is files(), "a channel is made of it, and kept"
    retry = RetryPolicy(backoff_initial_s=0.01, backoff_max_s=0.01)

    def renew() -> None:
        swapped = tmp_path / "new"
        swapped.write_bytes(authority.certificate.read_bytes())
        swapped.rename(file)

    with Client(program.grpc, credentials=files, retry=retry) as client:
        async with AsyncClient(program.grpc, credentials=files, retry=retry) as other:
            with pytest.raises(UnavailableError):
                client.resolve("shop/web")
            with pytest.raises(UnavailableError):
                await other.resolve("shop/web")
            before = files()
            file.write_text("-----BEGIN")
            assert files() is before, "what is of no use is not used"
            renew()
            watches = client.watch("shop/web").events(), other.watch("shop/web").events()
            assert isinstance(next(watches[0]), ServiceState)
            assert isinstance(await anext(watches[1]), ServiceState)
            # Streams go on, however often files are replaced; channels without are closed.
            for _ in range(4):
                renew()
                assert client.resolve("shop/web").service == "shop/web"
                assert (await other.resolve("shop/web")).service == "shop/web"
            for channels in (client._channels, other._channels):
                assert [held.streams for held in channels._held] == [1, 0, 0]
            assert isinstance(next(watches[0]), Synced)
            assert isinstance(await anext(watches[1]), Synced)


def test_the_authority_is_the_name_that_counts(elsewhere: Program, authority: Authority) -> None:
    flags = ("list", "--server", elsewhere.grpc, "--tls", "--cacert", authority.certificate)
    code, _, errors = vmsvc(*flags)
    assert code == 3
    assert "shows a certificate for another name" in errors
    assert vmsvc(*flags, "--authority", "endpoints.example")[0] == 0
    trust = credentials(str(authority.certificate))
    with Client(elsewhere.grpc, credentials=trust, authority="endpoints.example") as client:
        assert list(client.list())


def test_failures_of_tls_are_one_clear_line(
    program: Program, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    theirs = other.issue("/CN=x", "")
    ca = ("--tls", "--cacert", authority.certificate)
    for flags, says in (
        (("--tls", "--cacert", other.certificate), "a CA that is not trusted here"),
        (("--tls",), "a CA that is not trusted here"),
        ((), "does it take only TLS?"),
        ((*ca, "--cert", theirs.certificate, "--key", theirs.key), program.grpc),
    ):
        code, _, errors = vmsvc("list", "--server", program.grpc, *flags)
        assert code == 3, errors
        assert says in errors
        assert len(errors.splitlines()) == 1


def test_an_expired_server_and_one_without_tls_are_named_as_such(
    authority: Authority, tmp_path: Path
) -> None:
    flags = ("--tls", "--cacert", authority.certificate)
    with serving(["--manifests", MANIFESTS, "--drain-s", "0.1"], tmp_path / "log") as plain:
        code, _, errors = vmsvc("list", "--server", plain.grpc, *flags)
        assert (code, "does not use TLS" in errors) == (3, True)
        assert vmsvc("list", "--server", plain.grpc)[0] == 0
        # As with `kubectl port-forward`: what is set for the cluster is set aside.
        aside = {"VMSVC_TLS": "true", "VMSVC_CACERT": "ca.crt", "VMSVC_AUTHORITY": "x"}
        assert vmsvc("list", "--no-tls", "--server", plain.grpc, **aside)[0] == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--cacert", "x"), "--cacert (VMSVC_CACERT) goes with --tls"),
        (("--authority", "x"), "--authority (VMSVC_AUTHORITY) goes with --tls"),
        (("--tls", "--cert", "x"), "--cert and --key go together"),
        (("--tls", "--cacert", "/none"), "/none: No such file"),
        (("--tls", "--cacert", __file__), "holds no certificate in PEM"),
        (("--token-file", "x", "--server", "192.0.2.1:1"), "without TLS, for all to read"),
    ],
)
def test_flags_that_do_not_fit_are_usage_errors(flags: tuple[str, ...], says: str) -> None:
    code, _, errors = vmsvc("list", *flags)
    assert code == 2
    assert says in errors
    assert len(errors.splitlines()) == 1


def test_a_key_of_another_certificate_is_no_credentials(authority: Authority) -> None:
    one, other = authority.issue(), authority.issue()
    with pytest.raises(FilesError, match="do not go together"):
        credentials(cert=str(one.certificate), key=str(other.key))


async def test_a_token_file_is_read_anew_at_each_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    with ScriptedServer() as server:
        server.unary["ResolveEndpointsRequest"] = ANSWER
        async with AsyncClient(
            server.address, token=TokenFile(file), metadata=[("x-team", "shop")]
        ) as client:
            await client.resolve("shop/web")
            file.write_text("two")
            await client.resolve("shop/web")
        assert server.shown == ["Bearer one", "Bearer two"]


def tokens(*given: str) -> Iterator[str]:
    """The tokens in turn; the last one for ever."""
    yield from given
    while True:
        yield given[-1]


async def test_a_token_that_is_not_taken_is_asked_for_once_more() -> None:
    with ScriptedServer() as server:
        server.unary["ResolveEndpointsRequest"] = ANSWER
        server.accepted = "new"
        given = tokens("old", "new")
        async with AsyncClient(server.address, token=lambda: next(given)) as client:
            await client.resolve("shop/web")
        assert server.shown == ["Bearer old", "Bearer new"]
        given = tokens("old")
        failing = pytest.raises(UnauthenticatedError, match="who are you")
        with Client(server.address, token=lambda: next(given)) as sync, failing:
            sync.resolve("shop/web")
        assert server.shown[2:] == ["Bearer old", "Bearer old"]
        with Client(server.address, token="fixed") as sync, pytest.raises(UnauthenticatedError):
            sync.resolve("shop/web")
        assert server.shown[4:] == ["Bearer fixed"], "the same again cannot help"


async def test_a_token_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    async with AsyncClient("127.0.0.1:1", token=TokenFile(tmp_path / "none")) as client:
        with pytest.raises(UnauthenticatedError, match=r"token file .*none: No such file"):
            await client.resolve("shop/web")
        with pytest.raises(UnauthenticatedError, match="No such file"):
            await anext(client.watch("shop/web"))
    for text, says in ((" \n", "is empty"), ("a b", "holds no token"), ("ä", "holds no token")):
        (tmp_path / "token").write_text(text)
        with Client("127.0.0.1:1", token=TokenFile(tmp_path / "token")) as sync:
            with pytest.raises(UnauthenticatedError, match=says):
                sync.resolve("shop/web")
            with pytest.raises(UnauthenticatedError, match=says):
                next(sync.watch("shop/web"))


@pytest.mark.parametrize("server", ["192.0.2.1:1", "dns:///web.example:1", "127.0.0.1.example:1"])
def test_a_token_is_not_sent_in_the_clear_to_others(server: str) -> None:
    with pytest.raises(ValueError, match="without TLS"):
        Client(server, token="secret")
    with pytest.raises(ValueError, match="without TLS"):
        AsyncClient(server, token="secret")


async def test_a_server_that_cannot_be_trusted_is_waited_for(program: Program) -> None:
    async with AsyncClient(program.grpc, credentials=credentials()) as client:
        with pytest.raises(UnavailableError, match="not trusted"):
            await client.resolve("shop/web")
