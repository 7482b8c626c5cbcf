"""Time and memory over length, drawn from a record: docs/attention.svg and docs/growth.svg.

Log-log axes; a legend names the power of the length with which a curve grows. Background transparent, colours of middle
brightness, so that the plots are readable on light and dark pages; text stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import exponent
from benchmarks.measure import Measured
from benchmarks.report import FRAMEWORKS

GREY = "#7d8590"
COLOURS = {"torch": "#d9622b", "flax": "#2f81f7"}
STYLES: dict[str, dict[str, Any]] = {
    "peer": {"linestyle": "--", "marker": "o", "markerfacecolor": "none"},
    "ours": {"linestyle": "-", "marker": "o"},
}
SIDES = {"peer": "transformers", "ours": "ours"}
# What each panel shows: its title and unit, the figure's name by framework, and what to divide it by.
Panel = tuple[str, Mapping[str, str], float]
ATTENTION: tuple[Panel, ...] = (
    ("time, ms", {"torch": "ms", "flax": "ms"}, 1),
    ("memory, MiB", {"torch": "peak_mib", "flax": "peak_mib"}, 1),
)
GROWTH: tuple[Panel, ...] = (
    ("time, s", {"torch": "ms", "flax": "ms"}, 1e3),
    ("memory beyond the weights, MiB", {"torch": "activations_mib", "flax": "activations_mib"}, 1),
)


def draw(record: Mapping[str, Any], folder: Path) -> None:
    """Draw what the record has: one file a subject."""
    subjects = record["subjects"]
    if "attention" in subjects:
        forward = [result for result in subjects["attention"]["results"] if not result["backward"]]
        _draw_panels("Block-sparse attention, forward, one thread", forward, ATTENTION, folder / "attention.svg")
    if "growth" in subjects:
        results = subjects["growth"]["results"]
        _draw_panels("Two-layer base encoder, forward, one thread", results, GROWTH, folder / "growth.svg")


def curves(results: Sequence[Measured], panel: Panel) -> dict[tuple[str, str], tuple[list[int], list[float], str]]:
    """Lengths, values and label of each framework's two sides."""
    _, names, divisor = panel
    made = {}
    for framework, name in names.items():
        own = [result for result in results if result["framework"] == framework]
        for side, who in SIDES.items():
            power = exponent(own, f"{side}_{name}")
            values = [result[f"{side}_{name}"] / divisor for result in own]
            made[framework, side] = (
                [result["length"] for result in own],
                values,
                f"{FRAMEWORKS[framework]}, {who}: L^{power:.2f}",
            )
    return made


def _draw_panels(title: str, results: Sequence[Measured], panels: Sequence[Panel], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    look = {"svg.fonttype": "none", "svg.hashsalt": path.name, "font.family": "sans-serif", "font.size": 11}
    with matplotlib.rc_context(look | dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), GREY)):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        figure.suptitle(title)
        for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for (framework, side), (lengths, values, label) in curves(results, panel).items():
                axes.plot(lengths, values, color=COLOURS[framework], label=label, **STYLES[side])
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", subs=())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            ticks = sorted({result["length"] for result in results})
            axes.set_xticks(ticks, map(str, ticks))
            axes.set(title=panel[0], xlabel="tokens")
            axes.tick_params(which="both", colors=GREY)
            axes.grid(color=GREY, alpha=0.3)
            axes.patch.set_alpha(0)
            axes.legend(framealpha=0)
        figure.savefig(path, transparent=True, metadata={"Date": None, "Title": title})
