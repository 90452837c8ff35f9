from __future__ import annotations

from pathlib import Path

from tests.certificates import Secret
from vmsvc_grpc.server.links import directories


def relative(*paths: Path) -> set[str]:
    return {str(path).lstrip("/") for path in paths}


def test_a_file_is_looked_for_in_its_directory(tmp_path: Path) -> None:
    assert directories([tmp_path / "tls.crt", tmp_path / "tls.key"]) == relative(tmp_path)


def test_all_links_of_a_secret_are_followed(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "secret")
    secret.put(tls_crt="one")
    secret.put(tls_crt="two")
    (tmp_path / "link").symlink_to("secret")
    found = directories([tmp_path / "link" / "tls.crt"])
    assert found == relative(tmp_path, secret.directory, secret.directory / "..1")


def test_links_in_a_ring_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert directories([tmp_path / "a"]) == relative(tmp_path)
