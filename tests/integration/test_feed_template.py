"""`vmsvc feed template` with a real server: issue 14."""

from __future__ import annotations

from pathlib import Path

from tests.integration.feeding import feeding
from tests.integration.serving import serving, until
from tests.unit.objects import WEB, service, spec, vm
from vmsvc_grpc.model.events import Apply


async def test_a_file_follows_a_service_and_its_template(tmp_path: Path) -> None:
    template, file, seen = tmp_path / "t.j2", tmp_path / "out", tmp_path / "seen"

    def edited(before: str) -> None:
        template.write_text(
            f"{before}{{% for e in services['shop/web'].endpoints %}}\n"
            "{{ vars.SCHEME }}://{{ e | reached(services['shop/web'] | port) }}\n"
            "{% endfor %}\n"
        )

    def holds(text: str) -> bool:
        return file.exists() and file.read_text() == text

    edited("")
    arguments = [
        *("template", "shop/web", "--template", template, "--file", file, "--var", "SCHEME=http"),
        *("--command", f"sh -c 'cat {file} >> {seen}'", "--render-interval-s", "0.01"),
    ]
    async with serving(service(WEB, spec()), vm("a", "10.0.0.1")) as running:
        with feeding(running.address, arguments, tmp_path / "log") as feed:
            await until(lambda: holds("http://10.0.0.1:9376\n"))
            running.apply(Apply(vm("b", "10.0.0.2")))
            await until(lambda: holds("http://10.0.0.1:9376\nhttp://10.0.0.2:9376\n"))
            edited("# new\n")
            feed.hang_up()
            await until(lambda: file.read_text().startswith("# new\n"))
            edited("{{ vars.PORT }}\n")
            feed.hang_up()
            wrong = f"{template}:1: 'dict object' has no attribute 'PORT'"
            await until(lambda: wrong in feed.said())
            template.unlink()
            feed.hang_up()
            gone = f"there is no template {template}; it goes on as it was"
            await until(lambda: gone in feed.said())
            edited("# newer\n")
            feed.hang_up()
            await until(lambda: file.read_text().startswith("# newer\n"))
            await until(lambda: seen.read_text().endswith(file.read_text()))
    assert seen.read_text().count("# new") == 2
