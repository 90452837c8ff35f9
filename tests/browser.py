"""A real Chromium, driven by its own protocol (CDP), for tests that see and do what a person does.

    python -m tests.browser     print where it is, or fail: there is none

Knows nothing of what it shows. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE_S = 30.0
"""How long a test waits for what must come. A machine under load is slow, not wrong."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # It has none where tests run as root.
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-proxy-server",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)

_KEYS = {
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "ArrowDown": 40,
    "ArrowUp": 38,
}


_UNTRUE = (None, False, 0, "")


class BrowserError(Exception):
    """There is no browser, or it refuses. Its text says what to do."""


def chromium() -> str:
    """The path of a Chromium. Raises BrowserError."""
    named = os.environ.get("VMSVC_TEST_CHROMIUM")
    for name in (named,) if named else _NAMES:
        if found := shutil.which(name):
            return found
    raise BrowserError(
        "tests of the page need a Chromium: apt-get install chromium, or name one in "
        "VMSVC_TEST_CHROMIUM"
    )


class Tab:
    """One page that is open in the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.errors: list[str] = []
        """What the browser has complained of: exceptions, refused loads, violations of policies."""

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the protocol. Raises BrowserError."""
        return await self._browser.ask(method, parameters, self._session)

    def happened(self, method: str, parameters: Mapping[str, Any]) -> None:
        """Note an event of the protocol."""
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url')}")

    async def go(self, url: str) -> None:
        """Open an address."""
        await self.ask("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def evaluate(self, script: str) -> Any:
        """The value of an expression; that of its promise, if it is one. Raises BrowserError."""
        answer = await self.ask(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """The value of an expression once it is true; fails, showing the page, if it never is."""
        value = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                # An element is an empty object here.
                while (value := await self.evaluate(script)) in _UNTRUE:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.evaluate("document.body.innerText")
            raise AssertionError(f"not in time: {script} is {value!r} in:\n{text}") from None
        return value

    async def text(self, selector: str) -> str:
        """The text that is shown of the first element that a selector finds; "" of none."""
        script = f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"
        return str(await self.evaluate(script))

    async def click(self, selector: str) -> None:
        """Click on the middle of the first element that a selector finds, as with a mouse."""
        where = await self.evaluate(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center'}); const r = one.getClientRects()[0];"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        at = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        await self.ask("Input.dispatchMouseEvent", type="mousePressed", **at)
        await self.ask("Input.dispatchMouseEvent", type="mouseReleased", **at)

    async def press(self, key: str) -> None:
        """Press and release one key."""
        code = {"key": key, "windowsVirtualKeyCode": _KEYS.get(key, ord(key[0].upper()))}
        text = (
            {"text": "\r" if key == "Enter" else key} if key not in _KEYS or key == "Enter" else {}
        )
        await self.ask("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **code)

    async def type(self, text: str) -> None:
        """Type a text where the focus is."""
        await self.ask("Input.insertText", text=text)

    async def look(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Have a window of this size, and prefer light or dark."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path) -> None:
        """Keep a picture of what is shown, as PNG."""
        answer = await self.ask("Page.captureScreenshot", format="png")
        _keep(path, base64.b64decode(answer["data"]))


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class Browser:
    """A running Chromium, over one connection."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tabs: dict[str, Tab] = {}

    async def ask(
        self, method: str, parameters: Mapping[str, Any], session: str = ""
    ) -> dict[str, Any]:
        """The answer to a command of the protocol. Raises BrowserError."""
        id_ = next(self._ids)
        answer = self._asked[id_] = asyncio.get_running_loop().create_future()
        command = {"id": id_, "method": method, "params": parameters}
        await self._connection.send_json({**command, "sessionId": session} if session else command)
        async with asyncio.timeout(PATIENCE_S):
            result: dict[str, Any] = await answer
        return result

    async def read(self) -> None:
        """Take in what the browser says, until it is closed."""
        async for message in self._connection:
            said = message.json()
            if (answer := self._asked.pop(said.get("id", 0), None)) is None:
                if (tab := self._tabs.get(said.get("sessionId", ""))) is not None:
                    tab.happened(said["method"], said["params"])
            elif "error" in said:
                answer.set_exception(BrowserError(said["error"]["message"]))
            elif not answer.done():
                answer.set_result(said["result"])

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """A tab until the block ends, in a context of its own: no storage is shared."""
        context = await self.ask("Target.createBrowserContext", {})
        try:
            yield await self._opened({"browserContextId": context["browserContextId"]})
        finally:
            await self.ask("Target.disposeBrowserContext", context)

    async def _opened(self, where: Mapping[str, Any]) -> Tab:
        target = await self.ask("Target.createTarget", {"url": "about:blank", **where})
        attached = await self.ask(
            "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}
        )
        tab = self._tabs[attached["sessionId"]] = Tab(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            await tab.ask(f"{domain}.enable")
        await tab.look()
        return tab


@asynccontextmanager
async def browsing(directory: Path) -> AsyncIterator[Browser]:
    """A Chromium with its files in a directory, until the block ends. Raises BrowserError."""
    process = await asyncio.create_subprocess_exec(
        chromium(),
        *_FLAGS,
        f"--user-data-dir={directory}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        url = await _address(directory / "DevToolsActivePort", process)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, max_msg_size=0) as connection,
        ):
            browser = Browser(connection)
            reading = asyncio.create_task(browser.read())
            yield browser
            await browser.ask("Browser.close", {})
            await reading
    finally:
        if process.returncode is None:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _address(file: Path, process: asyncio.subprocess.Process) -> str:
    """Where the browser listens, which it writes to a file. Raises BrowserError."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := _written(file)) is None:
            if process.returncode is not None:
                raise BrowserError(f"the Chromium ended at once, with {process.returncode}")
            await asyncio.sleep(0.05)
    return "ws://127.0.0.1:{}{}".format(*found)


def _written(file: Path) -> tuple[str, str] | None:
    """The port and the path in the file; None until it has been written."""
    lines = file.read_text().split("\n") if file.exists() else []
    return (lines[0], lines[1]) if len(lines) > 1 else None


if __name__ == "__main__":
    print(chromium())
