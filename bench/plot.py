"""A run's results as bars, an SVG for each of the main metrics."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from bench.report import number
from bench.results import Results

_METRICS = {
    "cpu_us_a_message": "server CPU a delivered message, µs",
    "delivery_p99_ms": "change to stream, p99, ms",
    "rss_kib_a_stream": "RSS a stream, KiB",
}

# A window is not wanted; text stays text; and the same results give the same file.
mpl.use("svg")
mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench"}


def plots(results: Results, folder: Path) -> list[Path]:
    """Draw all of them into a folder; the files."""
    return [_plot(results, metric, folder / f"{metric}.svg") for metric in _METRICS]


def _plot(results: Results, metric: str, file: Path) -> Path:
    shown = {
        key: outcome
        for key, outcome in results.outcomes.items()
        if any(outcome.spread(name, metric) for name in outcome.measured)
    }
    names = list(dict.fromkeys(name for o in shown.values() for name in o.measured))
    bars = sum(len(outcome.measured) + 1 for outcome in shown.values())
    figure, axes = plt.subplots(figsize=(9, 1 + 0.22 * bars))
    ticks, at = [], 0.0
    for outcome in shown.values():
        first = at
        for name in outcome.measured:
            if (spread := outcome.spread(name, metric)) is None:
                continue
            error = [[spread.median - spread.least], [spread.most - spread.median]]
            color = f"C{names.index(name)}"
            axes.barh(at, spread.median, xerr=error, color=color, height=0.8, ecolor="#555")
            axes.text(spread.most, at, f" {number(spread.median)}", va="center", fontsize=7)
            at += 1
        ticks.append((first + at - 1) / 2)
        at += 0.6
    axes.legend(handles=[Patch(color=f"C{n}", label=name) for n, name in enumerate(names)])
    axes.set_yticks(ticks, list(shown))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_title(_METRICS[metric], fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    return file
