"""Draws the two charts of docs/statistics.md."""

from collections.abc import Sequence

import numpy as np

from slm_core.studies.calibration.pairing import VarianceRatio
from slm_core.studies.calibration.planted import Planted
from slm_core.studies.report import drawing
from slm_core.studies.report.style import DASHES, INK, MARKERS, SERIES, Chart, draw
from slm_core.studies.statistics import detection_rate

GOAL = 1 / 3
"""The largest ratio of the paired variance to the unpaired one that the project asks for."""


def found_rates(rows: Sequence[Planted]) -> Chart:
    """Draws how often a planted difference was found, a dot per row, and the power function, a line per n."""
    effects = np.linspace(0, max(row.effect for row in rows), 101)

    def paint(axes) -> None:
        for place, n in enumerate(dict.fromkeys(row.n for row in rows), start=1):
            mine = [row for row in rows if row.n == n]
            color, power = SERIES[place], [100 * detection_rate(1, effect, n) for effect in effects]
            axes.plot(effects, power, color=color, linestyle=DASHES[place], linewidth=1.4)
            errors = [[100 * (row.power - row.low) for row in mine], [100 * (row.high - row.power) for row in mine]]
            places, powers = [row.effect for row in mine], [100 * row.power for row in mine]
            axes.errorbar(places, powers, errors, fmt="none", ecolor=color, elinewidth=1, capsize=3)
            shares = [100 * row.rate.share for row in mine]
            axes.plot(places, shares, MARKERS[place], color=color, markersize=5, label=f"{n} seeds")
        axes.set(xlabel="planted difference, standard deviations of a difference", ylabel="found, percent")
        axes.set_ylim(0, 103)
        axes.figure.legend(loc="outside lower left", ncols=3)

    parts = [f"{row.n} seeds {row.effect:g}: {row.rate.share:.1%} ({row.power:.1%})" for row in rows]
    description = f"How often a planted difference is found, and in brackets the power function: {'; '.join(parts)}."
    return draw("planted", "A planted difference is found", description, 3.6, paint)


def variance_bars(ratios: Sequence[VarianceRatio]) -> Chart:
    """Draws the paired variance over the unpaired one, a row per pair, with its interval."""

    def paint(axes) -> None:
        for row, each in enumerate(ratios):
            drawing.write_row(axes, row, f"{each.variant} ({each.study})", f"{each.ratio:.3f}")
            for value in (GOAL, 1):
                axes.plot([value, value], [row - 0.05, row + 0.25], color=INK, linewidth=1)
            axes.plot([each.low, each.high], [row + 0.1] * 2, color=INK, linewidth=2)
            axes.plot([each.ratio], [row + 0.1], "D", color=SERIES[1], markersize=6)
        drawing.frame_rows(axes, len(ratios))
        axes.set_xlim(0, 1.05 * max(1, *(each.high for each in ratios)))
        for value, text in ((GOAL, "a third"), (1, "unpaired")):
            axes.text(value, -0.62, text, ha="center", va="center", fontsize=9)
        axes.set_xlabel("variance of a paired difference / of an unpaired one")

    parts = [f"{each.variant} ({each.study}) {each.ratio:.3f}" for each in ratios]
    description = f"Variance of the paired difference, per variance of the unpaired one: {'; '.join(parts)}."
    return draw("pairing", "What pairing leaves of the noise", description, drawing.rows_height(len(ratios)), paint)
