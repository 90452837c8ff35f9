"""Makes the picture of the page that the README shows: `make page-picture`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import browsing
from tests.program import Program, serving

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "page.png"

_COLOURS = 64  # As many as the eye tells apart here, at a third of the size.


def _mend(manifest: Path) -> None:
    """Let the probe of the VM that is not ready succeed."""
    changed = manifest.with_suffix(".unfinished")
    changed.write_text(manifest.read_text().replace('status: "False"', 'status: "True"'))
    changed.rename(manifest)


async def _taken(program: Program, manifest: Path, directory: Path) -> None:
    """Look at a service while one of its VMs becomes ready."""
    found = re.search(r"page  on (\S+)", program.said())
    assert found is not None, "it says where the page is"
    async with browsing(directory / "chromium") as browser, browser.tab() as tab:
        await tab.look(width=1200, height=860)
        await tab.ask("Emulation.setScrollbarsHidden", hidden=True)
        await tab.go(f"{found[1]}/#/service/shop/web")
        await tab.until("document.body.innerText.includes('web-canary')")
        _mend(manifest)
        await tab.until("document.querySelector('.log').innerText.includes('web-3 is ready')")
        await asyncio.sleep(1)  # Until what fades in has come.
        await tab.screenshot(PICTURE)


def main() -> None:
    """Serve the examples, and keep what a browser shows of them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        directory = Path(made)
        manifests = shutil.copytree(ROOT / "examples", directory / "examples")
        # The page names the directory: as a person would, and not as this machine does.
        arguments = ["--manifests", "examples", "--page-listen", "127.0.0.1:0"]
        with contextlib.chdir(directory), serving(arguments, directory / "log") as program:
            asyncio.run(_taken(program, manifests / "web.yaml", directory))
    with Image.open(PICTURE) as picture:
        small = picture.convert("RGB").quantize(_COLOURS)
    small.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
