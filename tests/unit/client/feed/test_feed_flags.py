"""The command lines of `vmsvc feed haproxy`, `nginx` and `template`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from vmsvc.arguments import UsageError
from vmsvc.feed.haproxy.output import Backends, Settings
from vmsvc.feed.haproxy.runtime import Place, Runtime
from vmsvc.feed.haproxy.wanted import State
from vmsvc.feed.kinds import KINDS
from vmsvc.feed.nginx.nginx import Nginx
from vmsvc.feed.output import Output
from vmsvc.feed.target import Target
from vmsvc.feed.template.template import Bounds, Template, Told
from vmsvc.model import Readiness
from vmsvc.options import Options, parse

HAPROXY = ("haproxy", "web=shop/web:http", "api=shop/api", "--runtime")
NGINX = ("nginx", "web=shop/web:http", "--directory")
# argparse takes targets in one place.
AT_LAST = ("nginx", "--directory", ".", "web=shop/web:http")
TEMPLATE = ("template", "shop/web", "--template", "t.j2", "--file", "out")


def made(*words: str, environment: Mapping[str, str] | None = None) -> tuple[Options, Output]:
    options = parse(["feed", *words], environment or {}, terminal=False)
    assert options.feed is not None
    return options, KINDS[options.feed.output].make(options.feed.given)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.j2").write_text("{{ vars }}")
    return tmp_path


def test_a_haproxy_is_fed_as_its_flags_say() -> None:
    options, output = made(
        *HAPROXY, "[::1]:9999", "--zone", "a", "--server-options", " check  inter 2s ",
        "--drain-s", "9", "--not-ready", "drain", "--slots", "s", "--haproxy-state-file", "f",
        "--runtime-timeout-s", "3",
    )  # fmt: skip
    assert options.services == ("shop/web", "shop/api")
    assert options.readiness is Readiness.ALL
    assert isinstance(output, Backends)
    assert output.runtime == Runtime(Place(host="::1", port=9999), 3)
    assert output.targets == [Target("web", "shop/web", "http"), Target("api", "shop/api")]
    assert output.settings == Settings("s", "check inter 2s", 9, State.DRAIN, "a", Path("f"))


def test_an_nginx_is_fed_what_its_targets_follow() -> None:
    options, output = made(*AT_LAST, "db=data/db")
    assert options.services == ("shop/web", "data/db")
    assert isinstance(output, Nginx)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        pytest.param(HAPROXY[:3], "--runtime (VMSVC_FEED_RUNTIME) is required", id="no HAProxy"),
        pytest.param((*HAPROXY, "x"), "'x' is neither /PATH", id="no place"),
        pytest.param((*HAPROXY, "/x", "--not-ready", "ready"), "not maint or drain", id="no state"),
        pytest.param((*HAPROXY, "/x", "--slots", "a b"), "not what names of", id="no prefix"),
        pytest.param((*HAPROXY, "/x", "--server-options", "a;b"), "has ';'", id="two commands"),
        pytest.param((*HAPROXY, "/x", "--server-options", "a\nb"), "has '\\n'", id="two lines"),
        pytest.param(
            (*HAPROXY, "/x", "--server-options", "a" * 5000), "has over 4000 characters", id="long"
        ),
        pytest.param(
            ("haproxy", "--runtime", "/x", "web=a/b", "web=a/c"), "'web' is given 2", id="backends"
        ),
        pytest.param(NGINX[:2], "--directory (VMSVC_FEED_DIRECTORY) is required", id="none"),
        pytest.param((*NGINX, "nowhere"), "there is no directory nowhere", id="no directory"),
        pytest.param((*AT_LAST, "web=shop/db"), "'web' is given 2 times", id="a name twice"),
        pytest.param((*AT_LAST, ".x=shop/db"), "begins with a dot", id="a hidden name"),
        pytest.param((*AT_LAST, "web"), "'web' is not NAME=NAMESPACE/", id="no target"),
        pytest.param(
            (*NGINX, ".", "--server-parameters", "down"), "'down' is none of", id="no parameter"
        ),
        pytest.param(
            (*NGINX, ".", "--test-command", "nginx '"), "No closing quotation", id="no command"
        ),
        pytest.param((*TEMPLATE[:2], "--file", "out"), "--template", id="no template is named"),
        pytest.param(
            (*TEMPLATE, "--template", "gone"), "there is no template gone", id="nor there"
        ),
        pytest.param(
            ("template", "shop/db:sql", *TEMPLATE[2:]), "the template says which port", id="a port"
        ),
        pytest.param((*TEMPLATE, "--var", "x"), "'x' is not NAME=VALUE", id="no variable"),
        pytest.param((*TEMPLATE, "--output-mib-max", "0"), "not a number of MiB", id="no output"),
    ],
)
def test_what_is_wrong_is_told_at_once(words: Sequence[str], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(*words)
    assert why in str(caught.value)


def test_a_template_is_made_as_its_flags_say() -> None:
    given = ("--var", "A=1", "--var", "B=x=y", "--command", "sh -c 'echo a b'")
    bounds = ("--render-timeout-s", "9", "--output-mib-max", "2", "--command-timeout-s", "7")
    options, output = made(*TEMPLATE, *given, *bounds)
    assert options.services == ("shop/web",)
    assert isinstance(output, Template)
    assert output.variables == {"A": "1", "B": "x=y"}
    assert output.told == Told(("sh", "-c", "echo a b"), 7)
    assert output.bounds == Bounds(9, 2 * 1024 * 1024)


def test_variables_of_a_template_may_be_those_of_the_environment() -> None:
    _, output = made(*TEMPLATE, environment={"VMSVC_FEED_VAR": "A=1, B=2", "HOME": "/"})
    assert isinstance(output, Template)
    assert output.variables == {"A": "1", "B": "2"}


def test_a_variable_of_the_environment_is_looked_at_as_a_flag_is() -> None:
    with pytest.raises(UsageError, match="VMSVC_FEED_VAR: 'x' is not NAME=VALUE"):
        made(*TEMPLATE, environment={"VMSVC_FEED_VAR": "A=1,x"})
