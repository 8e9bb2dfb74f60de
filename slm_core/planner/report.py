"""Shows predictions: as lines of text, and as a picture."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slm_core.config import Config
from slm_core.planner import PARTS, Prediction, Twin, assumptions, predict
from slm_core.planner.resident import compute_dtype
from slm_core.planner.search import cheapest, helpful, largest_micro_batch, smallest

TWINS = {"torch": "PyTorch", "flax": "Flax"}
SHOWN = (*PARTS, "snapshot")
LETTERS = dict(zip(SHOWN, "WGOALSC", strict=True))
"""{part: its letter in a bar}. The workspace is S, because W is taken; the snapshot, a copy, is C."""
COLORS = dict(zip(SHOWN, ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#bbbbbb", "#aa3377"), strict=True))
SMALL = 1e8
"""Bytes below which a number is shown in MB."""
_BAR = 60  # characters


def gigabytes(count: float) -> str:
    """Formats 1234567890 as "1.23 GB" and 12345678 as "12.3 MB". GB are 1e9 bytes."""
    return f"{count / 1e9:.2f} GB" if count >= SMALL else f"{count / 1e6:.1f} MB"


def parts(prediction: Prediction) -> str:
    """Formats a prediction in GB as "weights 0.50, gradients 0.50, ...", or a small one as "weights 5.00 MB, ..."."""
    unit, word = (1e9, "") if prediction.total >= SMALL else (1e6, " MB")
    sizes = {name: getattr(prediction, name) for name in _shown([prediction])}
    return ", ".join(f"{name} {size / unit:.2f}{word}" for name, size in sizes.items())


def _shown(predictions: Iterable[Prediction]) -> list[str]:
    """Lists the parts of an update, and the snapshot if there is one."""
    return [*PARTS, *(["snapshot"] if any(p.snapshot for p in predictions) else [])]


def table(predictions: Mapping[str, Prediction], limit: float) -> list[str]:
    """Formats one line per part, one column per twin, and the totals beside the limit.

    Args:
      predictions: {"torch" or "flax": prediction}.
      limit: bytes; infinite: no limit.
    """
    unit, word = (1e9, "GB") if max(p.total for p in predictions.values()) >= 1e9 else (1e6, "MB")
    lines = [f"{'':14}" + "".join(f"{TWINS[twin]:>10}" for twin in predictions)]
    for part in _shown(predictions.values()):
        cells = "".join(f"{getattr(prediction, part) / unit:10.2f}" for prediction in predictions.values())
        lines.append(f"{LETTERS[part]} {part:12}{cells}")
    totals = "".join(f"{prediction.total / unit:10.2f}" for prediction in predictions.values())
    return [*lines, f"  {'total':12}{totals} {word}" + (f" of {gigabytes(limit)}" if limit < float("inf") else "")]


def bars(predictions: Mapping[str, Prediction], limit: float) -> list[str]:
    """Draws a bar of the parts' letters per twin, with a mark at the limit unless that is far away."""
    largest = max(prediction.total for prediction in predictions.values())
    near = limit < 10 * largest
    scale = _BAR / (max(largest, limit) if near else largest)
    mark = round(limit * scale) if near else None
    lines = []
    for twin, prediction in predictions.items():
        bar, end = "", 0.0
        for part in SHOWN:
            end += getattr(prediction, part) * scale
            bar += LETTERS[part] * (round(end) - len(bar))
        bar = bar.ljust(_BAR)
        lines.append(f"{TWINS[twin]:8}" + (bar if mark is None else f"{bar[:mark]}|{bar[mark:]}").rstrip())
    return lines


def advice(config: Config, vocab_size: int, twins: list[Twin], limit: float) -> list[str]:
    """Says for each twin which is the largest micro-batch that fits, and which settings cost the least time.

    If no choice of the open fields fits, it also says which three changes save the most.
    """
    assumed = assumptions(config)
    lines = [f"predicted{assumed}"] if assumed else []
    for twin in twins:
        name = TWINS[twin.framework]
        largest = largest_micro_batch(config, vocab_size, twin, limit)
        lines.append(f"{name}: largest micro-batch that fits: {largest or 'none'}")
        best = cheapest(_opened(config), vocab_size, twin, limit)
        if best is not None:
            total = predict(best, vocab_size, twin).total
            lines.append(f"{name}: cheapest settings that fit: {_settings(best)} ({gigabytes(total)})")
        if cheapest(config, vocab_size, twin, limit) is None:
            changes = helpful(smallest(config, vocab_size, twin), vocab_size, twin)[:3]
            text = "; ".join(f"{change.text} ({gigabytes(change.total)})" for change in changes)
            lines.append(f"{name}: does not fit; these changes save the most: {text or 'none'}")
    return lines


def _opened(config: Config) -> Config:
    """Opens the fields that the planner chooses."""
    memory = dataclasses.replace(config.memory, remat="auto", loss_chunk=None)
    return dataclasses.replace(config, memory=memory, train=dataclasses.replace(config.train, micro_batch_size=0))


def _settings(config: Config) -> str:
    values: dict[str, Any] = {
        "train.micro_batch_size": config.train.micro_batch_size,
        "memory.remat": config.memory.remat,
        "memory.loss_chunk": config.memory.loss_chunk,
    }
    return " ".join(f"{name}={value}" for name, value in values.items())


def summary(config: Config, vocab_size: int) -> str:
    """Describes in one line which settings the prediction is for."""
    train, length, compute = config.train, config.data.seq_len, compute_dtype(config.precision)
    return (
        f"micro-batches of {train.micro_batch_size or train.batch_size} of {train.batch_size} x {length} tokens,"
        f" vocabulary {vocab_size}, {compute}, optim.kind={config.optim.kind}, memory.remat={config.memory.remat},"
        f" memory.loss_chunk={config.memory.loss_chunk}"
    )


def picture(path: Path, titles: Mapping[str, Mapping[str, Prediction]], limit: float) -> None:
    """Draws stacked bars, one per title and twin.

    Args:
      path: a .png or .svg to write.
      titles: {title: {"torch" or "flax": prediction}}.
      limit: bytes, drawn as a line; infinite: no line.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [(f"{title}\n{TWINS[twin]}", p) for title, twins in titles.items() for twin, p in twins.items()]
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.5 * len(rows)), layout="constrained")
    left = [0.0] * len(rows)
    for part in _shown(prediction for _, prediction in rows):
        widths = [getattr(prediction, part) / 1e9 for _, prediction in rows]
        axes.barh(range(len(rows)), widths, left=left, color=COLORS[part], label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    if limit < float("inf"):
        axes.axvline(limit / 1e9, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("GB of 1e9 bytes, predicted")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(SHOWN), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
