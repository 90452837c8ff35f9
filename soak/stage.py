"""What is soaked: two replicas on an API server, and a program with files, and who asks them."""

from __future__ import annotations

import random
import re
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from soak.crowd import Crowd, Door
from soak.files import Files
from soak.inspection import Holding, holding, resident, within
from soak.memory import Sample
from tests.certificates import Authority, Secret
from tests.integration.cluster import Listener, Replica, Site, World, opened
from tests.program import Program, serving

_TLS = re.compile(r"gRPC\s+on (\S+) \(TLS\)")
_NAMESPACE = "soak"
_FILES = "with files"


@dataclass
class Stage:
    """All of it, running."""

    folder: Path
    world: World
    replicas: list[Replica]
    authority: Authority
    secret: Secret
    files: Files
    file_program: Program
    file_listener: Listener
    before: dict[str, Holding] = field(init=False)
    site: Site = field(init=False)
    crowd: Crowd = field(init=False)
    memory: dict[str, list[Sample]] = field(default_factory=dict)

    @property
    def programs(self) -> dict[str, Program]:
        """By what the report calls them."""
        found = {f"replica {n}": each.program for n, each in enumerate(self.replicas, 1)}
        return found | {_FILES: self.file_program}

    def sample(self) -> None:
        """Note how much memory each has."""
        for name, program in self.programs.items():
            self.memory.setdefault(name, []).append(resident(program, time.monotonic()))

    def holdings(self) -> dict[str, Holding]:
        """What each program holds."""
        return {name: holding(each, self.folder) for name, each in self.programs.items()}


@contextmanager
def staged(seed: int, envoys: int) -> Iterator[Stage]:
    """A stage, until the block ends. It begins with what an empty cluster is served as."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        world = stack.enter_context(opened(folder))
        authority, secret = Authority(folder / "tls"), Secret(folder / "secret")
        certificate, key = authority.issue()
        secret.put(tls_crt=certificate, tls_key=key)
        flags = _flags(secret)
        replicas = [
            stack.enter_context(world.replica(*flags, within=within(folder))) for _ in range(2)
        ]
        files = Files(folder, seed)
        arguments: list[str | Path] = ["--manifests", files.manifests, "--output", folder / "out"]
        arguments += ["--drain-s", "0"]
        program = stack.enter_context(
            serving(arguments, folder / "files.log", within=within(folder))
        )
        listener = stack.enter_context(closing(Listener(program.grpc)))
        for replica in replicas:
            world.agrees(replica)
        stage = Stage(folder, world, replicas, authority, secret, files, program, listener)
        stage.before = stage.holdings()
        # Of files there are some at the beginning, and none at the end.
        stage.before[_FILES] = replace(stage.before[_FILES], cached=())
        stage.site = world.site(seed=random.Random(f"{seed} site").randrange(2**32))
        stage.crowd = stack.enter_context(closing(Crowd(_doors(stage), envoys, seed)))
        yield stage


def _flags(secret: Secret) -> list[str]:
    """Two ways in: one that is plain, and one with TLS that asks who comes."""
    return [
        *("--listen", "127.0.0.1:0", "--listen", "tls://127.0.0.1:0", "--auth", "kubernetes"),
        *("--tls-cert", str(secret.directory / "tls.crt")),
        *("--tls-key", str(secret.directory / "tls.key")),
        # A black hole is noticed in this time.
        *("--watch-silence-s", "5"),
    ]


def _doors(stage: Stage) -> list[Door]:
    """Both ways into each replica, for an account that may read endpoints everywhere."""
    kubectl = stage.world.cluster.kubectl
    kubectl("create", "namespace", _NAMESPACE)
    kubectl("-n", _NAMESPACE, "create", "serviceaccount", "envoy")
    account = f"--serviceaccount={_NAMESPACE}:envoy"
    kubectl("create", "clusterrolebinding", "soak", "--clusterrole=vmsvc-grpc-client", account)
    asked = ("create", "token", "envoy", "--audience=vmsvc-grpc", "--duration=24h")
    token = kubectl("-n", _NAMESPACE, *asked).strip()
    trust = ssl.create_default_context(cafile=stage.authority.certificate)
    trust.set_alpn_protocols(["h2"])
    doors = []
    for replica in stage.replicas:
        guarded = _TLS.search(replica.program.said())
        assert guarded is not None
        doors += [Door(replica.program.grpc), Door(guarded[1], trust, token)]
    return doors
