"""The report: what was done how often, what memory became of it, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from soak.memory import Sample, growth


def markdown(
    seed: int,
    lasted_s: float,
    counts: Mapping[str, int],
    memory: Mapping[str, Sequence[Sample]],
    wrong: Sequence[str],
) -> str:
    """The report of a run."""
    verdict = "Nothing is wrong." if not wrong else f"{len(wrong)} things are wrong:"
    return "\n".join(
        (
            "# Soak",
            "",
            f"{lasted_s / 60:.1f} minutes, seed {seed}. {verdict}",
            *(f"\n- {line}" for line in wrong),
            "",
            "| done | times |",
            "| --- | ---: |",
            *(f"| {name} | {count:,} |" for name, count in counts.items()),
            "",
            "Memory over the second half, by the median slope between all pairs of samples:",
            "",
            "| process | level | grown | allowed |",
            "| --- | ---: | ---: | ---: |",
            *_rows(memory),
            "",
        )
    )


def _rows(memory: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    for name, samples in memory.items():
        grown = growth(samples)
        mib = (grown.level_bytes, grown.grown_bytes, grown.allowed_bytes)
        yield f"| {name} | " + " | ".join(f"{each / 2**20:.1f} MiB" for each in mib) + " |"
