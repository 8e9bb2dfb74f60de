"""Draws the charts of a page about a run: lines per head and per layer. Nothing to draw is no chart."""

from collections.abc import Mapping, Sequence
from typing import Any

from slm_core.studies.inspection.induction import HeadScores
from slm_core.studies.inspection.measure import Inside
from slm_core.studies.inspection.tables import attention_name, layer_norm
from slm_core.studies.report import drawing, numbers
from slm_core.studies.report.style import GRID, SERIES, Chart, draw

NAMED = 6
"""Heads whose lines have a color and a name; the others are grey."""
HEIGHT = 3.4
"""Inches, without a legend."""


def head_charts(heads: Mapping[int, Mapping[str, HeadScores]], kind: str, title: str) -> list[Chart]:
    """Draws a score of every head over training: none if there is one checkpoint only.

    Args:
      heads: {step: {path: scores}}.
      kind: the score, an attribute of `HeadScores`.
      title: of the chart.
    """
    steps, lines = list(heads), _lines(heads, kind)
    if len(steps) < 2 or not lines:
        return []
    order = sorted(lines, key=lambda name: max(lines[name]), reverse=True)
    named = [name for name in lines if name in order[:NAMED]]

    def paint(axes) -> None:
        for name in lines:
            if name not in named:
                axes.plot(steps, lines[name], color=GRID, linewidth=1)
        handles = []
        for place, name in enumerate(named):
            handles += axes.plot(steps, lines[name], **_style(place, len(steps)))
        axes.set(xlabel="updates", ylabel="mean attention weight", ylim=(-0.03, 1.03))
        drawing.draw_legend(axes, handles, named)

    ends = [f"{name} from {lines[name][0]:.2f} to {lines[name][-1]:.2f}" for name in named]
    others = f" {len(lines) - len(named)} other heads are grey." if len(lines) > len(named) else ""
    description = (
        f"{title} of each head, from {numbers.count(steps[0])} to {numbers.count(steps[-1])} updates: "
        f"{'; '.join(ends)}.{others}"
    )
    return [draw(f"heads-{kind}", title, description, _height(named), paint)]


def _lines(heads: Mapping[int, Mapping[str, HeadScores]], kind: str) -> dict[str, list[float]]:
    """Returns {name of a head: its score at each step}."""
    lines: dict[str, list[float]] = {}
    for scores in heads.values():
        for path, each in scores.items():
            for head, value in enumerate(getattr(each, kind)):
                lines.setdefault(f"{attention_name(path)}, head {head}", []).append(float(value))
    return lines


def lens_charts(inside: Inside) -> list[Chart]:
    """Draws the loss on the prompt after each layer: none of a model with one layer, or without a token to score."""
    losses = [each.loss for each in inside.lens]
    if len(losses) < 2 or not all(map(numbers.known, losses)):
        return []

    def paint(axes) -> None:
        axes.plot(range(len(losses)), losses, **drawing.line_style(1))
        axes.set(xlabel="layer", ylabel="nats per token")
        axes.xaxis.get_major_locator().set_params(integer=True)

    title = f"Loss of the lens on the {'prompt' if all(inside.prompt.scored) else 'answers'}"
    parts = [f"after layer {i} {numbers.nats(loss)}" for i, loss in enumerate(losses)]
    return [draw("lens-loss", title, f"{title}, in nats per token: {'; '.join(parts)}.", HEIGHT, paint)]


def norm_charts(inside: Inside) -> list[Chart]:
    """Draws the stream and the gradient of each layer over training, from details.jsonl."""
    rows = inside.details
    if len(rows) < 2:
        return []
    streams = {layer: [row.get(f"activation_rms/{layer}") for row in rows] for layer in inside.rms}
    gradients = {layer: [layer_norm(row, "gradient_norm", layer) for row in rows] for layer in inside.rms}
    steps = [row["step"] for row in rows]
    return [
        *_layer_charts("stream", "Residual stream", "root mean square", steps, streams),
        *_layer_charts("gradient", "Gradient", "L2 norm", steps, gradients),
    ]


def _layer_charts(
    name: str, title: str, label: str, steps: Sequence[int], lines: Mapping[str, Sequence[float | None]]
) -> list[Chart]:
    """Draws a line per layer, as many to a chart as there are colors. A layer without a number has no line."""
    known = {layer: values for layer, values in lines.items() if any(map(numbers.known, values))}
    layers, size = list(known), len(SERIES)
    groups = [layers[i : i + size] for i in range(0, len(layers), size)]
    return [_layer_chart(f"{name}-{i}", title, label, steps, {layer: known[layer] for layer in group})
            for i, group in enumerate(groups)]  # fmt: skip


def _layer_chart(
    name: str, title: str, label: str, steps: Sequence[int], lines: Mapping[str, Sequence[float | None]]
) -> Chart:
    def paint(axes) -> None:
        handles = []
        for place, values in enumerate(lines.values()):
            points = [value if numbers.known(value) else float("nan") for value in values]
            handles += axes.plot(steps, points, **_style(place, len(steps)))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set(xlabel="updates", ylabel=label)
        drawing.draw_legend(axes, handles, list(lines))

    ends = [f"{layer} {_at_end(values)}" for layer, values in lines.items()]
    description = f"{title}, {label}, of each layer over updates. At the end: {'; '.join(ends)}."
    return draw(name, title, description, _height(list(lines)), paint)


def _style(place: int, points: int) -> dict[str, Any]:
    """Returns the style of a line that has about six markers, at other points than its neighbours'."""
    every = max(1, points // 6)
    return drawing.line_style(place) | {"markevery": (place % every, every)}


def _at_end(values: Sequence[float | None]) -> str:
    last = values[-1]
    return f"{last:.3g}" if numbers.known(last) else "not finite"


def _height(names: Sequence[str]) -> float:
    rows = -(-len(names) // drawing.legend_columns(names))
    return HEIGHT - 0.2 + 0.2 * rows
