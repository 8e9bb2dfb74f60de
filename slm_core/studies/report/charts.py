"""Draws the charts of a study: one function per chart. Each returns no chart if there is nothing to draw."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from slm_core.studies.comparison import Comparison, differences
from slm_core.studies.report import drawing, numbers, summary
from slm_core.studies.report.style import INK, SERIES, Chart, draw
from slm_core.studies.results import StudyResult, Trial

PER_CHART = len(SERIES)
"""Variants per chart. If there are more, each chart shows the baseline and a few others."""
_FAR = 6.0
"""A variant further than this many times the median distance is drawn at the edge."""


@dataclass(frozen=True)
class _CurveKind:
    """What a chart of curves shows.

    Args:
      name: begins the chart's name.
      title: what the vertical axis is, in a few words.
      label: of the vertical axis.
      interval: the band is the 95% interval of the mean. Otherwise it runs from the lowest to the highest seed.
      form: formats a value.
      read: returns the curves of a variant in a twin.
    """

    name: str
    title: str
    label: str
    interval: bool
    form: Callable[[float | None], str]
    read: Callable[[StudyResult, str, str], summary.Curves | None]


_LOSSES = _CurveKind(
    "learning-curves",
    "validation loss",
    "validation loss, nats per token",
    interval=False,
    form=numbers.nats,
    read=summary.curves,
)
_DIFFERENCES = _CurveKind(
    "difference-curves",
    "difference to the baseline",
    "difference of losses, nats per token",
    interval=True,
    form=numbers.difference,
    read=summary.difference_curves,
)


def learning_curves(result: StudyResult, framework: str) -> list[Chart]:
    """Draws the validation loss over the tokens in one twin: the mean over seeds, and a band from lowest to highest."""
    return _curves_charts(result, framework, _LOSSES)


def difference_curves(result: StudyResult, framework: str) -> list[Chart]:
    """Draws variant minus baseline over the tokens in one twin: the mean over seeds, and its 95% interval.

    The line at zero is the baseline.
    """
    return _curves_charts(result, framework, _DIFFERENCES)


def final_differences(result: StudyResult, comparisons: Sequence[Comparison]) -> list[Chart]:
    """Draws a dot per seed and twin for each variant: its final loss minus the baseline's. Mean and interval follow."""
    shown = [c for c in comparisons if numbers.known(c.pooled.mean)]
    if not shown:
        return []
    dots = {c.variant: {f: list(differences(result, c.variant, f).values()) for f in result.frameworks} for c in shown}
    low, high = _range([_ends(c, dots[c.variant]) for c in shown])

    def paint(axes) -> None:
        for row, comparison in enumerate(shown):
            drawing.write_row(axes, row, comparison.variant, numbers.difference(comparison.pooled.mean))
            if numbers.known(comparison.floor):
                drawing.draw_floor(axes, row, comparison.floor)
            axes.plot([0, 0], [row - 0.08, row + 0.42], color=INK, linewidth=1)
            for place, (framework, values) in enumerate(dots[comparison.variant].items()):
                drawing.draw_dots(axes, row + 0.17 * place, framework, [x for x in values if low <= x <= high])
            drawing.draw_mean(axes, row + 0.17 * len(result.frameworks), comparison, low, high)
        drawing.frame_rows(axes, len(shown))
        axes.set_xlim(low, high)
        for word, side, shift in (("← better", "right", -6), ("worse →", "left", 6)):
            axes.annotate(word, (0, -0.62), (shift, 0), textcoords="offset points", ha=side, va="center", fontsize=9)
        axes.set_xlabel("difference of final losses, nats per token")
        drawing.draw_row_legend(axes, result.frameworks, any(numbers.known(c.floor) for c in shown))

    parts = [f"{c.variant} {numbers.difference(c.pooled.mean)} {drawing.interval(c)}".strip() for c in shown]
    description = (
        f"Final loss minus the one of {result.variants[0].name}, a dot per seed and twin, in nats per token; "
        f"mean and 95% interval: {'; '.join(parts)}."
    )
    title = f"Difference to {drawing.short(result.variants[0].name)}"
    return [draw("final-differences", title, description, drawing.rows_height(len(shown)), paint)]


