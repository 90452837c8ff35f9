"""A credential plugin may do anything: what comes of it, in one line, and within bounds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vmsvc_grpc.kube.credentials import Kubeconfig, NoApiServer
from vmsvc_grpc.kube.plugin import PluginBounds

V1 = "client.authentication.k8s.io/v1"
# A busy machine takes more than a second to start Python.
PATIENT = PluginBounds(plugin_s=60.0, output_bytes_max=10_000)
QUICK = PluginBounds(plugin_s=1.0, output_bytes_max=10_000)
HANGS_S = 60


def answer(**status: Any) -> str:
    return json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})


def script(text: str) -> dict[str, Any]:
    return {"apiVersion": V1, "command": sys.executable, "args": ["-c", text]}


def kubeconfig(
    folder: Path, exec_: dict[str, Any], *, bounds: PluginBounds = PATIENT, **cluster: Any
) -> Kubeconfig:
    named = {"server": "https://10.0.0.1:6443", **cluster}
    file = folder / "config"
    file.write_text(
        json.dumps(
            {
                "current-context": "one",
                "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": named}],
                "users": [{"name": "u", "user": {"exec": exec_}}],
            }
        )
    )
    return Kubeconfig(str(file), bounds=bounds)


TWO_LINES = answer(token="a\nb")
SAYS = {
    "fails": ("import sys; sys.exit('no session')", "failed with exit status 1: 'no session'"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "failed with signal 9"),
    "hangs": (f"import time; time.sleep({HANGS_S})", "has not ended after 1 s"),
    "hangs in a child": (
        f"import subprocess; subprocess.run(['sleep', '{HANGS_S}'])",
        "has not ended after 1 s",
    ),
    "prints nothing": ("", "printed no ExecCredential"),
    "prints no JSON": ("print('Please log in: https://x')", "printed no ExecCredential"),
    "prints a list": ("print('[]')", "printed no ExecCredential"),
    "prints without end": (
        "import sys\nwhile True: sys.stdout.write('x' * 100000)",
        "printed more than 10000 bytes",
    ),
    "prints too much": ("print('x' * 10_001)", "printed more than 10000 bytes"),
    "complains without end": (
        "import sys\nwhile True: sys.stderr.write('x' * 100000)",
        "printed more than 10000 bytes",
    ),
    "prints what is no text": (
        'import sys; sys.stdout.buffer.write(b\'{"kind": "\\xff"}\')',
        "printed no ExecCredential",
    ),
    "nests too deep": ("print('[' * 9000)", "printed no ExecCredential"),
    "prints another kind": ('print(\'{"kind": "Status"}\')', "kind is 'Status'"),
    "prints another version": (
        f"print({answer(token='t').replace('/v1', '/v1beta1')!r})",
        "printed apiVersion 'client.authentication.k8s.io/v1beta1', and is configured for",
    ),
    "has no status": (
        f"print({json.dumps({'apiVersion': V1, 'kind': 'ExecCredential'})!r})",
        "printed an ExecCredential without status",
    ),
    "has an empty status": (f"print({answer()!r})", "neither a token nor a client certificate"),
    "has an empty token": (f"print({answer(token='')!r})", "neither a token nor"),
    "has a blank token": (f"print({answer(token=' ')!r})", "no use: token: the token is empty"),
    "has a token of two lines": (f"print({TWO_LINES!r})", "that no header may hold"),
    "has a certificate that is none": (
        f"print({answer(clientCertificateData='x', clientKeyData='y')!r})",
        "no use: the client certificate and its key cannot be used",
    ),
    "has half a pair": (f"print({answer(clientCertificateData='x')!r})", "and not both"),
    "has an expiry that is none": (
        f"print({answer(token='t', expirationTimestamp='soon')!r})",
        "printed no ExecCredential",
    ),
}


@pytest.mark.parametrize(("text", "said"), SAYS.values(), ids=SAYS.keys())
async def test_a_plugin_that_gives_nothing_is_told_in_one_line(
    text: str, said: str, tmp_path: Path
) -> None:
    began = time.monotonic()
    bounds = QUICK if "after 1 s" in said else PATIENT
    with pytest.raises(NoApiServer) as caught:
        await kubeconfig(tmp_path, script(text), bounds=bounds).load()
    sentence = str(caught.value)
    assert "credential plugin" in sentence
    assert said in sentence
    assert sentence.isprintable()
    assert caught.value.may_pass
    assert time.monotonic() - began < HANGS_S, "it is not waited for"


async def test_what_it_says_is_cut_and_escaped_and_what_it_prints_is_secret(tmp_path: Path) -> None:
    text = (
        "import sys\n"
        'print(\'{"status": {"token": "hush"\')\n'
        "sys.exit('\\x1b[31m' + 'y' * 9_000 + '\\nforged line\\u202e')"
    )
    with pytest.raises(NoApiServer) as caught:
        await kubeconfig(tmp_path, script(text)).load()
    sentence = str(caught.value)
    assert len(sentence) < 700
    assert sentence.isprintable()
    assert "hush" not in sentence
    with pytest.raises(NoApiServer) as caught:
        await kubeconfig(tmp_path, script(text.splitlines()[1])).load()
    assert "hush" not in str(caught.value)


async def test_nothing_of_one_that_hangs_is_left(tmp_path: Path) -> None:
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    text = f"import os, subprocess, sys; os.chdir({str(tmp_path)!r})\n"
    text += f"subprocess.run([sys.executable, '-c', {child!r}])"
    # A slow machine needs more time before it hangs.
    written = ""
    for plugin_s in (2.0, 8.0, 32.0):
        bounds = PluginBounds(plugin_s=plugin_s)
        with pytest.raises(NoApiServer, match="has not ended after"):
            await kubeconfig(tmp_path, script(text), bounds=bounds).load()
        written = await asyncio.to_thread(pid_in, tmp_path / "pid")
        if written:
            break
    pid = int(written)
    await until(lambda: not runs(pid))


def pid_in(file: Path) -> str:
    """The number that a process has left in a file; empty if it has not come to that."""
    return file.read_text() if file.exists() else ""


def runs(pid: int) -> bool:
    """Whether there is a process of that number that has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def test_one_that_is_not_there_comes_with_its_hint(tmp_path: Path) -> None:
    plugin = {"apiVersion": V1, "command": "no-such-plugin", "installHint": "get it\nfrom x"}
    with pytest.raises(NoApiServer, match="No such file or directory; 'get it") as caught:
        await kubeconfig(tmp_path, plugin).load()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        pytest.param({"apiVersion": V1}, "names no command", id="no command"),
        pytest.param({"command": "x"}, "exec.apiVersion ''", id="no version"),
        pytest.param({"command": "x", "apiVersion": "v9"}, "exec.apiVersion 'v9'", id="unknown"),
        pytest.param(
            {"command": "x", "apiVersion": V1, "interactiveMode": "Always"},
            "wants a terminal",
            id="a terminal",
        ),
        pytest.param(
            {"command": "x", "apiVersion": V1, "interactiveMode": "Perhaps"},
            "exec.interactiveMode 'Perhaps' is not known",
            id="an unknown mode",
        ),
        pytest.param({"command": 5, "apiVersion": V1}, "not a kubeconfig", id="not a text"),
        pytest.param(
            {"command": "x", "apiVersion": V1, "args": ["\0"]}, "no program", id="a NUL in args"
        ),
        pytest.param(
            {"command": "x", "apiVersion": V1, "env": [{"name": "A=B"}]}, "no program", id="in env"
        ),
    ],
)
async def test_one_that_is_named_wrongly_is_never_run(
    plugin: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(NoApiServer) as caught:
        await kubeconfig(tmp_path, plugin).load()
    assert said in str(caught.value)
    assert not caught.value.may_pass


async def test_what_it_is_given(tmp_path: Path) -> None:
    """Its environment, no standard input, and the cluster if it asks for that."""
    text = (
        "import json, os, sys\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "seen = [os.environ['MINE'], sys.stdin.read(), info['spec']['interactive'],\n"
        "        info['spec']['cluster']['server'], info['apiVersion']]\n"
        f"print(json.dumps({{'apiVersion': {V1!r}, 'kind': 'ExecCredential',\n"
        "       'status': {'token': '.'.join(map(str, seen))}}))"
    )
    plugin = script(text) | {"env": [{"name": "MINE", "value": "v"}], "provideClusterInfo": True}
    access = await kubeconfig(tmp_path, plugin).load()
    assert access.authorization == f"Bearer v..False.https://10.0.0.1:6443.{V1}"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """Where a plugin writes the number of its agent, which is ended after the test."""
    file = tmp_path / "pid"
    yield file
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("last", "gives"),
    [
        pytest.param("", True, id="it gives a token"),
        pytest.param("; sys.exit('no session')", False, id="it fails"),
    ],
)
async def test_what_it_leaves_in_the_background_goes_on_and_is_not_waited_for(
    last: str, gives: bool, agent: Path, tmp_path: Path
) -> None:
    """An agent that keeps the plugin's outputs open."""
    text = (
        "import subprocess, sys\n"
        "agent = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(agent)!r}, 'w').write(str(agent.pid))\n"
        f"sys.stdout.write({answer(token='t')!r} + ' ' * 9_000){last}"
    )
    loading = kubeconfig(tmp_path, script(text), bounds=PluginBounds(plugin_s=50.0)).load()
    if gives:
        assert (await loading).authorization == "Bearer t"
    else:
        with pytest.raises(NoApiServer, match="no session"):
            await loading
    assert runs(_number(agent))
    # Nothing of ours waits for its outputs any more.
    assert not _pipes("self") & _pipes(str(_number(agent)))


def _number(file: Path) -> int:
    return int(file.read_text())


def _pipes(process: str) -> set[str]:
    """The pipes that a process has open, by the kernel's names."""
    names = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.add(str(file.readlink()))
    return {name for name in names if name.startswith("pipe:")}


async def test_what_one_that_prints_too_much_has_started_ends_with_it(
    agent: Path, tmp_path: Path
) -> None:
    text = (
        "import subprocess, sys\n"
        "agent = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(agent)!r}, 'w').write(str(agent.pid))\n"
        "while True: sys.stdout.write('x' * 100000)"
    )
    with pytest.raises(NoApiServer, match="printed more than 10000 bytes"):
        await kubeconfig(tmp_path, script(text)).load()
    await until(lambda: not runs(_number(agent)))


async def test_a_command_with_a_slash_is_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    file = tmp_path / "bin" / "plugin"
    file.write_text(f"#!{sys.executable}\nprint({answer(token='beside')!r})\n")
    file.chmod(0o700)
    plugin = {"apiVersion": V1, "command": "bin/plugin"}
    assert (await kubeconfig(tmp_path, plugin).load()).authorization == "Bearer beside"


@pytest.mark.parametrize(
    ("in_s", "least_s", "most_s"),
    [
        pytest.param(3600, 3500, 3600, id="in an hour"),
        pytest.param(-3600, 10, 10, id="an hour ago: the API server has the last word"),
    ],
)
async def test_it_is_asked_again_before_what_it_gave_expires(
    in_s: float, least_s: float, most_s: float, tmp_path: Path
) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=in_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"print({answer(token='t', expirationTimestamp=at)!r})"
    access = await kubeconfig(tmp_path, script(text)).load()
    assert access.fresh_s is not None
    assert least_s <= access.fresh_s <= most_s


async def test_a_certificate_for_a_server_without_tls(tmp_path: Path) -> None:
    """It would be asked as nobody, or as whom a token beside it is of."""
    both = answer(clientCertificateData="x", clientKeyData="y", token="t")
    credentials = kubeconfig(tmp_path, script(f"print({both!r})"), server="http://10.0.0.1:8001")
    with pytest.raises(NoApiServer, match="no use: a client certificate needs https") as caught:
        await credentials.load()
    assert "credential plugin" in str(caught.value)


async def test_the_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    """The plugin waits for what the loop does only after some turns."""
    file = tmp_path / "go on"
    wait = f"import os, time\nwhile not os.path.exists({str(file)!r}): time.sleep(0.01)\n"
    plugin = kubeconfig(tmp_path, script(f"{wait}print({answer(token='t')!r})"))
    loading = asyncio.create_task(plugin.load())
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not loading.done()
    await asyncio.to_thread(file.touch)
    assert (await loading).authorization == "Bearer t"


async def test_one_that_is_cancelled_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    text = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    bounds = PluginBounds(plugin_s=60.0)
    loading = asyncio.create_task(kubeconfig(tmp_path, script(text), bounds=bounds).load())
    await until(lambda: pid_file.exists() and bool(pid_file.read_text()))
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await until(lambda: not runs(int(pid_file.read_text())))


# -- Users that are not anonymous, whatever is wrong with them. --


def of_user(folder: Path, user: dict[str, Any], *, name: str = "u", **cluster: Any) -> Kubeconfig:
    credentials = kubeconfig(folder, {}, **cluster)
    file = Path(credentials.path)
    config = json.loads(file.read_text())
    config["users"] = [{"name": name, "user": user}]
    file.write_text(json.dumps(config))
    return credentials


SECRET = base64.b64encode(b"no PEM").decode()


@pytest.mark.parametrize(
    ("user", "said"),
    [
        pytest.param({"token": " "}, "the token is empty", id="a blank token"),
        pytest.param({"token": "a\nb"}, "no header may hold", id="a token of two lines"),
        pytest.param(
            {"token": 5},
            "users[0].user.token: must be text, not a number",
            id="a token that is a number",
        ),
        pytest.param({"tokenFile": "none"}, "No such file", id="a token file that is not there"),
        pytest.param({"tokenFile": "blank"}, "blank is empty", id="a blank token file"),
        pytest.param({"tokenFile": "."}, "is no regular file", id="a directory as token file"),
        pytest.param({"token": "t", "username": "u"}, "only one can be sent", id="two ways"),
        pytest.param({"password": "p"}, "no username", id="a password of nobody"),
        pytest.param({"client-certificate": "c"}, "both are needed", id="no key"),
        pytest.param({"client-key-data": SECRET}, "both are needed", id="a key alone"),
        pytest.param(
            {"client-certificate-data": "", "client-certificate": "none", "client-key": "none"},
            "No such file",
            id="an empty text beside a file",
        ),
        pytest.param(
            {"client-certificate-data": SECRET, "client-key-data": SECRET},
            "user 'u': the client certificate and its key cannot be used",
            id="a certificate that is none",
        ),
        pytest.param(
            {"client-certificate-data": "%", "client-key-data": SECRET},
            "client-certificate-data is not text in base64",
            id="no base64",
        ),
        pytest.param({"auth-provider": {"name": "gcp"}}, "auth-provider 'gcp'", id="gcp"),
        pytest.param({"auth-provider": {}}, "auth-provider ''", id="a provider without a name"),
        pytest.param(
            {"auth-provider": {"name": "oidc"}}, "OpenID provider gives no token", id="openid"
        ),
        pytest.param({"exec": {}, "auth-provider": {"name": "oidc"}}, "only one", id="both"),
        pytest.param({"as": "root", "token": "t"}, "not supported", id="as somebody else"),
    ],
)
async def test_a_user_whose_credentials_cannot_be_had_is_not_anonymous(
    user: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "blank").write_text(" \n")
    credentials = of_user(tmp_path, user)
    with pytest.raises(NoApiServer) as caught:
        await credentials.load()
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("user", "field"),
    [
        pytest.param(
            {"client-certificate": "c", "client-key": "k"}, "client-certificate", id="files"
        ),
        pytest.param(
            {"client-certificate-data": SECRET, "client-key": "k"},
            "client-certificate-data",
            id="data",
        ),
        pytest.param(
            {"client-certificate": "c", "client-key": "k", "token": "t"},
            "client-certificate",
            id="beside a token, which may be another user's",
        ),
    ],
)
@pytest.mark.parametrize("server", ["http://10.0.0.1:8001", "HTTP://kube.example"])
async def test_a_user_with_a_certificate_is_not_anonymous_to_a_server_without_tls(
    user: dict[str, Any], field: str, server: str, tmp_path: Path
) -> None:
    credentials = of_user(tmp_path, user, server=server)
    with pytest.raises(NoApiServer) as caught:
        await credentials.load()
    assert str(caught.value) == (
        f"kubeconfig {credentials.path} cannot be used: user 'u': {field}: a client certificate "
        "needs https; server of cluster 'c' is an http URL"
    )


