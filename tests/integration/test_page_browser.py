"""The page in a real Chromium, on the real program: what a person sees, clicks and types."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.browser import Browser, Tab, browsing
from tests.ports import reserved_port
from tests.program import Program, serving
from vmsvc.v1.endpoint_service_pb2 import WatchedService, WatchEndpointsRequest
from vmsvc.v1.endpoint_service_pb2_grpc import EndpointServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURES = Path(os.environ.get("VMSVC_TEST_PICTURES", "out/page"))
"""Where the pictures of what was shown are kept, to be looked at."""

HOSTILE = (
    "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>&amp;\u202e"
)

# Texts that are shown with a contrast below 4.5, as WCAG 2.2 works it out (1.4.3).
FAINT = """(() => {
  const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3)
    .map((part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (one) => {
    const colour = one ? getComputedStyle(one).backgroundColor : 'rgb(255, 255, 255)';
    return parts(colour)[3] === 0 ? ground(one.parentElement) : colour;
  };
  const through = (one) => one ? getComputedStyle(one).opacity * through(one.parentElement) : 1;
  const faint = [];
  for (const one of document.querySelectorAll('body *')) {
    const text = [...one.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join('');
    if (!text.trim() || !one.getClientRects().length) continue;
    const pair = [getComputedStyle(one).color, ground(one)].map(light).sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5 || through(one) < 1) faint.push([text.trim(), contrast, one.className]);
  }
  return faint;
})()"""

SERVICE = """\
apiVersion: vmoperator.vmware.com/v1alpha3
kind: VirtualMachineService
metadata: {{name: {name}, namespace: shop}}
spec:
  type: {type}
  selector: {{app: {app}}}
  ports: [{{name: http, protocol: TCP, port: 80, targetPort: 8080}}]
---
"""

VM = """\
apiVersion: vmoperator.vmware.com/v1alpha3
kind: VirtualMachine
metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}
spec: {{readinessProbe: {{tcpSocket: {{port: 8080}}}}}}
status:
  network: {{primaryIP4: {address}}}
  conditions: [{{type: Ready, status: "{ready}", reason: Probed, message: {message!r}}}]
---
"""


def service(name: str, *, app: str = "", kind: str = "ClusterIP") -> str:
    return SERVICE.format(name=name, app=app or name, type=kind)


def vm(name: str, address: str, app: str, *, ready: bool = True, message: str = "as it is") -> str:
    return VM.format(name=name, address=address, app=app, ready=ready, message=message)


WEB = service("web") + vm("web-1", "10.0.0.1", "web") + vm("web-2", "10.0.0.2", "web", ready=False)


class Manifests:
    """The directory that is served."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str) -> None:
        """Replace a file as a whole, so that it is taken at once."""
        unfinished = self.directory.parent / f"{name}.unfinished"
        unfinished.write_text(text)
        unfinished.rename(self.directory / f"{name}.yaml")

    def remove(self, name: str) -> None:
        (self.directory / f"{name}.yaml").unlink()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    async with browsing(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser) -> AsyncIterator[Tab]:
    async with browser.tab() as opened:
        yield opened
        assert opened.errors == []


@pytest.fixture(scope="module")
def page_port() -> int:
    return reserved_port()


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    made = Manifests(tmp_path_factory.mktemp("served") / "manifests")
    made.directory.mkdir()
    made.write("web", WEB)
    made.write("many", "".join(service(f"many-{n:04}") for n in range(400)))
    made.write("refused", service("refused", kind="NodePort"))
    made.write("alone", service("alone"))
    return made


@pytest.fixture(autouse=True)
def as_it_was(manifests: Manifests) -> Iterator[None]:
    """What one test changes is not there for the next."""
    yield
    manifests.write("web", WEB)


