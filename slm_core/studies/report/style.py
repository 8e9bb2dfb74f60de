"""The one style of all charts: colors, sizes, and SVG that takes the page's colors.

The colors are those of Okabe and Ito, "Color Universal Design" (2008), which colour-blind readers can tell apart. On
white, orange and sky blue are darker than theirs, and on black blue is lighter: each has a contrast of 3 to 1. Yellow
has none on white, so grey takes its place. Dashes and markers differ too.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

INK = "#1b1b1b"
GRID = "#d9d9d9"
SERIES = ("#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#b87a00", "#b8638f", "#2f8fc7", "#767676")
"""Colors on white. The first is the baseline's."""
LIGHT = {"ink": INK, "grid": GRID, **{f"series-{i}": color for i, color in enumerate(SERIES)}}
DARK = {
    "ink": "#e8e8e8",
    "grid": "#3c4046",
    **dict(
        zip(
            [f"series-{i}" for i in range(len(SERIES))],
            ("#e8e8e8", "#3f9bdc", "#f0793a", "#1dbf92", "#e69f00", "#dd92bc", "#8ccdf2", "#a0a0a0"),
            strict=True,
        )
    ),
}
"""{variable of CSS: color} on a light and on a dark page."""
_VARIABLES = {color: variable for variable, color in reversed(LIGHT.items())}
"""{color of a drawing: variable}. The baseline has the ink's color."""
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 2)), (0, (8, 2)), (0, (1, 2.5)), "-")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 5.2
"""Inches. An SVG is 374 units wide, so that letters of 10 units can be read on a phone of 375 pixels."""
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lm-workbench",
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Chart:
    """A chart for the page and for report.md.

    Args:
      name: of letters, digits and dashes; names its picture and the identifiers inside it.
      title: a few words.
      description: what the chart shows, with numbers, for those who do not see it.
      svg: takes the page's colors and font.
      png: on white.
    """

    name: str
    title: str
    description: str
    svg: str
    png: bytes


def draw(name: str, title: str, description: str, height: float, paint: Callable[[Any], None]) -> Chart:
    """Draws a chart of a height in inches. `paint` gets matplotlib's axes. The same input gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    vector, picture = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        figure = Figure(figsize=(WIDTH, height), dpi=160, layout="constrained")
        axes = figure.subplots()
        axes.set_title(title)
        paint(axes)
        FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
        figure.set_layout_engine("none")  # the layout stays as it is
        for background in (figure.patch, axes.patch):
            background.set_visible(False)
        FigureCanvasSVG(figure).print_svg(vector, metadata={"Date": None})
    return Chart(name, title, description, inline(vector.getvalue(), name, title, description), picture.getvalue())


def inline(svg: str, name: str, title: str, description: str) -> str:
    """Makes an SVG of matplotlib a part of a page: its colors and font, unique identifiers, alternative text."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = _local(element.tag)
        old = {_local(key): value for key, value in element.items()}
        element.attrib.clear()
        element.attrib.update(
            {key: _on_page(key, value, name) for key, value in old.items() if _kept(element.tag, key)}
        )
        for child in list(element):
            if _local(child.tag) in _DROPPED:
                element.remove(child)
    root.attrib = {
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "viewBox": root.attrib["viewBox"],
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, id=f"{name}-{tag}")
        element.text = text
        root.insert(place, element)
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


_DROPPED = ("metadata", "style")


def _local(name: str) -> str:
    """Removes the namespace of a name."""
    return name.rpartition("}")[2]


def _kept(tag: str, attribute: str) -> bool:
    """Says whether an attribute is of use: nothing refers to a group."""
    return (tag, attribute) != ("g", "id")


def _on_page(attribute: str, value: str, name: str) -> str:
    """Returns the value of an attribute for the page."""
    if attribute == "id":
        return f"{name}-{value}"
    if attribute == "href":
        return f"#{name}-{value[1:]}"
    if attribute == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if attribute == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        for color, variable in _VARIABLES.items():
            value = value.replace(color, f"var(--{variable})")
        return value
    return re.sub(r"\d+\.\d{3,}", lambda digits: f"{float(digits.group()):.2f}", value)