async def test_a_server_without_tls_is_given_a_token(tmp_path: Path) -> None:
    access = await of_user(tmp_path, {"token": "t"}, server="http://10.0.0.1:8001").load()
    assert access.authorization == "Bearer t"


@pytest.mark.parametrize(
    ("user", "said"),
    [
        pytest.param({"tokn": "t"}, "'tokn' is not a field there; did you mean token?", id="tokn"),
        pytest.param(
            {"Token": "t"}, "'Token' is not a field there; did you mean token?", id="case"
        ),
        pytest.param(
            {"token-file": "t"},
            "'token-file' is not a field there; did you mean tokenFile?",
            id="kebab case",
        ),
        pytest.param(
            {"authProvider": {"name": "oidc"}},
            "'authProvider' is not a field there; did you mean auth-provider?",
            id="camel case",
        ),
        pytest.param({"secret": "s"}, "'secret' is not a field there", id="a field of nobody's"),
        pytest.param({"\x1b\n": "s"}, "'\\x1b\\n' is not a field there", id="escaped"),
        pytest.param({"token": ""}, "token is empty; fill it in, or leave it out", id="empty"),
        pytest.param({"token": None}, "token is empty", id="null"),
        pytest.param({"token": " \t"}, "token: the token is empty", id="blank"),
        pytest.param({"tokenFile": ""}, "tokenFile is empty", id="an empty name of a file"),
        pytest.param({"username": "", "password": ""}, "username is empty", id="no name"),
        pytest.param({"exec": None}, "exec is empty", id="no plugin"),
        pytest.param({"auth-provider": None}, "auth-provider is empty", id="no provider"),
        pytest.param(
            {"client-certificate-data": "", "client-key-data": ""},
            "client-certificate-data is empty",
            id="an empty certificate",
        ),
        pytest.param(
            {"extensions": [], "tokn": "t"}, "'tokn' is not a field there", id="beside extensions"
        ),
    ],
)
async def test_a_user_that_seems_to_name_credentials_is_not_anonymous(
    user: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Issue 9, point 22. kubectl asks the terminal for a name and a password in each case."""
    credentials = of_user(tmp_path, user)
    with pytest.raises(NoApiServer) as caught:
        await credentials.load()
    # By then it is known which context is the current one, or it is not.
    assert str(caught.value).startswith(f"kubeconfig {credentials.path}")
    assert f" cannot be used: user 'u': {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("users", "context", "said"),
    [
        pytest.param(
            [{"name": "u", "token": "t"}],
            {"cluster": "c", "user": "u"},
            "user 'u': token stands beside user; move it into that",
            id="a token a level too high",
        ),
        pytest.param(
            [{"name": "u", "User": {"token": "t"}}],
            {"cluster": "c", "user": "u"},
            "user 'u': 'User' is not a field there",
            id="another word for user",
        ),
        pytest.param(
            [{"name": "u", "user": {"token": "t"}}],
            {"cluster": "c", "usr": "u"},
            "context 'one': 'usr' is not a field there; did you mean user?",
            id="a context that nearly names a user",
        ),
        pytest.param(
            [{"name": "u", "user": {"token": "t"}}],
            {"cluster": "c", "user": ""},
            "context 'one': user is empty; fill it in, or leave it out",
            id="a context whose user is empty",
        ),
        pytest.param(
            [{"name": "u", "user": {"token": "t"}}],
            {"cluster": "c"},
            "context 'one' names no user, and there is user 'u'; add user to the context; to ask "
            "as nobody, name a user without fields",
            id="a context without user, although there is one",
        ),
        pytest.param(
            [{"name": "u", "user": {"token": "t"}}],
            {"cluster": "c", "user": "u", "namespace": "../kube-system"},
            "context 'one': namespace is no name of one: '../kube-system'",
            id="a namespace that is none",
        ),
    ],
)
async def test_who_asks_may_stand_in_the_wrong_place(
    users: list[Any], context: dict[str, Any], said: str, tmp_path: Path
) -> None:
    credentials = changed(of_user(tmp_path, {}), users=users, context=context)
    with pytest.raises(NoApiServer) as caught:
        await credentials.load()
    assert f"cannot be used: {said}" in str(caught.value)


def changed(credentials: Kubeconfig, *, users: list[Any], context: dict[str, Any]) -> Kubeconfig:
    """The same file with other users, and another current context."""
    file = Path(credentials.path)
    config = json.loads(file.read_text())
    config |= {"users": users, "contexts": [{"name": "one", "context": context}]}
    config["current-context"] = "one"
    file.write_text(json.dumps(config))
    return credentials


@pytest.mark.parametrize("user", [{}, None, {"extensions": []}], ids=str)
async def test_a_user_of_no_fields_asks_as_nobody(user: Any, tmp_path: Path) -> None:
    """As where `kubectl proxy` or a proxy of the same sort knows who asks."""
    access = await of_user(tmp_path, user).load()
    assert access.authorization == ""


async def test_a_context_without_user_asks_as_nobody_where_there_are_no_users(
    tmp_path: Path,
) -> None:
    credentials = changed(of_user(tmp_path, {}), users=[], context={"cluster": "c"})
    assert (await credentials.load()).authorization == ""


async def test_a_user_that_is_nowhere_is_not_anonymous(tmp_path: Path) -> None:
    credentials = of_user(tmp_path, {}, name="another")
    with pytest.raises(NoApiServer, match="it has no user 'u'; it has 'another'"):
        await credentials.load()


async def test_a_file_with_a_token_goes_before_the_token(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("fresh\n")
    credentials = of_user(tmp_path, {"token": "old", "tokenFile": "t"})
    assert (await credentials.load()).authorization == "Bearer fresh"


# -- Several files, and files that are none. --


async def test_of_several_files_the_first_that_has_a_value_counts(tmp_path: Path) -> None:
    """As kubectl reads `KUBECONFIG`; paths are relative to their own file."""
    for name, token in (("a", "one"), ("b", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(token)
    cluster = {"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}}
    other = {"name": "c", "cluster": {"server": "https://10.0.0.2:6443"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"tokenFile": "token"}}
    (tmp_path / "a" / "config").write_text(json.dumps({"clusters": [cluster]}))
    second = {"clusters": [other], "users": [user], "contexts": [context], "current-context": "x"}
    (tmp_path / "b" / "config").write_text(json.dumps(second))
    (tmp_path / "empty").write_text("")
    names = ("none", "empty", "a/config", "b/config")
    access = await Kubeconfig(os.pathsep.join(str(tmp_path / name) for name in names)).load()
    assert access.host == "https://10.0.0.1:6443"
    assert access.authorization == "Bearer two"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("users: [\n", "it is no YAML in line 2", id="cut off"),
        pytest.param("a: b: c", "it is no YAML in line 1", id="a mapping in a mapping"),
        pytest.param("- 1", "it is not a kubeconfig", id="a list"),
        pytest.param(
            "users: {a: b}", "users: must be a list, not a mapping", id="users that are no list"
        ),
        pytest.param("\0", "it is no YAML", id="a NUL"),
        pytest.param("users: [{name: u}, {name: u}]\n", "no current-context", id="two of a name"),
    ],
)
async def test_what_is_no_kubeconfig_is_told_in_one_line(
    text: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(NoApiServer) as caught:
        await Kubeconfig(str(file)).load()
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        pytest.param({"server": ""}, "server is not an http or https URL", id="no server"),
        pytest.param({"server": "10.0.0.1"}, "server is not an http", id="no URL"),
        pytest.param({"server": "https://h:99999"}, "server is not an http", id="no port"),
        pytest.param({"server": "https://h ost:1"}, "server is not an http", id="no host name"),
        pytest.param({"server": "https://h\u202e:1"}, "server is not an http", id="no character"),
        pytest.param({"server": f"https://{'h' * 64}"}, "server is not an http", id="a long label"),
        pytest.param({"server": "https://h..h:1"}, "server is not an http", id="an empty label"),
        pytest.param({"tls-server-name": "h h"}, "is no name of a host: 'h h'", id="no TLS name"),
        pytest.param(
            {"tls-server-name": "h" * 64}, "tls-server-name is no name", id="a long TLS name"
        ),
        pytest.param(
            {"server": f"https://a:{SECRET}@h:1"},
            "server names a user, which belongs under users: 'https://...@h:1'",
            id="a password",
        ),
        pytest.param({"server": "https://h/?a=b"}, "has more in it than host", id="a query"),
        pytest.param({"proxy-url": "socks5://h:1"}, "proxy-url is not an http", id="SOCKS"),
        pytest.param(
            {"proxy-url": "http://%E4%B8%AD@h:1"}, "no header may hold", id="a user of letters"
        ),
        pytest.param(
            {"proxy-url": f"socks5://a:{SECRET}@h:1"}, "URL: 'socks5://...@h:1'", id="its password"
        ),
        pytest.param({"certificate-authority": "none"}, "No such file", id="no CA file"),
        pytest.param(
            {"certificate-authority-data": SECRET},
            "the certificate authority cannot be read",
            id="a CA that is none",
        ),
    ],
)
async def test_a_cluster_that_cannot_be_asked(
    cluster: dict[str, Any], said: str, tmp_path: Path
) -> None:
    plugin = script(f"print({answer(token='t')!r})")
    with pytest.raises(NoApiServer) as caught:
        await kubeconfig(tmp_path, plugin, **cluster).load()
    assert said in str(caught.value)