def tuned_settings(result: StudyResult) -> list[Chart]:
    """Draws the final loss over each setting that was tuned. Learning rates and the like have a logarithmic axis."""
    trials = [trial for trial in result.trials if numbers.known(trial.loss)]
    charts = []
    for number, field in enumerate(dict.fromkeys(field for trial in trials for field in trial.values), start=1):
        for end, places in _groups(result):
            mine = {v: [t for t in trials if t.variant == v and field in t.values] for v in places}
            mine = {variant: entries for variant, entries in mine.items() if entries}
            name = "tuned-settings" + (f"-{number}" if number > 1 else "") + end
            charts += [_tuned_chart(field, mine, places, name)] if mine else []
    return charts


def tokens_to_baseline(result: StudyResult, comparisons: Sequence[Comparison]) -> list[Chart]:
    """Draws the tokens at which each variant reaches the baseline's final loss, as a part of the baseline's tokens."""
    shown = [c for c in comparisons if numbers.known(c.tokens.ratio)]
    if not shown:
        return []

    def paint(axes) -> None:
        for row, comparison in enumerate(shown):
            drawing.write_row(axes, row, comparison.variant, f"{comparison.tokens.ratio:.2f}")
            axes.plot([1, 1], [row - 0.05, row + 0.25], color=INK, linewidth=1)
            axes.plot([1, comparison.tokens.ratio], [row + 0.1] * 2, color=SERIES[1], linewidth=2)
            axes.plot([comparison.tokens.ratio], [row + 0.1], "o", color=SERIES[1], markersize=7)
        drawing.frame_rows(axes, len(shown))
        axes.text(1, -0.62, "baseline", ha="center", va="center", fontsize=9)
        axes.margins(x=0.08)
        axes.set_xlabel("tokens, as a part of the baseline's")

    parts = [f"{c.variant} {c.tokens.ratio:.2f}" for c in shown]
    description = f"Tokens to reach the baseline's final loss, per token of the baseline: {'; '.join(parts)}."
    title = "Tokens to reach the baseline's loss"
    return [draw("tokens-to-baseline", title, description, drawing.rows_height(len(shown)), paint)]


def _curves_charts(result: StudyResult, framework: str, kind: _CurveKind) -> list[Chart]:
    """Draws a chart per group of variants, for those that finished."""
    charts = []
    for end, places in _groups(result):
        entries = {variant: entry for variant in places if (entry := kind.read(result, variant, framework))}
        if kind is _DIFFERENCES:
            entries.pop(result.variants[0].name, None)
        if entries:
            charts.append(_curves_chart(framework, entries, places, kind, end))
    return charts


