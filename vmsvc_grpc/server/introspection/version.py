"""vmsvc.v1.ServerService: what the server is, and since when it runs."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import datetime

from vmsvc.v1 import server_service_pb2 as pb
from vmsvc_grpc import __version__
from vmsvc_grpc.server.access.needs import AUTHENTICATED, Needs
from vmsvc_grpc.server.call import Call, Method, RequestBound, UnaryMethod, parsed
from vmsvc_grpc.server.fields import shape_of

FILE = pb.DESCRIPTOR
"""The file that describes the service, for reflection."""

_SERVICE: str = FILE.services_by_name["ServerService"].full_name


def methods(services: Iterable[str], transport: str, started_at: datetime) -> tuple[Method, ...]:
    """GetVersion of a server with these services (full names).

    `transport` is named as `--transport` names it; `started_at` is when the server began to listen.
    """
    response = pb.GetVersionResponse(
        version=__version__,
        packages=sorted({service.rpartition(".")[0] for service in services}),
        python_version=platform.python_version(),
        transport=transport,
    )
    response.started_at.FromDatetime(started_at)
    answer = response.SerializeToString()

    def get_version(request: bytes, _call: Call) -> bytes:
        parsed(pb.GetVersionRequest, request)
        return answer

    return (
        UnaryMethod(
            f"/{_SERVICE}/GetVersion",
            get_version,
            RequestBound.ONE_NAME,
            shape_of(pb.GetVersionRequest.DESCRIPTOR),
            Needs(AUTHENTICATED),
        ),
    )
