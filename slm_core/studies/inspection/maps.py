"""Draws attention maps and the table of the logit lens as parts of a page.

A map is a picture of one pixel per pair of tokens. Its color is see-through by weight, so that it fits a light and a
dark page. All maps of a page share the labels of their tokens.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm_core.studies.inspection.measure import Inside
from slm_core.studies.inspection.tables import attention_name
from slm_core.studies.report.page import read_template

HERE = Path(__file__).parent
COLOR = (0x1F, 0x7F, 0xC4)
"""A blue with a contrast of 4 to 1 on white and on black."""
CELL = 10
"""Units of a pixel of a map, in which letters are 8 high."""
LETTER = 4.9
"""Width of a letter in these units."""
ZOOM = 1.4
"""Pixels of a large map per unit."""
OPEN = 2
"""Maps that are shown large from the start: those with the largest induction scores."""
SCALE = (0.01, 0.1, 0.3, 1.0)
"""Weights in the legend."""


@dataclass(frozen=True)
class Map:
    """The attention map of a head.

    Args:
      name: an identifier on the page.
      title: names the head.
      description: what it shows, in words.
      picture: a PNG, as a link.
      large: whether it is large from the start.
    """

    name: str
    title: str
    description: str
    picture: str
    large: bool


def maps_markup(inside: Inside) -> str:
    """Returns the attention maps of all heads on the prompt, as HTML."""
    words = inside.prompt.words
    margin, size = round(LETTER * max(map(len, words))) + 6, CELL * len(words)
    scale = [(weight, opacity(np.array(weight)).item() / 255) for weight in SCALE]
    return read_template(HERE / "maps.html.jinja").render(
        maps=_maps(inside), words=words, cell=CELL, margin=margin, size=size, width=round(ZOOM * (margin + size)),
        scale=scale, color="#{:02x}{:02x}{:02x}".format(*COLOR),
    )  # fmt: skip


def _maps(inside: Inside) -> list[Map]:
    scores = inside.heads[inside.step]
    ranked = sorted(
        ((value, path, head) for path, each in scores.items() for head, value in enumerate(each.induction)),
        reverse=True,
    )
    large = {(path, head) for _, path, head in ranked[:OPEN]}
    return [
        Map(
            name=f"map-{path.replace('.', '-')}-{head}",
            title=f"{attention_name(path)}, head {head}",
            description=described(weights, inside.prompt.words),
            picture=picture(weights),
            large=(path, head) in large,
        )
        for path, heads in inside.maps.items()
        for head, weights in enumerate(heads)
    ]


def described(weights: np.ndarray, words: tuple[str, ...]) -> str:
    """Says in words where a head looks: at the token itself, the one before, the first, and its largest other weight.

    Args:
      weights: [time, time].
      words: of the tokens.
    """
    after = np.arange(1, len(weights))
    means = {
        "itself": np.diag(weights)[1:],
        "the one before": weights[after, after - 1],
        "the first": weights[after, 0],
    }
    query, key = np.unravel_index(np.argmax(np.tril(weights, -1)), weights.shape)
    parts = ", ".join(f"{mean.mean():.2f} to {name}" for name, mean in means.items())
    return (
        f"Mean weight of a token: {parts}. The largest weight on an earlier token, {weights[query, key]:.2f}, "
        f"is from {words[query]} (position {query}) to {words[key]} (position {key})."
    )


def opacity(weights: np.ndarray) -> np.ndarray:
    """Returns how opaque weights are drawn, 0 to 255: the square root, so that small ones can be seen."""
    return np.round(255 * np.sqrt(np.clip(weights, 0, 1))).astype(np.uint8)


def picture(weights: np.ndarray) -> str:
    """Draws a map as a PNG of one pixel per pair, and returns it as a link. Rows are queries, columns are keys."""
    from matplotlib.image import imsave

    pixels = np.empty((*weights.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = COLOR, opacity(weights)
    file = io.BytesIO()
    imsave(file, pixels, format="png", metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def lens_markup(inside: Inside) -> str:
    """Returns the table of the logit lens, as HTML: a row per token of the prompt, a column per layer."""
    words = inside.prompt.words
    rows = []
    for position, current in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        cells = [
            {
                "word": inside.words[int(each.likeliest[position])],
                "probability": float(each.probability[position]),
                "right": following and int(each.likeliest[position]) == inside.prompt.tokens[position + 1],
            }
            for each in inside.lens
        ]
        scored = not following or inside.prompt.scored[position]
        rows.append({"word": current, "following": following, "scored": scored, "cells": cells})
    return read_template(HERE / "lens.html.jinja").render(
        layers=[each.layer for each in inside.lens], rows=rows, scored=all(inside.prompt.scored)
    )


def style() -> str:
    """Returns the style of the maps and of the lens."""
    return (HERE / "style.css").read_text(encoding="utf-8")