@pytest.fixture(scope="module")
def program(
    manifests: Manifests, page_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    log = tmp_path_factory.mktemp("log") / "log"
    with serving(arguments(manifests, page_port), log) as running:
        yield running


def arguments(manifests: Manifests, port: int) -> list[str | Path]:
    return ["--manifests", manifests.directory, "--page-listen", f"127.0.0.1:{port}"]


@pytest.fixture
def url(program: Program, page_port: int) -> str:
    assert f"page  on http://127.0.0.1:{page_port}" in program.said()
    return f"http://127.0.0.1:{page_port}/"


async def opened(tab: Tab, url: str) -> None:
    await tab.go(url)
    await tab.until("document.querySelector('#connection')?.dataset.state === 'live'")


def row(name: str) -> str:
    """The row of a service or VM."""
    rows = "[...document.querySelectorAll('tbody tr')]"
    return f"{rows}.find(row => row.querySelector('th').innerText === '{name}')"


async def test_services_are_listed_and_filtered_by_typing(tab: Tab, url: str) -> None:
    await opened(tab, url)
    assert await tab.until("document.querySelector('#shown').innerText === '403 services'")
    await tab.press("/")
    await tab.type("shop/w")
    await tab.until("document.querySelectorAll('tbody tr').length === 1")
    assert await tab.text("#shown") == "1 of 403 services"
    assert (await tab.text("tbody tr")).split("\t")[:4] == ["◐ Partly ready", "shop/web", "1", "2"]
    assert await tab.evaluate("location.hash") == "#/?q=shop%2Fw"
    await tab.press("Escape")
    await tab.until("document.querySelector('#shown').innerText === '403 services'")
    await tab.type("no such thing")
    assert "No service matches" in await tab.until("document.querySelector('.empty')?.innerText")


async def test_states_are_words_and_can_be_filtered_and_sorted(tab: Tab, url: str) -> None:
    await opened(tab, url + "#/?q=refused&sort=state")
    await tab.until("document.querySelectorAll('tbody tr').length === 1")
    assert (await tab.text("tbody tr")).split("\t")[:2] == ["✕ Refused", "shop/refused"]
    await tab.press("/")
    await tab.press("Escape")
    words = "[...document.querySelectorAll('tbody .state')].map(c => c.innerText)"
    await tab.until(f"{words}.length > 3")
    first = await tab.evaluate(f"{words}.slice(0, 3)")
    assert first == ["✕ Refused", "◐ Partly ready", "– No VMs"]  # noqa: RUF001 - a dash


async def test_rows_are_drawn_as_they_are_reached(tab: Tab, url: str) -> None:
    await opened(tab, url)
    await tab.until("document.querySelector('#shown').innerText === '403 services'")
    drawn = "document.querySelectorAll('tbody tr').length"
    assert await tab.evaluate(drawn) < 403
    assert (
        await tab.evaluate("document.querySelector('table').getAttribute('aria-rowcount')") == "404"
    )
    for _ in range(3):
        before = await tab.evaluate(drawn)
        await tab.evaluate("scrollTo(0, document.body.scrollHeight)")
        await tab.until(f"{drawn} > {before} || {drawn} === 403")
    assert await tab.evaluate(drawn) == 403


async def test_a_service_is_opened_by_keys_and_left_by_the_back_button(tab: Tab, url: str) -> None:
    await opened(tab, url + "#/?q=shop/web")
    await tab.until("document.querySelectorAll('tbody tr').length === 1")
    await tab.press("ArrowDown")
    assert await tab.evaluate("document.activeElement.innerText") == "shop/web"
    await tab.press("Enter")
    await tab.until("document.activeElement.matches('h1')")
    assert await tab.text("h1") == "shop/web"
    assert await tab.until(f"{row('web-1')}?.innerText")
    assert "1/2" in await tab.until("document.title.includes('web') && document.title")
    await tab.evaluate("history.back()")
    await tab.until("document.querySelector('#filter')?.value === 'shop/web'")
    await tab.until("document.querySelectorAll('tbody tr').length === 1")


async def test_the_list_is_where_it_was_for_whoever_comes_back(tab: Tab, url: str) -> None:
    await opened(tab, url)
    await tab.until("document.querySelector('#shown').innerText === '403 services'")
    drawn = "document.querySelectorAll('tbody tr').length"
    await tab.evaluate("scrollTo(0, document.body.scrollHeight)")
    await tab.until(f"{drawn} > 150")
    await tab.click("tbody tr:nth-child(200) a")
    await tab.until("document.activeElement.matches('h1')")
    assert await tab.text("h1") == "shop/many-0198"
    await tab.evaluate("history.back()")
    await tab.until("document.querySelector('#shown')?.innerText === '403 services'")
    await tab.until(f"{drawn} > 150 && scrollY > 3000")


async def test_a_change_is_seen_in_the_list_and_marked_by_words(
    tab: Tab, url: str, manifests: Manifests
) -> None:
    await opened(tab, url + "#/?q=shop/web")
    await tab.until(f"{row('shop/web')}?.innerText")
    manifests.write("web", WEB.replace('"False"', '"True"'))
    text = await tab.until(f"{row('shop/web')}.matches('.news') && {row('shop/web')}.innerText")
    assert text.split("\t")[:4] == ["● Ready", "shop/web", "2", "2"]
    assert "is ready, 1 → 2 ready" in text
    assert "shop/web is ready" in await tab.until("document.querySelector('#announcer').innerText")
    manifests.write("web", WEB)
    await tab.until(f"{row('shop/web')}.innerText.includes('Partly ready')")


async def test_a_change_is_seen_at_its_vm_and_logged(
    tab: Tab, url: str, manifests: Manifests
) -> None:
    await opened(tab, url + "#/service/shop/web")
    assert "condition Ready is False" in await tab.until(f"{row('web-2')}?.innerText")
    assert await tab.text("#state") == "◐ Partly ready: 1 of 2 VMs ready"
    manifests.write("web", WEB.replace('"False"', '"True"') + vm("web-3", "10.0.0.3", "web"))
    text = await tab.until(f"{row('web-2')}.matches('.news') && {row('web-2')}.innerText")
    assert text.startswith("● Ready\tweb-2\t10.0.0.2")
    assert "is new here" in await tab.until(f"{row('web-3')}?.innerText")
    log = await tab.until("document.querySelector('.log').innerText")
    assert "web-2 is ready" in log
    assert "shop/web is ready, 1 → 3 ready" in log
    await tab.screenshot(PICTURES / "changes.png")
    manifests.write("web", WEB)
    await tab.until(
        f"!{row('web-3')} && document.querySelector('.log').innerText.includes('web-3 is not')"
    )


async def test_text_of_others_is_shown_as_text(tab: Tab, url: str, manifests: Manifests) -> None:
    bad = vm("web-2", "10.0.0.2", "web", ready=False, message=HOSTILE)
    manifests.write("web", service("web") + bad)
    await opened(tab, url + "#/service/shop/web")
    assert "<img src=x onerror" in await tab.until(
        f"{row('web-2')}?.innerText.includes('<img') && {row('web-2')}.innerText"
    )
    assert await tab.evaluate("document.querySelectorAll('main img, main script').length") == 0
    await tab.evaluate("location.hash = '#/service/shop/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E'")
    assert "cannot be a service's name" in await tab.until(
        "document.querySelector('#connection').dataset.state === 'refused'"
        " && document.querySelector('#notice').innerText"
    )
    await opened_place(tab, "#/?q=<img src=x onerror=alert(1)>")
    await tab.until("document.querySelector('.empty')?.innerText.includes('<img')")
    assert await tab.evaluate("document.querySelectorAll('main img').length") == 0
    assert "taken" not in await tab.evaluate("document.title")
    manifests.write("web", WEB)


async def opened_place(tab: Tab, hash_: str) -> None:
    await tab.evaluate(f"location.hash = {hash_!r}")
    await tab.until("document.querySelector('#connection').dataset.state === 'live'")


async def test_each_odd_service_says_what_to_do(tab: Tab, url: str, manifests: Manifests) -> None:
    await opened(tab, url + "#/service/shop/refused")
    refused = await tab.until("document.querySelector('.problems')?.innerText")
    assert "spec.type NodePort is not supported" in refused
    assert "Nothing is served of it" in refused
    await tab.screenshot(PICTURES / "refused.png")
    await opened_place(tab, "#/service/shop/alone")
    assert "matches no VM" in await tab.until("document.querySelector('.empty')?.innerText")
    await tab.screenshot(PICTURES / "without-vms.png")
    await opened_place(tab, "#/service/shop/late")
    text = await tab.until("document.querySelector('.empty')?.innerText")
    assert "There is no VirtualMachineService shop/late" in text
    await tab.screenshot(PICTURES / "not-there.png")
    manifests.write("late", service("late", app="web"))
    assert await tab.until(f"{row('web-1')}?.innerText")
    manifests.remove("late")
    await tab.until("document.querySelector('#state').innerText === '✕ Not there'")


async def test_a_service_that_is_created_again_is_shown_as_at_first(
    tab: Tab, url: str, manifests: Manifests
) -> None:
    shown = "document.querySelector('main').innerText.split('Changes')[0]"
    manifests.write("late", service("late", app="web", kind="NodePort"))
    for place, state in (("shop/web", "Partly ready"), ("shop/late", "Refused")):
        await opened(tab, f"{url}#/service/{place}")
        is_there = f"document.querySelector('#state').innerText.includes('{state}')"
        await tab.until(f"{is_there} && {row('web-1')}?.innerText")
        at_first, title = await tab.evaluate(shown), await tab.evaluate("document.title")
        assert "Selector" in at_first
        manifests.write("web", vm("web-1", "10.0.0.1", "web"))
        manifests.remove("late")
        await tab.until("document.querySelector('#state').innerText === '✕ Not there'")
        assert (await tab.evaluate("document.title")).startswith(f"{place}: not there")
        gone = await tab.evaluate(shown)
        assert "There is no VirtualMachineService" in gone
        assert "Selector" not in gone
        manifests.write("late", service("late", app="web", kind="NodePort"))
        manifests.write("web", WEB)
        await tab.until(f"{shown} === {json.dumps(at_first)}")
        assert await tab.evaluate("document.title") == title
    manifests.remove("late")


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString", "nothing"])
async def test_what_is_no_view_or_order_is_the_first_one(tab: Tab, url: str, name: str) -> None:
    await opened(tab, f"{url}#/{name}?sort={name}")
    await tab.until(f"{row('shop/alone')}?.innerText")
    assert await tab.text("h1") == "Services"
    assert await tab.evaluate("document.querySelector('#sort').value") == "name"
    names = await tab.evaluate("[...document.querySelectorAll('tbody th')].map(t => t.innerText)")
    assert names == sorted(names)


async def test_one_vm_is_explained(tab: Tab, url: str) -> None:
    await opened(tab, url + "#/service/shop/alone")
    await tab.until("document.querySelector('#vm')")
    await tab.click("#vm")
    await tab.type("web-1")
    await tab.click("form button")
    text = await tab.until(f"{row('web-1')}?.innerText")
    assert "the service selects app=alone" in text
    await opened_place(tab, "#/service/shop/alone?vm=nobody")
    assert "There is no VirtualMachine shop/nobody" in await tab.until(
        "document.querySelector('.empty')?.innerText"
    )


async def test_problems_lead_to_their_service(tab: Tab, url: str) -> None:
    await opened(tab, url + "#/problems")
    text = await tab.until(f"{row('shop/refused')}?.innerText")
    assert "spec.type: NodePort is not supported" in text
    assert await tab.text("#count-problems") == "1"
    await tab.screenshot(PICTURES / "problems.png")
    await tab.click("tbody a")
    await tab.until("document.querySelector('h1').innerText === 'shop/refused'")


async def test_a_client_is_seen_with_what_it_follows(tab: Tab, url: str, program: Program) -> None:
    await opened(tab, url + "#/clients")
    await tab.until("document.querySelector('.empty')?.innerText.includes('Nobody follows')")
    async with grpc.aio.insecure_channel(program.grpc) as channel:
        stub = EndpointServiceStub(channel)
        watched = [WatchedService(service="shop/web")]
        call = stub.WatchEndpoints(WatchEndpointsRequest(services=watched))
        await call.read()
        text = await tab.until("document.querySelector('tbody tr')?.innerText")
        assert "1 service (shop/web): ready endpoints" in text
        await tab.screenshot(PICTURES / "clients.png")
    await tab.until("document.querySelector('.empty')?.innerText.includes('Nobody follows')")


async def test_the_server_says_what_it_reads_and_how_that_goes(
    tab: Tab, url: str, manifests: Manifests
) -> None:
    await opened(tab, url + "#/server")
    text = await tab.until("document.querySelector('tbody tr')?.innerText")
    assert text.startswith("● Well\tdirectory")
    assert "Nothing is written" in await tab.text("main")
    manifests.write("broken", "kind: [")
    await tab.until("document.querySelector('tbody').innerText.includes('1 problem in its files')")
    assert (await tab.text("tbody")).startswith("▲ Not well")
    await opened_place(tab, "#/problems")
    await tab.until("document.querySelector('main').innerText.includes('broken.yaml')")
    manifests.remove("broken")
    await tab.until("!document.querySelector('main').innerText.includes('broken.yaml')")


async def test_the_server_goes_away_and_comes_back(
    tab: Tab, browser: Browser, manifests: Manifests, tmp_path: Path
) -> None:
    port = reserved_port()
    with serving(arguments(manifests, port), tmp_path / "first"):
        await opened(tab, f"http://127.0.0.1:{port}/#/?q=shop/web")
        await tab.until(f"{row('shop/web')}?.innerText")
    text = await tab.until(
        "document.querySelector('#connection').innerText.includes('away')"
        " && document.querySelector('#notice').innerText"
    )
    assert "goes on by itself once the server is back" in text
    assert "1" in await tab.text("tbody tr"), "what was known stays"
    await tab.screenshot(PICTURES / "away.png")
    manifests.write("web", WEB.replace('"False"', '"True"'))
    with serving(arguments(manifests, port), tmp_path / "second"):
        await tab.until("document.querySelector('#connection').dataset.state === 'live'")
        await tab.until(f"{row('shop/web')}.innerText.startsWith('● Ready')")
        await tab.until("document.querySelector('#notice').hidden")
    manifests.write("web", WEB)
    # The browser itself says that the connection was refused.
    assert all("ERR_" in error for error in tab.errors)
    tab.errors.clear()


async def test_a_server_that_hangs_counts_as_away(tab: Tab, url: str, program: Program) -> None:
    """As behind a port-forward whose Pod has gone: the connection is open, and nothing comes."""
    await opened(tab, url)
    program.process.send_signal(signal.SIGSTOP)
    try:
        await tab.until("document.querySelector('#connection').dataset.state === 'away'")
    finally:
        program.process.send_signal(signal.SIGCONT)
    await tab.until("document.querySelector('#connection').dataset.state === 'live'")


async def test_keys_reach_everything(tab: Tab, url: str) -> None:
    await opened(tab, url + "#/?q=shop/web")
    await tab.until("document.querySelectorAll('tbody tr').length === 1")
    stops = []
    for _ in range(12):
        await tab.press("Tab")
        stops.append(
            await tab.evaluate("document.activeElement.id || document.activeElement.innerText")
        )
    for stop in ("Skip to content", "vmsvc-grpc", "filter", "sort", "shop/web", "Keys"):
        assert any(stop in str(one) for one in stops), (stop, stops)
    assert stops[0] == "Skip to content"


async def test_the_skip_link_leads_to_the_content(tab: Tab, url: str) -> None:
    await opened(tab, url + "#/problems")
    await tab.press("Tab")
    await tab.press("Enter")
    # The browser moves the focus before it reports the new address, which the page then puts back.
    await tab.until("document.activeElement.id === 'main' && location.hash === '#/problems'")


@pytest.mark.parametrize(
    "hash_",
    ["#/", "#/service/shop/web", "#/service/shop/no", "#/clients", "#/problems", "#/server"],
)
async def test_a_screen_reader_finds_names_for_all(tab: Tab, url: str, hash_: str) -> None:
    await opened(tab, url + hash_)
    await tab.until("document.querySelector('tbody tr, .empty')")
    await tab.ask("Accessibility.enable")
    nodes = (await tab.ask("Accessibility.getFullAXTree"))["nodes"]
    shown = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    named = {
        "link",
        "button",
        "searchbox",
        "textbox",
        "combobox",
        "table",
        "heading",
        "columnheader",
    }
    assert [role for role, name in shown if role in named and not name] == []
    roles = [role for role, _ in shown]
    for landmark in ("banner", "navigation", "main", "contentinfo", "status"):
        assert landmark in roles
    assert await tab.evaluate("document.querySelectorAll('h1').length") == 1


@pytest.mark.parametrize("width", [1280, 400, 320])
@pytest.mark.parametrize("dark", [False, True])
async def test_nothing_is_wider_than_the_window(tab: Tab, url: str, width: int, dark: bool) -> None:
    await tab.look(width=width, dark=dark)
    for name, hash_ in (
        ("services", "#/"),
        ("service", "#/service/shop/web"),
        ("problems", "#/problems"),
        ("server", "#/server"),
    ):
        await opened(tab, url + hash_)
        await tab.until("document.querySelector('tbody tr')")
        assert await tab.evaluate("document.documentElement.scrollWidth") <= width
        assert await tab.evaluate(FAINT) == []
        await tab.screenshot(PICTURES / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    ground = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark
