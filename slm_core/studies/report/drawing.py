"""Lines, rows, axes and legends, which the charts share."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from slm_core.studies.comparison import Comparison
from slm_core.studies.report import numbers, summary
from slm_core.studies.report.style import DASHES, GRID, INK, MARKERS, SERIES

PER_TWIN = {"torch": ("o", SERIES[1]), "flax": ("^", SERIES[2])}
"""{twin: marker and color} in a chart of both twins."""
LONGEST = 46
"""Letters of a name above a row or in a title, which are bold."""
LONGEST_LABEL = 56
"""Letters of a name in a legend."""


def band(stacked: np.ndarray, interval: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the mean over seeds, and the band's lower and upper edge, [points] each.

    Args:
      stacked: [seeds, points].
      interval: the band is the 95% interval of the mean. Otherwise it runs from the lowest to the highest seed.
    """
    if not interval:
        return stacked.mean(0), stacked.min(0), stacked.max(0)
    means = [summary.mean(list(column)) for column in stacked.T]
    middle, half = np.array([m.mean for m in means]), np.array([m.half for m in means])
    return middle, middle - half, middle + half


def late(entry: summary.Curves) -> np.ndarray:
    """Tells which points lie after the first fifth of the run, [points] of booleans."""
    return entry.tokens >= 0.2 * entry.tokens[-1]


def line_style(place: int) -> dict[str, Any]:
    """Returns the line of a variant by its place in a chart. Color, dashes and marker tell it from the others."""
    return {
        "color": SERIES[place],
        "linestyle": DASHES[place],
        "marker": MARKERS[place],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def frame_losses(axes, top: float) -> None:
    """Leaves out what lies above the losses after a fifth of the run: at first every loss falls fast."""
    bottom = axes.dataLim.y0
    margin = 0.05 * max(top - bottom, 1e-3)
    axes.set_ylim(bottom - margin, top + margin)


def frame_differences(axes, entries: Iterable[summary.Curves]) -> None:
    """Shows zero, the means after a fifth of the run, and the intervals as far as they are usual."""
    ends = [0.0]
    for entry in entries:
        middle, low, high = (edge[late(entry)] for edge in band(entry.stacked, True))
        half = float(np.median(high - low)) / 2 if len(entry.losses) > 1 else 0.0
        ends += [float(middle.min()) - half, float(middle.max()) + half]
    margin = 0.1 * max(max(ends) - min(ends), 1e-6)
    axes.set_ylim(min(ends) - margin, max(ends) + margin)


def legend_columns(names: Sequence[str]) -> int:
    """Returns the columns of a legend: two if the names are short."""
    return 2 if len(names) > 1 and max(len(name) for name in names) <= 22 else 1


def draw_legend(axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Writes the variants below the chart. Line, marker and color tell them apart."""
    labels = [short(name, LONGEST_LABEL) for name in names]
    axes.figure.legend(handles, labels, loc="outside lower left", ncols=legend_columns(names), handlelength=3.5)


def short(name: str, longest: int = LONGEST) -> str:
    """Shortens a long name in its middle. matplotlib hides a label that starts with an underscore."""
    half = longest // 2
    shown = name if len(name) <= longest else f"{name[: half - 1]}…{name[-half:]}"
    return f" {shown}" if shown.startswith("_") else shown


def logarithmic(axes, low: float, high: float) -> None:
    """Gives the x axis a logarithmic scale, with labels such as 0.001 and 3e-05."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 2 else (1, 3)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if 0.9 * low <= t <= 1.1 * high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:g}")


def rows_height(rows: int) -> float:
    """Returns the height of a chart of rows, inches."""
    return 1.35 + 0.58 * rows


def frame_rows(axes, rows: int) -> None:
    """Frames a chart of rows, the first on top."""
    axes.set_ylim(rows - 0.4, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=5)


def write_row(axes, row: int, name: str, value: str) -> None:
    """Writes a variant's name and its value above its row."""
    across = axes.get_yaxis_transform()
    axes.text(0, row - 0.24, short(name), transform=across, va="center", fontsize=9.5, fontweight="bold")
    axes.text(1, row - 0.24, value, transform=across, va="center", ha="right", fontsize=9.5)


def draw_floor(axes, row: int, floor: float) -> None:
    """Draws the rounding floor as a gray area on both sides of zero."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((-floor, row - 0.08), 2 * floor, 0.5, color=GRID, linewidth=0))


def draw_dots(axes, y: float, framework: str, values: Sequence[float]) -> None:
    """Draws a dot per seed of one twin."""
    marker, color = PER_TWIN.get(framework, ("s", SERIES[3]))
    axes.plot(values, [y] * len(values), marker, color=color, markersize=5, alpha=0.7, markeredgewidth=0)


def draw_mean(axes, y: float, comparison: Comparison, low: float, high: float) -> None:
    """Draws the mean and its interval, or an arrow if the mean is beyond the axis."""
    pooled = comparison.pooled
    if not low <= pooled.mean <= high:
        axes.plot([0.98 * (high if pooled.mean > 0 else low)], [y], ">" if pooled.mean > 0 else "<", color=INK)
        return
    if numbers.known(pooled.low) and numbers.known(pooled.high):
        axes.plot([pooled.low, pooled.high], [y, y], color=INK, linewidth=2)
    axes.plot([pooled.mean], [y], "D", color=INK, markersize=6)


def interval(comparison: Comparison) -> str:
    """Formats the interval of a comparison; empty if there is none."""
    text = numbers.interval(comparison.pooled.low, comparison.pooled.high)
    return "" if text == numbers.MISSING else text


def draw_row_legend(axes, frameworks: Sequence[str], floor: bool) -> None:
    """Says what the marks in a chart of rows are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for framework in frameworks:
        marker, color = PER_TWIN.get(framework, ("s", SERIES[3]))
        label = f"one seed, {summary.framework_name(framework)}"
        handles.append(Line2D([], [], linestyle="none", marker=marker, color=color, markersize=5, label=label))
    handles.append(Line2D([], [], color=INK, marker="D", linewidth=2, label="mean and 95% interval"))
    if floor:
        handles.append(Patch(color=GRID, label="rounding floor"))
    axes.figure.legend(handles=handles, loc="outside lower left", ncols=2)
