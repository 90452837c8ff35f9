"""Bounds of a file source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSourceBounds:
    """Bounds of a file source that hardly anybody needs to change.

    `rescan_s` is how often everything is looked at unasked: for network file systems, and for
    notices that were lost; `poll_s` is how often where something cannot be watched, and
    `poll_share_max` how much of the time that may take. `open_settle_s` is how long a writer that
    keeps the file open may pause, and `rewrite_s` one that opens it again, or fills a directory
    anew; what its file or directory lacks meanwhile stays for `rewrite_max_s` at most. Notices are
    gathered for `gather_s`. `slice_s` is how long reading may hold up the event loop. A file of
    more than `quick_bytes_max` is read in a thread, slice by slice: a disk may be slow, and libyaml
    takes 30 ns for each byte of one long text, in one go, but pauses for other threads whenever it
    asks for more.
    """

    rescan_s: float = 10.0
    poll_s: float = 1.0
    poll_share_max: float = 0.05
    directory_check_s: float = 1.0
    open_settle_s: float = 10.0
    rewrite_s: float = 2.0
    rewrite_max_s: float = 30.0
    gather_s: float = 0.005
    slice_s: float = 0.005
    quick_bytes_max: int = 128 * 1024
    file_bytes_max: int = 16 * 1024 * 1024
