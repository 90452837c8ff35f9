"""Checks of this machine: ports, files for TLS, directories, inotify, open files."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from vmsvc_grpc.check.findings import Finding, failed, ok, warning
from vmsvc_grpc.check.listeners import Listener, listener
from vmsvc_grpc.config import Config, ListenAddress
from vmsvc_grpc.model.problem import quoted, system_reason
from vmsvc_grpc.server import addresses
from vmsvc_grpc.server.limits import FILES_MIN, within_files
from vmsvc_grpc.server.tls.files import (
    TlsFiles,
    TlsFilesError,
    Usable,
    at,
    read_client_ca,
    read_pair,
)
from vmsvc_grpc.server.tls.rotation import RESCAN_S
from vmsvc_grpc.source.inotify import DirectoryWatch

_DAY_S = 24 * 3600.0
_EXPIRY_NEAR_S = 7 * _DAY_S

# More are not looked at: `serve` would take minutes to read what is in them.
_DIRECTORIES_MAX = 100_000


def ports(config: Config) -> Iterator[Finding]:
    """Whether each address can be listened on. Listens there for a moment, and answers nobody."""
    held: list[socket.socket] = []
    try:
        named = [*(("--listen", each) for each in config.listen)]
        named.append(("--http-listen", config.http_listen))
        if config.page_listen is not None:
            named.append(("--page-listen", config.page_listen))
        for flag, address in named:
            try:
                sockets = addresses.bound(address.host, address.port)
                held += sockets
                for each in sockets:
                    each.listen(1)
            except OSError as error:
                yield _no_port(flag, address, error)
            else:
                yield ok("port", f"{flag} {address} is free")
    finally:
        for each in held:
            each.close()
    if config.exposed:
        open_to_all = ", ".join(map(str, config.exposed))
        yield warning(
            "insecure",
            f"--insecure: others may read along at {open_to_all}, or nobody there is asked who "
            "they are",
            "give --tls-cert, --tls-key and --auth instead",
        )


def _no_port(flag: str, address: ListenAddress, error: OSError) -> Finding:
    reason = os.strerror(error.errno) if error.errno else str(error)
    text = f"{flag} {address}: {reason}"
    other = listener(address.port)
    if other is None:
        return failed("port", text, f"choose another by {flag}")
    if other.is_ours:
        return warning(
            "port",
            f"{flag} {address} has a vmsvc-grpc already (process {other.pid})",
            f"nothing, if that is the one which is checked here; else choose another by {flag}",
        )
    return failed("port", text, f"choose another by {flag}, or end {_described(other)}")


def _described(other: Listener) -> str:
    return f"what listens there: {quoted(other.command)} (process {other.pid})"


def certificates(config: Config, now: float) -> Iterator[Finding]:
    """Whether the files for TLS, and the rules for client certificates, can be used."""
    if config.tls is not None:
        yield from _tls(config.tls, now)
        if not any(map(config.uses_tls, (*config.listen, config.http_listen))):
            yield warning(
                "tls",
                "--tls-cert: nothing uses TLS, as loopback is plain",
                f"for TLS there, write --listen=tls://{config.listen[0]}",
            )
    if config.auth_policy is not None:
        yield _policy(config.auth_policy)


def _tls(files: TlsFiles, now: float) -> Iterator[Finding]:
    pair = partial(read_pair, files.certificate, files.key, now)
    yield _certificate("tls-cert", files.certificate, pair, now)
    if files.client_ca is not None:
        read = partial(read_client_ca, files.client_ca, now)
        yield _certificate("client-ca", files.client_ca, read, now)


def _certificate(name: str, path: Path, read: Callable[[], Usable], now: float) -> Finding:
    try:
        ends = read().ends
    except TlsFilesError as error:
        advice = (
            "have it issued anew (by cert-manager: see the Certificate's status), or name other "
            "files"
        )
        return failed(name, str(error), advice)
    text = f"--{name} {path} is valid until {at(ends)}"
    if ends - now < _EXPIRY_NEAR_S:
        near = f"{text}, for {(ends - now) / _DAY_S:.1f} days"
        return warning(name, near, "renew it; a new file is taken without a restart")
    return ok(name, text)


def _policy(path: Path) -> Finding:
    from vmsvc_grpc.server.access.certificates import (  # noqa: PLC0415 - few use it
        PolicyFile,
        PolicyFileError,
    )

    file = PolicyFile(path)
    try:
        file.policy_of(file.text())
    except PolicyFileError as error:
        return failed("auth-policy", f"--auth-policy {error}", "mend the file")
    return ok("auth-policy", f"--auth-policy {path} can be used")


def directories(config: Config) -> Iterator[Finding]:
    """Whether the directories can be read, watched and written. Needs a running event loop."""
    if config.manifests is not None:
        try:
            found = list(_below(config.manifests))
        except OSError as error:
            yield failed(
                "manifests",
                f"--manifests {config.manifests}: {system_reason(error)}",
                "let this account read and enter it",
            )
        else:
            yield ok("manifests", f"--manifests {config.manifests} can be read")
            yield _watched(config.manifests, found, config.rescan_s)
    if config.output is not None:
        yield _output(config.output)
    if config.tls is not None:
        folders = {str(file.absolute().parent).lstrip("/") for file in config.tls if file}
        yield _watched(Path("/"), sorted(folders), RESCAN_S)


def _below(root: Path) -> Iterator[str]:
    """The directory and those below it, relative to it. Raises OSError if it cannot be read."""
    with os.scandir(root):
        pass
    for count, (path, _, _) in enumerate(os.walk(root)):
        if count == _DIRECTORIES_MAX:
            return
        relative = os.path.relpath(path, root)
        yield "" if relative == "." else relative


def _watched(root: Path, found: list[str], rescan_s: float) -> Finding:
    """Whether changes of these directories are noticed; if not, they are looked for by time."""
    watch = DirectoryWatch(root)
    watch.open()
    try:
        for path in found:
            watch.directory(path)
        trouble = watch.unwatched()
    finally:
        watch.close()
    if trouble is None:
        what = "1 directory" if len(found) == 1 else f"{len(found)} directories"
        return ok("inotify", f"changes of {what} are noticed at once (inotify)")
    return warning(
        "inotify",
        f"{root}: {trouble}",
        "raise the limit (sysctl -w NAME=NUMBER, on the node); until then changes are looked for "
        f"each {rescan_s:g} s",
    )


def _output(output: Path) -> Finding:
    there = output
    while not there.exists() and there != there.parent:
        there = there.parent
    if os.access(there, os.W_OK | os.X_OK):
        return ok("output", f"--output {output} can be written")
    text = f"--output {output}: {there} cannot be written"
    return failed("output", text, "let this account write there")


def open_files(config: Config) -> Finding:
    """Whether as many files can be opened as clients may connect."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    advice = "raise the hard limit (ulimit -Hn; LimitNOFILE of a systemd unit)"
    if hard != resource.RLIM_INFINITY and hard < FILES_MIN:
        return failed("open-files", f"at most {hard} files can be open", advice)
    most, wanted = within_files(config.limits, hard).connections_max, config.limits.connections_max
    if most < wanted:
        text = f"at most {hard} open files allow {most} gRPC connections, not {wanted}"
        return warning("open-files", text, f"{advice}, or lower --connections-max")
    return ok("open-files", f"open files suffice for {most} gRPC connections")


def machine(config: Config) -> list[Finding]:
    """Everything about this machine. Needs a running event loop."""
    return [
        *ports(config),
        *certificates(config, time.time()),
        *directories(config),
        open_files(config),
    ]