def _curves_chart(
    framework: str, entries: dict[str, summary.Curves], places: dict[str, int], kind: _CurveKind, end: str
) -> Chart:
    """Draws one line per variant, with a band."""
    labels = _with_seeds({variant: len(entry.losses) for variant, entry in entries.items()})

    def paint(axes) -> None:
        top, handles = -math.inf, []
        for variant, entry in entries.items():
            place = places[variant]
            middle, low, high = drawing.band(entry.stacked, kind.interval)
            every = max(1, len(entry.tokens) // 6)
            style = drawing.line_style(place) | {"markevery": (place * every // PER_CHART, every)}
            handles += axes.plot(entry.tokens, middle, **style)
            if len(entry.losses) > 1:
                axes.fill_between(entry.tokens, low, high, color=SERIES[place], alpha=0.15, linewidth=0)
            top = max(top, high[drawing.late(entry)].max())
        if kind is _DIFFERENCES:
            axes.axhline(0, color=INK, linewidth=1)
            drawing.frame_differences(axes, entries.values())
        else:
            drawing.frame_losses(axes, top)
        axes.set(xlabel="tokens trained on", ylabel=kind.label)
        axes.xaxis.set_major_formatter(lambda tokens, _: numbers.count(tokens))
        drawing.draw_legend(axes, handles, labels)

    ends = [
        f"{label} {kind.form(entry.stacked.mean(0)[-1])}" for label, entry in zip(labels, entries.values(), strict=True)
    ]
    seeds = _plural(max(len(entry.losses) for entry in entries.values()), "seed")
    title = f"{summary.framework_name(framework)}: {kind.title}"
    description = f"{title} over tokens, mean of {seeds}, in nats per token. At the end: {'; '.join(ends)}."
    return draw(f"{kind.name}-{framework}{end}", title, description, _curves_height(labels), paint)


def _tuned_chart(field: str, mine: dict[str, list[Trial]], places: dict[str, int], name: str) -> Chart:
    """Draws the final loss over one setting: a line per variant, and a ring around its best trial."""
    values = [t.values[field] for entries in mine.values() for t in entries]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    words = [] if numeric else sorted({numbers.value(value) for value in values})
    logarithmic = numeric and min(values) > 0 and max(values) >= 5 * min(values)

    def across(trial: Trial) -> float:
        value = trial.values[field]
        return float(value) if numeric else float(words.index(numbers.value(value)))

    def paint(axes) -> None:
        handles = []
        for variant, trials in mine.items():
            trials = sorted(trials, key=across)
            alone = numeric and all(set(trial.values) == {field} for trial in trials)
            style = drawing.line_style(places[variant]) | ({} if alone else {"linestyle": "none"})
            handles += axes.plot([across(trial) for trial in trials], [trial.loss for trial in trials], **style)
            best, color = _best(trials), SERIES[places[variant]]
            axes.plot([across(best)], [best.loss], "o", markersize=13, fillstyle="none", color=color)
        if logarithmic:
            drawing.logarithmic(axes, min(values), max(values))
        if not numeric:
            axes.set_xticks(range(len(words)), words)
        axes.set(xlabel=field, ylabel="final loss, nats per token")
        drawing.draw_legend(axes, handles, list(mine))

    parts = [f"{v} {numbers.nats(_best(t).loss)} at {numbers.value(_best(t).values[field])}" for v, t in mine.items()]
    title = f"Loss over {field}"
    description = f"Final loss of each trial over {field}, in nats per token. Best trials: {'; '.join(parts)}."
    return draw(name, title, description, _curves_height(list(mine)), paint)


def _best(trials: Sequence[Trial]) -> Trial:
    return min(trials, key=lambda trial: math.inf if trial.loss is None else trial.loss)


def _groups(result: StudyResult) -> list[tuple[str, dict[str, int]]]:
    """Splits many variants into charts. A variant has the same place, and so the same color, in all charts.

    Returns:
      For each chart, the end of its name, and {variant: place}. The baseline is in every chart, in place 0.
    """
    baseline, *others = [variant.name for variant in result.variants]
    size = PER_CHART - 1
    groups = [others[i : i + size] for i in range(0, len(others), size)] or [[]]
    ends = [f"-{number}" for number in range(1, len(groups) + 1)] if len(groups) > 1 else [""]
    return [
        (end, {name: i for i, name in enumerate([baseline, *group])}) for end, group in zip(ends, groups, strict=True)
    ]


def _ends(comparison: Comparison, dots: dict[str, list[float]]) -> list[float]:
    """Returns everything that a row of the chart shows, on its axis."""
    pooled = comparison.pooled
    ends = [pooled.mean, pooled.low, pooled.high, *(value for values in dots.values() for value in values)]
    return [end for end in ends if numbers.known(end)]


def _range(rows: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Returns both ends of the axis: zero and all rows, but not those so far out that they would hide the others."""
    extents = [max(abs(end) for end in row) for row in rows]
    near = [row for row, extent in zip(rows, extents, strict=True) if extent <= _FAR * float(np.median(extents))]
    low, high = min(0.0, *(min(row) for row in near)), max(0.0, *(max(row) for row in near))
    margin = 0.12 * max(high - low, 1e-6)
    return low - margin, high + margin


def _curves_height(labels: Sequence[str]) -> float:
    """Returns the height of a chart with a legend below it, inches."""
    return 3.1 + 0.2 * math.ceil(len(labels) / drawing.legend_columns(labels))


def _with_seeds(seeds: dict[str, int]) -> list[str]:
    """Returns the names of variants, with the number of seeds behind those that have fewer than others."""
    most = max(seeds.values(), default=0)
    return [name if number == most else f"{name} ({_plural(number, 'seed')})" for name, number in seeds.items()]


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
