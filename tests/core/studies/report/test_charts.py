"""The charts of a report: their colors, their axes, and what they are made of."""

import dataclasses
import itertools
import math
import re

import pytest

from slm_core.studies.report import charts, drawing, style, summary
from slm_core.studies.results import StudyResult, Trial
from tests.core.studies.report.made_up_study import cell, facts, many, study


def luminance(color: str) -> float:
    """Computes the relative luminance of a color. Source: WCAG 2.2, "relative luminance"."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colors", "page"), [(style.LIGHT, "#ffffff"), (style.DARK, "#131518")])
def test_every_line_stands_out_from_the_page(colors, page):
    for name, color in colors.items():
        low, high = sorted([luminance(color), luminance(page)])
        ratio = (high + 0.05) / (low + 0.05)
        assert ratio >= (1.2 if name == "grid" else 3), f"{name} {color} on {page}: {ratio:.2f}"  # WCAG 2.2, 1.4.11


def test_dashes_and_markers_tell_variants_apart_without_color():
    styles = [drawing.line_style(place) for place in range(charts.PER_CHART)]
    looks = [(line["linestyle"], line["marker"]) for line in styles]
    assert all(a != b and a[1] != b[1] for a, b in itertools.combinations(looks, 2))


def test_many_variants_are_split_and_keep_their_colors():
    groups = charts._groups(many(20, seeds=1, points=1).result)
    assert [end for end, _ in groups] == ["-1", "-2", "-3"]
    names = [name for _, places in groups for name in places]
    assert len(set(names)) == 20
    assert all(list(places.values()) == list(range(len(places))) for _, places in groups)
    assert len({next(iter(places)) for _, places in groups}) == 1  # the baseline is in every chart


def test_a_variant_that_is_far_out_does_not_hide_the_others():
    near, far = [-0.01, 0.002], [3.1, 3.3]
    low, high = charts._range([near, [0.004, 0.012], [-0.003, 0.001], far])
    assert -0.02 < low < -0.01 and 0.012 < high < 0.02
    assert charts._range([far])[1] > 3.3
    assert charts._range([[0.0]])[0] < 0


def test_long_names_are_shortened_in_their_middle():
    short = drawing.short("model.attention.n_kv_heads=1, model.position.kind=rope, model.norm.kind=dyt")
    assert len(short) <= drawing.LONGEST
    assert short.startswith("model.attention") and short.endswith("norm.kind=dyt")
    assert drawing.short("_hidden") == " _hidden"


def test_dollars_and_odd_names_are_text_in_an_svg():
    def paint(axes):
        axes.set_xlabel('$x$ -- <b> & "c"')

    chart = style.draw("one", "a < b", "c & d", 2, paint)
    assert '>$x$ -- &lt;b&gt; &amp; "c"</text>' in chart.svg
    assert '<title id="one-title">a &lt; b</title><desc id="one-desc">c &amp; d</desc>' in chart.svg
    assert chart.svg.startswith('<svg role="img" aria-labelledby="one-title one-desc" viewBox="0 0 374.4 144"')
    assert "DejaVu" not in chart.svg and "xmlns" not in chart.svg and "matplotlib.org" not in chart.svg


def test_learning_rates_have_a_logarithmic_axis():
    result = study(seeds=1, points=1, frameworks=["torch"]).result
    words = re.findall(r">([^<]*)</text>", charts.tuned_settings(result)[0].svg)
    assert {"0.0001", "0.001", "0.01", "optim.lr"} <= set(words)


def test_each_tuned_setting_has_a_chart_and_words_are_places():
    result = study(seeds=1, points=1, frameworks=["torch"]).result
    trials = [
        Trial(result.variants[0].name, {"optim.lr": lr, "optim.kind": kind}, loss)
        for lr, kind, loss in [(1e-3, "adamw", 1.5), (2e-3, "lion", 1.4), (2e-3, "adamw", None)]
    ]
    first, second = charts.tuned_settings(dataclasses.replace(result, trials=tuple(trials)))
    assert (first.title, second.title) == ("Loss over optim.lr", "Loss over optim.kind")
    assert "multi-head 1.4000 at lion" in second.description
    assert {"adamw", "lion"} <= set(re.findall(r">([^<]*)</text>", second.svg))


def test_a_variant_with_fewer_seeds_says_so():
    result = study().result  # one run of the last variant failed in Flax
    assert "no positions (4 seeds)" in charts.learning_curves(result, "flax")[0].description
    assert "seeds)" not in charts.learning_curves(result, "torch")[0].description


def test_the_interval_of_a_mean_is_that_of_a_table():
    # 2.776 is the 97.5% quantile of Student's t with 4 degrees of freedom, in any printed table.
    mean = summary.mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean.mean, mean.n) == (3.0, 5)
    assert mean.half == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=1e-3)
    assert math.isnan(summary.mean([1.0]).half) and math.isnan(summary.mean([]).mean)


def two_variants(*evaluated: int) -> StudyResult:
    """Makes a study of one seed, in which the variants are evaluated so many times."""
    cells = [cell(name, "torch", 0, 1.0, n, True, False) for name, n in zip("ab", evaluated, strict=True)]
    result = study(["a", "b"], [0.0, 0.0], ["torch"], seeds=1).result
    return dataclasses.replace(result, cells=tuple(cells), variants=(facts("a", 0), facts("b", 1)))


def test_differences_between_evaluations_are_of_a_line():
    result = two_variants(2, 4)  # the baseline after 300 and 600 updates, the variant after 150, 300, 450 and 600
    base, other = (summary.curves(result, name, "torch") for name in "ab")
    curve = summary.difference_curves(result, "b", "torch")
    assert list(curve.tokens) == [300 * 2048, 450 * 2048, 600 * 2048]
    middle = other.losses[0][2] - base.losses[0].mean()
    assert list(curve.losses[0]) == pytest.approx([0, middle, 0])


def test_curves_have_the_points_that_all_seeds_have():
    result = study(seeds=2, points=6).result
    first, *others = result.cells
    cut = dataclasses.replace(first, evaluations=first.evaluations[1:])
    assert len(summary.curves(dataclasses.replace(result, cells=(cut, *others)), first.variant, "torch").tokens) == 5


def test_a_run_whose_loss_is_not_finite_is_missing():
    result = study(seeds=1, failed=False).result
    first, *others = result.cells
    bad = dataclasses.replace(first.evaluations[-1], loss=math.nan)
    result = dataclasses.replace(result, cells=(dataclasses.replace(first, evaluations=(bad,)), *others))
    assert summary.missing(result) == [(first.variant, "torch", 0, "the final loss is not finite")]
    assert summary.final_losses(result, first.variant) == {0: result.cells[1].loss}
