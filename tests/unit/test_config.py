"""What the command line and the environment may say, and the errors where they are wrong."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from vmsvc.options import parse as client_options
from vmsvc_grpc import __main__ as command
from vmsvc_grpc import flags, render
from vmsvc_grpc.config import Config, ConfigError, ListenAddress
from vmsvc_grpc.kube.credentials import InCluster, Kubeconfig
from vmsvc_grpc.model.objects import IPFamily
from vmsvc_grpc.model.problem import MESSAGE_CHARACTERS_MAX
from vmsvc_grpc.readers import address, addresses, domain, ip_families, trust_domain
from vmsvc_grpc.reconciler.copying import Copying
from vmsvc_grpc.server.limits import Limits


@pytest.fixture(autouse=True)
def _no_log_is_left() -> Iterator[None]:
    """`serve` begins the log of a process, which here has other tests to run."""
    root = logging.getLogger()
    ours = logging.getLogger("vmsvc_grpc")
    before = root.level, ours.level, list(root.handlers)
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(False)
    root.setLevel(before[0])
    ours.setLevel(before[1])
    root.handlers[:] = before[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:50051", ListenAddress("127.0.0.1", 50051)),
        ("[::1]:0", ListenAddress("::1", 0)),
        ("localhost:80", ListenAddress("localhost", 80)),
        ("0.0.0.0:65535", ListenAddress("0.0.0.0", 65535)),
    ],
)
def test_an_address(text: str, expected: ListenAddress) -> None:
    assert address(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1",
        "127.0.0.1:",
        ":1",
        "127.0.0.1:http",
        "h:1",
        "127.0.0.1:65536",
        "127.0.0.1:²",
        pytest.param("127.0.0.1:" + "9" * 5_000, id="5,000 digits"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="is not"):
        address(text)


@pytest.mark.parametrize("text", ["cluster.local", "Cluster.Local.", "k8s", "a-1.example.org"])
def test_a_cluster_domain(text: str) -> None:
    assert domain(text) == text.lower().removesuffix(".")


@pytest.mark.parametrize("text", ["", ".", "a..b", "-a", "a_b", "x" * 64, ".a", "a b", "b." * 200])
def test_what_is_no_cluster_domain(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a DNS domain"):
        domain(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.9:1", True), ("[::1]:1", True), ("localhost:1", True), ("0.0.0.0:1", False)],
)
def test_which_addresses_others_can_reach(text: str, loopback: bool) -> None:
    assert address(text).loopback is loopback


def test_families() -> None:
    assert ip_families("IPv6, IPv4") == (IPFamily.IPV6, IPFamily.IPV4)
    for text in ("IPv5", "IPv4,IPv4", "ipv4"):
        with pytest.raises(ConfigError, match="IPv4 and IPv6"):
            ip_families(text)


def test_addresses_may_be_named_in_a_list_each_once() -> None:
    assert addresses("127.0.0.1:1, [::1]:1,127.0.0.1:0,127.0.0.1:0") == (
        ListenAddress("127.0.0.1", 1),
        ListenAddress("::1", 1),
        ListenAddress("127.0.0.1", 0),
        ListenAddress("127.0.0.1", 0),
    )
    for text, says in (
        ("127.0.0.1:1,127.0.0.1:1", "is there 2 times"),
        ("127.0.0.1:1 [::1]:1", "has blanks in it; put commas between them"),
    ):
        with pytest.raises(ConfigError, match=says):
            addresses(text)


def test_listen_may_be_repeated(tmp_path: Path) -> None:
    both = (ListenAddress("127.0.0.1", 1), ListenAddress("::1", 2))
    given = ["--manifests", str(tmp_path)]
    assert settings([*given, "--listen", "127.0.0.1:1", "--listen=[::1]:2"]).listen == both
    environment = {"VMSVC_GRPC_LISTEN": "127.0.0.1:1,[::1]:2"}
    assert settings(given, environment).listen == both


def test_each_address_that_others_can_reach_needs_to_be_meant(tmp_path: Path) -> None:
    both = (ListenAddress("127.0.0.1", 50051), ListenAddress("0.0.0.0", 50052))
    with pytest.raises(ConfigError, match=r"--listen 0\.0\.0\.0:50052 .* add --insecure"):
        Config(manifests=tmp_path, listen=both)


def test_an_address_that_others_can_reach_needs_to_be_meant(tmp_path: Path) -> None:
    everywhere = ListenAddress("0.0.0.0", 50051)
    with pytest.raises(ConfigError, match=r"needs TLS .* and --auth; or add --insecure"):
        Config(manifests=tmp_path, listen=(everywhere,))
    assert Config(manifests=tmp_path, listen=(everywhere,), insecure=True).listen == (everywhere,)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="neither TLS nor auth"),
        pytest.param({"tls_cert": Path("a"), "tls_key": Path("b")}, id="TLS only"),
    ],
)
def test_the_address_of_http_is_no_exception(tmp_path: Path, given: dict[str, Any]) -> None:
    everywhere = ListenAddress("0.0.0.0", 8080)
    with pytest.raises(ConfigError, match=r"^--http-listen 0\.0\.0\.0:8080 .* add --insecure"):
        Config(manifests=tmp_path, http_listen=everywhere, **given)
    meant = Config(manifests=tmp_path, http_listen=everywhere, insecure=True, **given)
    assert meant.exposed == (everywhere,)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("given", [{}, {"insecure": True}], ids=["plain", "insecure"])
def test_the_page_is_never_where_others_can_reach_it(
    tmp_path: Path, host: str, given: dict[str, Any]
) -> None:
    """It asks nobody who they are, and --insecure is about what can be asked for by machines."""
    with pytest.raises(ConfigError, match=r"^--page-listen .* other machines.* use 127\.0\.0\.1"):
        Config(manifests=tmp_path, page_listen=ListenAddress(host, 8090), **given)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.5.0.1"])
def test_the_page_is_on_loopback_without_tls(tmp_path: Path, host: str) -> None:
    here = ListenAddress(host, 8090)
    assert Config(manifests=tmp_path, page_listen=here).page_listen == here
    pair: dict[str, Any] = {"tls_cert": Path("a"), "tls_key": Path("b")}
    with pytest.raises(ConfigError, match=r"^--page-listen: the page has no TLS; write "):
        Config(manifests=tmp_path, page_listen=here._replace(tls=True), **pair)


@pytest.mark.parametrize("output", [".", "out", ".."])
def test_output_and_manifests_must_not_lie_in_one_another(tmp_path: Path, output: str) -> None:
    with pytest.raises(ConfigError, match="lie in one another"):
        Config(manifests=tmp_path, output=tmp_path / output)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.write_text(""), id="a file"),
        pytest.param(os.mkfifo, id="a FIFO"),
        pytest.param(lambda path: path.symlink_to("nowhere"), id="a link to nowhere"),
    ],
)
def test_output_must_be_a_directory_if_it_is_there(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    (tmp_path / "manifests").mkdir()
    make(tmp_path / "out")
    with pytest.raises(ConfigError, match="out is there, but is no directory; name one"):
        Config(manifests=tmp_path / "manifests", output=tmp_path / "out")


def test_manifests_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a directory"):
        Config(manifests=tmp_path / "none")


def settings(arguments: list[str], environment: dict[str, str] | None = None) -> Config:
    parsed = command.parser().parse_args(["serve", *arguments])
    given = flags.settings(flags.SERVE, parsed, environment or {})
    return command.config(given, environment or {})


def test_a_flag_wins_over_the_environment_and_that_over_the_default(tmp_path: Path) -> None:
    environment = {
        "VMSVC_GRPC_MANIFESTS": str(tmp_path),
        "VMSVC_GRPC_DRAIN_S": "3",
        "VMSVC_GRPC_ALLOW_LOOPBACK": "true",
        "VMSVC_GRPC_STREAMS_MAX": "7",
    }
    config = settings(["--drain-s", "4"], environment)
    assert config.manifests == tmp_path
    assert config.drain_s == 4.0
    assert config.rules.allow_loopback is True
    assert config.limits.streams_max == 7
    assert config.settle_s == 0.2


def test_no_variable_of_ours_is_one_of_the_client(capsys: pytest.CaptureFixture[str]) -> None:
    """`VMSVC_OUTPUT` was a directory to one program, and a format to the other."""
    with pytest.raises(SystemExit):
        client_options(["--help"], {}, terminal=False)
    the_clients = set(re.findall("VMSVC_[A-Z_]+", capsys.readouterr().out))
    assert {"VMSVC_OUTPUT", "VMSVC_NAMESPACE"} <= the_clients
    ours = {flag.variable for flag in (*flags.SERVE, *flags.RENDER, *flags.RELEASE)}
    assert all(name.startswith("VMSVC_GRPC_") for name in ours)
    assert not ours & the_clients


@pytest.mark.parametrize(
    ("arguments", "others"),
    [
        (["serve", "--manifests", "none"], [*flags.SERVE]),
        (["render", "none"], [*flags.RENDER]),
        (["release", "--namespace", "A"], [*flags.RELEASE]),
    ],
)
def test_a_variable_by_its_name_of_before_sets_nothing_and_is_named(
    arguments: list[str],
    others: list[flags.Flag],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VMSVC_SERVER", "the client's alone")
    status = command.main(arguments)
    before = capsys.readouterr().err.splitlines()
    for flag in others:
        monkeypatch.setenv(flag.variable.replace("_GRPC_", "_", 1), "neither read nor checked")
    assert command.main(arguments) == status
    shown = capsys.readouterr().err.splitlines()
    assert shown[len(others) :] == before
    for flag, line in zip(others, shown, strict=False):
        other = flag.variable.replace("_GRPC_", "_", 1)
        assert line.startswith(f"vmsvc-grpc {arguments[0]}: {other} is not read here; ")
        assert line.endswith(f"the variable of {flag.name} is {flag.variable}")


def test_of_two_variables_the_one_without_grpc_is_the_clients() -> None:
    environment = {"VMSVC_OUTPUT": "json", "VMSVC_GRPC_OUTPUT": "out"}
    assert flags.misnamed(flags.SERVE, environment) == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(OSError(24, "Too many open files"), "Too many open files", id="no file"),
        pytest.param(
            PermissionError(13, "Permission denied", "/a\n"),
            "/a\\n: Permission denied",
            id="a file",
        ),
    ],
)
def test_an_error_of_the_system_is_one_line_and_not_about_our_output(
    error: OSError, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(render, "render", fail)
    assert command.main(["render", "x"]) == 1
    assert capsys.readouterr() == ("", f"vmsvc-grpc render: {told}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--drain", "3"], "no flag --drain (did you mean --drain-s?); see vmsvc-grpc se"),
        (["render", "--deny-annotation=a", "x"], "(did you mean --deny-annotations?)"),
        (["release", "--dry"], "(did you mean --dry-run?); see vmsvc-grpc release --help"),
        (["--manifests", "x", "serve"], "no flag --manifests; see vmsvc-grpc --help"),
        (["serve", "examples"], "unrecognized arguments: examples; see vmsvc-grpc serve --help"),
        (["release", "--ye\x1b[2J\n\ud800"], "--ye\\x1b[2J\\n\\ud800"),
        (["served\n"], "served\\n"),
        (["serv"], "there is no command serv (did you mean serve?); see vmsvc-grpc --help"),
        (["serve", "--insecure=\u202e"], "\\u202e"),
        (["serve", "--listen"], "--listen"),
        ([], "COMMAND"),
    ],
)
def test_a_flag_is_written_out_and_a_wrong_one_is_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    shown = capsys.readouterr()
    [line] = shown.err.splitlines()
    assert line.isprintable()
    assert line.startswith("vmsvc-grpc: ")
    assert named in line
    assert line.endswith(" --help")
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {"KUBECONFIG": "none"}, "no API server to read from: this is no pod"),
        (["--output", "held"], {"KUBECONFIG": "none"}, "--output goes with --manifests"),
        (["--drain-s", "-1"], {}, "--drain-s: '-1' is not a number of seconds from 0 to 1000000"),
        (["--drain-s", "nan"], {}, "--drain-s: 'nan' is not a number of seconds"),
        (["--drain-s", "soon"], {}, "--drain-s: 'soon' is not a number"),
        (["--watch-silence-s", "0.5"], {}, "--watch-silence-s: '0.5' is not a number of seconds"),
        ([], {"VMSVC_GRPC_DRAIN_S": "soon"}, "VMSVC_GRPC_DRAIN_S: 'soon' is not a number"),
        ([], {"VMSVC_GRPC_INSECURE": "perhaps"}, "VMSVC_GRPC_INSECURE: 'perhaps' is neither true"),
        (
            ["--streams-max", "0"],
            {},
            "--streams-max: '0' is not a whole number from 1 to 1000000000",
        ),
        (["--namespace", "Shop"], {}, "'Shop' cannot be a namespace; use at most 63 lower-case"),
        (
            ["--namespace", "shop,lab"],
            {},
            "where an object is that names no namespace, so give one",
        ),
        (["--context", "shop"], {}, "--context is for an API server, not for --manifests"),
        (
            ["--endpoint-slices", "direct"],
            {},
            "--endpoint-slices=direct is for an API server, not for --manifests",
        ),
        (
            [],
            {"VMSVC_GRPC_RECONCILE": "on"},
            "--reconcile is for an API server, not for --manifests",
        ),
        (["--lease-name", "a"], {}, "--lease-name is for an API server, not for --manifests"),
        (["--lease-name", "A b"], {}, "--lease-name: 'A b' cannot be the name of a Kubernetes ob"),
        (["--lease-namespace", "a.b"], {}, "--lease-namespace: 'a.b' cannot be a namespace"),
        (["--lease-namespace", ""], {}, "--lease-namespace: '' cannot be a namespace"),
        (["--reconcile", "yes"], {}, "--reconcile: 'yes' is not known; use on or off"),
        (["--load-balancer-provider", "x"], {}, "'x' is not known; use nsx-t-lb"),
        (["--deny-labels", ""], {}, "--deny-labels: '' names no pattern"),
        (["--deny-labels", "a", "--deny-labels", "b c"], {}, "--deny-labels: 'b c' has blanks in"),
        (
            [],
            {"VMSVC_GRPC_DENY_ANNOTATIONS": "a,,b"},
            "VMSVC_GRPC_DENY_ANNOTATIONS: 'a,,b' has an empty pattern before or after a comma",
        ),
        ([], {"VMSVC_GRPC_LISTEN": "  "}, "VMSVC_GRPC_LISTEN: '  ' names no address"),
        (["--ip-families", "IPv4,"], {}, "'IPv4,' has an empty address family before or after"),
        (["--ip-families", "IPv4 IPv6"], {}, "'IPv4 IPv6' has blanks in it; put commas between"),
        (["--namespace", "shop data"], {}, "'shop data' has blanks in it; put commas between them"),
        (["--token-audience", ",a"], {}, "--token-audience: ',a' has an empty audience"),
        (["--deny-annotations", "a=b"], {}, "--deny-annotations: 'a=b' matches no key"),
        (["--deny-annotations", "a.io/"], {}, "'a.io/' matches no key; write for instance"),
        (["--deny-labels", "/team"], {}, "--deny-labels: '/team' matches no key"),
        (["--deny-labels", "["], {}, "--deny-labels: '[' matches no key; write for instance"),
        (["--deny-labels", "a,a]"], {}, "--deny-labels: 'a]' matches no key"),
        (["--deny-annotations", "!x"], {}, "--deny-annotations: '!x' matches no key"),
        (["--deny-annotations", "a/b/c"], {}, "--deny-annotations: 'a/b/c' matches no key"),
        (["--deny-labels", "Example.com/*"], {}, "--deny-labels: 'Example.com/*' matches no key"),
        (
            [],
            {"VMSVC_GRPC_XDS_SCOPE": "lab"},
            "VMSVC_GRPC_XDS_SCOPE: 'lab' is not known; use all o",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    manifests = [] if "KUBECONFIG" in environment else ["--manifests", str(tmp_path)]
    with pytest.raises(ConfigError) as caught:
        settings([*manifests, *arguments], environment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_copied(tmp_path: Path) -> None:
    arguments = ["--manifests", str(tmp_path)]
    several = ["--deny-labels", "team", "--deny-labels", "*.io/*,team"]
    given = settings([*arguments, *several], {"VMSVC_GRPC_DENY_ANNOTATIONS": "a/*, b-?"})
    assert given.copying == Copying(
        denied_labels=("team", "*.io/*"), denied_annotations=("a/*", "b-?")
    )
    assert settings(arguments).copying == Copying()


def test_every_limit_is_a_flag(tmp_path: Path) -> None:
    arguments = ["--manifests", str(tmp_path)]
    for number, limit in enumerate(fields(Limits), start=1):
        arguments += [f"--{limit.name.replace('_', '-')}", str(number)]
    limits = settings(arguments).limits
    assert [getattr(limits, limit.name) for limit in fields(Limits)] == list(
        range(1, len(fields(Limits)) + 1)
    )
    assert settings(["--manifests", str(tmp_path)]).limits == Limits()


def test_help_tells_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["serve", "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for flag in flags.SERVE:
        assert flag.name in shown
        assert not flag.default or f"(default: {flag.default})" in shown


def test_a_wrong_setting_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["serve", "--manifests", "no-such-directory"]) == 2
    shown = capsys.readouterr().err
    assert shown == "vmsvc-grpc serve: --manifests: no-such-directory is not a directory\n"


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text("apiVersion: v1\nkind: Config\n")
    return path


def test_without_manifests_an_api_server_is_used_and_a_look_from_a_laptop_writes_nothing(
    kubeconfig: Path,
) -> None:
    config = settings(["--kubeconfig", str(kubeconfig), "--namespace", "b", "--namespace", "a,b"])
    assert str(config.credentials) == f"kubeconfig {kubeconfig}"
    assert config.namespaces == ("b", "a")
    assert config.reconcile is False
    assert config.watch_silence_s == 75.0
    writing = ["--kubeconfig", str(kubeconfig), "--reconcile", "on"]
    with pytest.raises(ConfigError, match="outside a cluster: name the Lease's namespace by --lea"):
        settings(writing)
    config = settings([*writing, "--lease-namespace", "vmsvc-grpc", "--lease-name", "mine.1"])
    assert config.reconcile is True
    assert (config.lease_namespace, config.lease_name) == ("vmsvc-grpc", "mine.1")


def test_a_pod_knows_the_namespace_of_the_lease(tmp_path: Path) -> None:
    pod = InCluster("10.96.0.1:443", tmp_path)
    config = Config(credentials=pod, reconcile=True)
    assert (config.lease_namespace, config.lease_name) == (None, None)


def test_what_does_not_go_with_an_api_server(kubeconfig: Path, tmp_path: Path) -> None:
    common = ["--kubeconfig", str(kubeconfig)]
    with pytest.raises(
        ConfigError, match="--lease-duration-s: '61' is not a number of seconds from"
    ):
        settings([*common, "--lease-duration-s", "61"])
    with pytest.raises(ConfigError, match="--output goes with --manifests"):
        settings([*common, "--output", str(tmp_path / "out")])
    with pytest.raises(ConfigError, match="refuses Endpoints with loopback"):
        settings([*common, "--allow-loopback", "--reconcile", "on"])


EXTREME = [
    "",
    " ",
    "-1",
    "+1",
    "1_000",
    "1e3",
    "1e400",
    "0x10",
    "nan",
    "inf",
    "-inf",
    "²",
    "\uff11\uff10",
    "9" * 16,
    "9" * 5000,
    "0." + "1" * 5000,
    "1\n2",
    "\x1b[2J",
]
# Of texts that no number is: what may stand in a name, a path or a list, or may not.
STRANGE = [
    *EXTREME,
    "\udcff",
    "a" * 5000,
    "a/" * 5000,
    ",",
    "a,,b",
    "[",
    "*",
    "%s{}",
    ":0",
    "localhost\n:5",
    "[fe80::1%\x1b]:1",
    "\u202e",
    "/dev/null",
    "~nobody-of-that-name/x",
]
COMMANDS = [
    pytest.param(["serve", "--manifests", "."], flags.SERVE, id="serve, files"),
    pytest.param(["serve", "--kubeconfig", "/dev/null"], flags.SERVE, id="serve, cluster"),
    pytest.param(["render", "/dev/null"], flags.RENDER, id="render"),
    pytest.param(["release"], flags.RELEASE, id="release"),
]


@pytest.mark.parametrize(("arguments", "known"), COMMANDS)
@pytest.mark.parametrize("text", STRANGE, ids=lambda text: ascii(text[:20]))
def test_whatever_is_set_is_taken_or_refused_in_one_line(
    arguments: list[str], known: list[flags.Flag], text: str
) -> None:
    parsed = command.parser().parse_args(arguments)
    for flag in known:
        refusal = refused(parsed, known, flag, text)
        assert refusal.isprintable()
        assert len(refusal) <= MESSAGE_CHARACTERS_MAX


def refused(parsed: Namespace, known: list[flags.Flag], flag: flags.Flag, text: str) -> str:
    """Why a flag cannot be set so; empty if it can."""
    try:
        given = flags.settings(known, Namespace(**{**vars(parsed), flag.dest: text}), {})
        if parsed.command == "serve":
            command.config(given, {})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", ["", " ", "a" * 5000, "a/" * 5000])
def test_what_names_no_file_is_not_rendered(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["render", text]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vmsvc-grpc render: '")


@pytest.mark.parametrize("text", ["", " "])
@pytest.mark.parametrize("flag", ["--manifests", "--output"])
def test_an_empty_path_is_not_the_working_directory(flag: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag}: '{text}' names no file or directory"):
        settings([flag, text])


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "loop/out", "n" * 300):
        with pytest.raises(ConfigError, match=r"--output: '.*' cannot be looked at: "):
            settings(["--manifests", str(tmp_path), "--output", str(tmp_path / name)])


def test_a_level_is_known_in_either_case(tmp_path: Path) -> None:
    parsed = command.parser().parse_args(["serve", "--log-level", "WARNING"])
    assert flags.settings(flags.SERVE, parsed, {})["log_level"] == "WARNING"
    with pytest.raises(ConfigError, match="'notset' is not known; use one of debug, info, warni"):
        settings(["--manifests", str(tmp_path), "--log-level", "notset"])


NUMBERS = [flag for flag in flags.SERVE if flag.metavar in ("N", "SECONDS")]


@pytest.mark.parametrize("flag", NUMBERS, ids=lambda flag: flag.name)
@pytest.mark.parametrize("text", EXTREME, ids=ascii)
def test_an_extreme_number_is_refused_in_our_words(
    flag: flags.Flag, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["serve", "--manifests", str(tmp_path), f"{flag.name}={text}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vmsvc-grpc serve: {flag.name}: ")
    assert " is not a " in line
    assert " from " in line
    assert line.isprintable()
    assert len(line) < 400


@pytest.mark.parametrize("flag", NUMBERS, ids=lambda flag: flag.name)
def test_every_number_has_a_largest_value_that_every_part_can_take(flag: flags.Flag) -> None:
    most = next(n for n in (1e9, 1e6, 3600.0, 1e3, 60.0) if taken(flag, f"{n:.0f}"))
    assert not taken(flag, f"{most + 1:.0f}")
    # gRPC counts in 31 bits, and seconds as milliseconds.
    assert most * (1000 if flag.metavar == "SECONDS" else 1) < 2**31


def taken(flag: flags.Flag, text: str) -> bool:
    try:
        flag.convert(text)
    except ConfigError:
        return False
    return True


def test_of_manifests_a_namespace_is_where_objects_are_that_name_none(tmp_path: Path) -> None:
    config = settings(["--manifests", str(tmp_path), "--namespace", "shop"])
    assert (config.manifests_namespace, config.namespaces) == ("shop", ())
    config = settings(["--manifests", str(tmp_path)])
    assert config.manifests_namespace == "default"


FILES: dict[str, Any] = {"tls_cert": Path("tls.crt"), "tls_key": Path("tls.key")}


@pytest.mark.parametrize(
    ("text", "tls"),
    [
        ("127.0.0.1:1", False),
        ("[::1]:1", False),
        ("tls://127.0.0.1:1", True),
        ("tls://[::1]:1", True),
        ("0.0.0.0:1", True),
        ("tls://0.0.0.0:1", True),
        ("[::]:1", True),
    ],
)
def test_which_listeners_use_tls(tmp_path: Path, text: str, tls: bool) -> None:
    listen = (address(text),)
    config = Config(manifests=tmp_path, listen=listen, insecure=True, **FILES)
    assert config.uses_tls(listen[0]) is tls
    assert str(listen[0]) == text.removeprefix("tls://")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tls_cert": Path("a")}, "--tls-cert goes with --tls-key"),
        ({"tls_key": Path("a")}, "--tls-key goes with --tls-cert"),
        ({"client_ca": Path("a")}, "--client-ca goes with --tls-cert and --tls-key"),
        ({"listen": (address("tls://127.0.0.1:1"),)}, "tls://127.0.0.1:1 needs --tls-cert"),
        ({"http_listen": address("tls://127.0.0.1:1")}, "tls://127.0.0.1:1 needs --tls-cert"),
        ({"listen": (address("0.0.0.0:1"),)}, "needs TLS"),
        ({**FILES, "listen": (address("0.0.0.0:1"),)}, "and --auth"),
        ({**FILES, "listen": (address("0.0.0.0:1"),), "transport": "grpcio"}, "no TLS, and"),
        (
            {"insecure": True, "listen": (address("0.0.0.0:1"),), "transport": "grpcio"},
            "on loopback only",
        ),
    ],
)
def test_settings_of_tls_that_do_not_fit_are_refused(
    tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        Config(manifests=tmp_path, **given)
    assert "\n" not in str(error.value)


CREDENTIALS = Kubeconfig("~/.kube/config")
ANYWHERE = (address("0.0.0.0:1"),)


@pytest.mark.parametrize(
    ("text", "guarded", "exposed"),
    [
        pytest.param("127.0.0.1:1", False, False, id="loopback is plain, and open"),
        pytest.param("tls://127.0.0.1:1", True, False, id="unless it is meant"),
        pytest.param("0.0.0.0:1", True, False, id="others are guarded"),
    ],
)
def test_which_listeners_ask_who_calls(text: str, guarded: bool, exposed: bool) -> None:
    listen = (address(text), address("tls://127.0.0.1:2"))
    config = Config(credentials=CREDENTIALS, listen=listen, auth="kubernetes", **FILES)
    assert config.guards(listen[0]) is guarded
    assert bool(config.exposed) is exposed
    open_to_all = Config(credentials=CREDENTIALS, listen=listen, insecure=True, **FILES)
    assert not open_to_all.guards(listen[0])


def test_what_others_reach_without_tls_or_auth_is_exposed() -> None:
    plain = Config(credentials=CREDENTIALS, listen=ANYWHERE, auth="kubernetes", insecure=True)
    assert (plain.guards(ANYWHERE[0]), plain.exposed) == (True, ANYWHERE)
    unasked = Config(credentials=CREDENTIALS, listen=ANYWHERE, insecure=True, **FILES)
    assert (unasked.guards(ANYWHERE[0]), unasked.exposed) == (False, ANYWHERE)


def test_auth_may_be_for_http_alone() -> None:
    given: dict[str, Any] = {"http_listen": ANYWHERE[0], "auth": "kubernetes", **FILES}
    config = Config(credentials=CREDENTIALS, **given)
    assert (config.guards(ANYWHERE[0]), config.exposed) == (True, ())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"auth": "kubernetes"}, "--auth=kubernetes asks nobody"),
        ({"auth": "kubernetes", "listen": ANYWHERE}, "it needs TLS"),
        ({"token_audience": ("a",)}, "--token-audience goes with --auth=kubernetes"),
        ({"auth_stale_s": 1.0}, "--auth-stale-s goes with --auth=kubernetes"),
        ({**FILES, "auth": "certificates"}, "goes with --client-ca and --auth-policy"),
        ({"auth_policy": Path("a")}, "--auth-policy goes with --auth=certificates"),
        ({"client_ca_of_cluster": True}, "--client-ca-of-cluster goes with --client-ca"),
        ({"spiffe_trust_domain": "a"}, "--spiffe-trust-domain goes with --client-ca"),
    ],
)
def test_settings_of_access_that_do_not_fit_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Config(credentials=CREDENTIALS, **given)


def test_manifests_have_no_api_server_to_ask(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="with --manifests there is none"):
        Config(manifests=tmp_path, auth="kubernetes", listen=ANYWHERE, **FILES)


def test_the_settings_of_access_are_read(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("")
    given = ["--kubeconfig", str(kubeconfig), "--listen", "0.0.0.0:0", "--auth", "kubernetes"]
    given += ["--tls-cert=a", "--tls-key=b", "--client-ca=c", "--auth-stale-s=0"]
    given += ["--token-audience", "a,b", "--spiffe-trust-domain=example.org"]
    config = settings([*given, "--client-ca-of-cluster"])
    assert (config.auth, config.auth_stale_s) == ("kubernetes", 0.0)
    assert config.token_audience == ("a", "b")
    assert (config.spiffe_trust_domain, config.client_ca_of_cluster) == ("example.org", True)


@pytest.mark.parametrize("text", ["Example.org", "a/b", "", "a b"])
def test_a_trust_domain_is_written_as_spiffe_has_it(text: str) -> None:
    with pytest.raises(ConfigError, match="trust domain"):
        trust_domain(text)


def test_the_help_shows_each_flag_once_and_first_those_that_matter_first() -> None:
    first, *others = flags.SERVE_GROUPS
    names = [flag.name for flag in flags.SERVE]
    assert len(names) == len(set(names))
    assert {"--manifests", "--kubeconfig", "--listen", "--auth"} <= {f.name for f in first.flags}
    assert len(first.flags) <= 10
    assert others[-1].title == "limits"
