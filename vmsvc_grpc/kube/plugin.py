"""Runs a credential plugin: a program of the user's, which may fail, hang, or print anything.

Owns running and bounding it (`client-go/plugin/pkg/client/auth/exec`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from vmsvc_grpc.kube.kubeconfig import Plugin
from vmsvc_grpc.model.decoding import decoder
from vmsvc_grpc.model.problem import VALUE_CHARACTERS_MAX, quoted

_CHUNK_BYTES = 64 * 1024
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginBounds:
    """How long a plugin may take, and how much it may print to each of its outputs.

    kubectl waits for ever, as a person watches it; a server must give up and say so.
    A certificate and its key have some 10 KB.
    """

    plugin_s: float = 15.0
    output_bytes_max: int = 1024 * 1024


class PluginError(Exception):
    """A plugin gave no credentials; the message is one line, and names the plugin."""


class _StoppedError(Exception):
    """We ended a plugin; the message says why."""


class Credential(msgspec.Struct, rename="camel", frozen=True):
    """What a plugin printed: a token, a client certificate with its key, or both."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct, rename="camel", frozen=True):
    api_version: str = ""
    kind: str = ""
    status: Credential | None = None


_decode = decoder(_ExecCredential)


async def ask(
    plugin: Plugin,
    command: str,
    cluster: Mapping[str, Any] | None,
    environ: Mapping[str, str],
    bounds: PluginBounds = PluginBounds(),
) -> Credential:
    """The credentials that a plugin prints. Raises PluginError. If cancelled, ends the plugin.

    `command` is the program to run; `cluster` is passed to a plugin that asks for it.
    """
    name = _name(plugin)
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info and cluster is not None:
        spec["cluster"] = cluster
    exec_info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    given = {entry.name: entry.value for entry in plugin.env or ()}
    run = _PluginRun(
        [command, *(plugin.args or ())],
        {**environ, **given, "KUBERNETES_EXEC_INFO": msgspec.json.encode(exec_info).decode()},
        bounds,
    )
    try:
        # Not by the event loop: uvloop forks, which breaks gRPC's threads, and it would wait for a
        # process whose pipes nobody reads.
        status, output, errors = await asyncio.to_thread(run)
    except OSError as error:
        hint = f"; {quoted(plugin.install_hint)}" if plugin.install_hint else ""
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise PluginError(f"{name} cannot be run: {reason}{hint}") from error
    except _StoppedError as error:
        raise PluginError(f"{name} {error}") from None
    finally:
        run.stop()
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise PluginError(f"{name} failed with {how}{_said(errors)}")
    return _credential(name, plugin, output)


def of_no_use(plugin: Plugin, reason: object) -> PluginError:
    """The error for credentials that a plugin printed, and that cannot be used."""
    return PluginError(f"{_name(plugin)} printed credentials of no use: {reason}")


def _name(plugin: Plugin) -> str:
    return f"credential plugin {quoted(plugin.command)}"


class _PluginRun:
    """One run of a program, within bounds, in a thread of its own."""

    def __init__(self, command: list[str], environ: Mapping[str, str], bounds: PluginBounds):
        self._command = command
        self._environ = environ
        self._bounds = bounds
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End it soon, if it runs. For any thread."""
        self._stopped.set()

    def __call__(self) -> tuple[int, bytes, bytes]:
        """Its status and what it printed to both outputs. Raises OSError and _StoppedError."""
        process = subprocess.Popen(  # noqa: S603 - it is the user's own program
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            # If we end it, its child processes end with it.
            start_new_session=True,
        )
        assert process.stdout is not None, "it is a pipe"
        assert process.stderr is not None, "it is a pipe"
        deadline = time.monotonic() + self._bounds.plugin_s
        try:
            with process.stdout as stdout, process.stderr as stderr:
                pipes = stdout.fileno(), stderr.fileno()
                printed = self._printed(process, pipes, deadline)
            while process.poll() is None:
                self._check(deadline)
                self._stopped.wait(_POLL_S)
        except BaseException:
            # Only here: a plugin that ends by itself may leave an agent running, which is the
            # user's.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        return process.returncode, *printed

    def _printed(
        self, process: subprocess.Popen[bytes], pipes: tuple[int, int], deadline: float
    ) -> tuple[bytes, bytes]:
        """All that comes over two pipes until both are closed, or the process has ended.

        Its child processes, such as an agent in the background, may hold them open for longer.
        """
        kept = dict.fromkeys(pipes, b"")
        with selectors.DefaultSelector() as selector:
            for pipe in pipes:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                self._check(deadline)
                # By the time that it has ended, all its output is in the pipes.
                ended = process.poll() is not None
                ready = selector.select(0 if ended else _POLL_S)
                if ended and not ready:
                    break
                for key, _ in ready:
                    chunk = os.read(key.fd, _CHUNK_BYTES)
                    kept[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fd)
                    if len(kept[key.fd]) > self._bounds.output_bytes_max:
                        raise _StoppedError(
                            f"printed more than {self._bounds.output_bytes_max} bytes"
                        )
        return kept[pipes[0]], kept[pipes[1]]

    def _check(self, deadline: float) -> None:
        if self._stopped.is_set():
            raise _StoppedError("was stopped")
        if time.monotonic() >= deadline:
            raise _StoppedError(f"has not ended after {self._bounds.plugin_s:g} s")


def _said(errors: bytes) -> str:
    """The end of its error output, which mostly has the reason; empty if there is none."""
    text = errors.decode(errors="replace").strip()
    return f": {quoted(text[-VALUE_CHARACTERS_MAX:])}" if text else ""


def _credential(name: str, plugin: Plugin, output: bytes) -> Credential:
    try:
        answer = _decode(output)
    except msgspec.DecodeError as error:
        # The error names fields and types only. The output itself is secret.
        raise PluginError(f"{name} printed no ExecCredential: {error}") from error
    if answer.kind != "ExecCredential":
        raise PluginError(f"{name} printed no ExecCredential: kind is {quoted(answer.kind)}")
    if answer.api_version != plugin.api_version:
        raise PluginError(
            f"{name} printed apiVersion {quoted(answer.api_version)}, "
            f"and is configured for {plugin.api_version}"
        )
    status = answer.status
    if status is None:
        raise PluginError(f"{name} printed an ExecCredential without status")
    if bool(status.client_certificate_data) != bool(status.client_key_data):
        raise PluginError(f"{name} printed one of a client certificate and its key, and not both")
    if not (status.token or status.client_key_data):
        raise PluginError(f"{name} printed neither a token nor a client certificate")
    return status
