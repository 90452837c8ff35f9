"""The source of a directory's files, with its log lines and metrics."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from pathlib import Path

from vmsvc_grpc.config import Config
from vmsvc_grpc.logs.about import about
from vmsvc_grpc.logs.origins import LinesPerOrigin
from vmsvc_grpc.metrics import Metric, Metrics
from vmsvc_grpc.model.objects import Kind
from vmsvc_grpc.source.file_bounds import FilesSourceBounds
from vmsvc_grpc.source.file_reader import PlaceOf
from vmsvc_grpc.source.files import FilesSource
from vmsvc_grpc.source.looks import OnNotices
from vmsvc_grpc.source.problems import FileProblem


def files_source(
    directory: Path,
    kinds: AbstractSet[Kind],
    config: Config,
    metrics: Metrics,
    lines: LinesPerOrigin,
    *,
    shared: bool = False,
    on_notices: OnNotices = lambda _: None,
    place_of: PlaceOf | None = None,
) -> FilesSource:
    """A source as the settings ask for; the last three arguments are as for `FilesSource`.

    Its problems are logged, and its metrics are bound.
    """

    def report(problem: FileProblem) -> None:
        level = logging.INFO if problem.resolved else logging.WARNING
        extra = about(
            reason="InOrder" if problem.resolved else "FileProblem",
            error=None if problem.resolved else problem.message,
            file=str(directory / problem.path),
        )
        lines.log(file_origin(directory, problem.path), level, f"{directory}: {problem}", extra)

    files = FilesSource(
        directory,
        kinds,
        settle_s=config.settle_s,
        shared=shared,
        namespace=config.manifests_namespace,
        bounds=FilesSourceBounds(
            rescan_s=config.rescan_s, file_bytes_max=config.manifest_bytes_max
        ),
        report=report,
        on_notices=on_notices,
        place_of=place_of,
    )
    name = str(directory)
    metrics.bind(Metric.FILES, lambda: {(name,): files.files_read})
    metrics.bind(Metric.UNKNOWN, lambda: {(name,): files.ignored})
    metrics.bind(Metric.FILE_PROBLEMS, lambda: {(name,): files.problems.count})
    return files


def file_origin(directory: Path, path: str) -> str:
    """What log lines about a file belong to."""
    return f"{directory}: {path}"
