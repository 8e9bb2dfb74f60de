"""Writes docs/statistics.md: what real runs say about the statistics of a comparison."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slm_core.studies.calibration.charts import GOAL, found_rates, variance_bars
from slm_core.studies.calibration.pairing import VarianceRatio, variance_ratios
from slm_core.studies.calibration.planted import Planted, measure
from slm_core.studies.calibration.resolution import Resolution, resolution
from slm_core.studies.comparison import differences
from slm_core.studies.report import numbers
from slm_core.studies.report.markdown import escaped
from slm_core.studies.report.style import Chart
from slm_core.studies.report.summary import framework_names
from slm_core.studies.results import StudyResult
from slm_core.studies.statistics import ALPHA, CONFIDENCE
from slm_core.studies.tables import markdown_table

SEEDS = (3, 5, 8)
"""Seeds of a comparison."""
DEFAULT = 5
"""Seeds of the comparisons that the goal of false wins is about: the default of scripts/compare.py."""
EFFECTS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Planted differences, in standard deviations of the difference of two runs."""
COMPARISONS, PLANTED = 200, 500
"""Comparisons of a variant with itself, and of each planted difference."""
LEVEL, DIFFERENCE, MOST_SEEDS, MINUTES = 0.01, 0.003, 5, 30
"""The goal of the last section: this p value, for this difference in nats, with so many seeds, in so many minutes."""


@dataclass(frozen=True)
class Figures:
    """Everything that the page shows.

    Args:
      pool: the study of one variant with many seeds.
      itself: its comparisons with itself, one row per number of seeds.
      planted: the same with planted differences.
      paired: the studies whose pairs are measured.
      ratios: one per pair of variants.
      small: the study of a small difference.
      resolution: what it resolves.
    """

    pool: StudyResult
    itself: tuple[Planted, ...]
    planted: tuple[Planted, ...]
    paired: tuple[StudyResult, ...]
    ratios: tuple[VarianceRatio, ...]
    small: StudyResult
    resolution: Resolution


def figures(pool: StudyResult, paired: Sequence[StudyResult], small: StudyResult) -> Figures:
    """Computes all figures of the page; takes minutes.

    Raises:
      UserError: a study has too few seeds or another number of variants than it needs.
    """
    ratios = tuple(ratio for study in paired for ratio in variance_ratios(study))
    resolved = resolution(small, LEVEL)
    itself = tuple(measure(pool, n, 0.0, COMPARISONS, CONFIDENCE) for n in SEEDS)
    # So wide that all ranges of the table together hold 95% of the time (Bonferroni).
    together = 1 - (1 - CONFIDENCE) / (len(SEEDS) * len(EFFECTS))
    planted = tuple(measure(pool, n, effect, PLANTED, together) for n in SEEDS for effect in EFFECTS)
    return Figures(pool, itself, planted, tuple(paired), ratios, small, resolved)


def write_page(made: Figures, target: Path, command: str) -> list[Path]:
    """Writes the page and its pictures beside it; returns their paths."""
    charts = {"planted": found_rates(made.planted)}
    if made.ratios:
        charts["pairing"] = variance_bars(made.ratios)
    pictures = {name: target.with_name(f"{target.stem}-{name}.png") for name in charts}
    for name, path in pictures.items():
        path.write_bytes(charts[name].png)
    images = {name: _image(chart, pictures[name]) for name, chart in charts.items()}
    target.write_text(page(made, command, images), encoding="utf-8")
    return [target, *pictures.values()]


def page(made: Figures, command: str, images: dict[str, str]) -> str:
    """Returns the text of the page.

    Args:
      command: the command that writes it.
      images: {"planted" or "pairing": a line of Markdown that shows the picture}.
    """
    blocks = [
        *_head(made, command),
        *_itself(made),
        *_planted(made, images["planted"]),
        *_pairing(made, images.get("pairing", "")),
        *_small(made),
        *_commands(made, command),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _image(chart: Chart, path: Path) -> str:
    return f"![{escaped(chart.description)}]({path.name})"


def _head(made: Figures, command: str) -> list[str]:
    goals = [_goal_itself(made), _goal_planted(made), _goal_pairing(made), _goal_small(made)]
    software = ", ".join(f"{name} {version}" for name, version in made.pool.versions.items())
    return [
        "# How far the statistics can be trusted",
        f"Written by `{command}`, not by hand. [comparing.md](comparing.md) says how a comparison is made. This page"
        " tests its statistics on real runs, of which the truth is known.",
        markdown_table(("question", "goal", "measured", "reached"), goals),
        f"{software}. {made.pool.machine}.",
    ]


def _goal_itself(made: Figures) -> tuple[str, ...]:
    row = next(row for row in made.itself if row.n == DEFAULT)
    question = f"Does a variant win against itself? {row.rate.trials} comparisons of {row.n} seeds"
    measured = f"{_percent(row.rate.share)}, 95% interval {_range(*row.rate.interval)}"
    return question, f"at most {_percent(ALPHA)}", measured, _yes(row.rate.share <= ALPHA)


def _goal_planted(made: Figures) -> tuple[str, ...]:
    good = sum(row.expected for row in made.planted)
    off = max(abs(row.rate.share - row.power) for row in made.planted)
    measured = f"{good} of {len(made.planted)} rates are, the largest gap is {100 * off:.1f} points"
    question = "Is a planted difference found as often as the power function says?"
    return question, "within chance", measured, _yes(good == len(made.planted))


def _goal_pairing(made: Figures) -> tuple[str, ...]:
    question, goal = "Which part of the variance does pairing leave?", "at most 1/3, for 6 pairs"
    if not made.ratios:
        return question, goal, "no pair was measured", "no"
    ratios = [each.ratio for each in made.ratios]
    good = sum(ratio <= GOAL for ratio in ratios)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}, median {statistics.median(ratios):.3f}"
    measured = f"{good} of {len(ratios)} pairs: {spread}"
    return question, goal, measured, _yes(good == len(ratios) >= 6)


def _goal_small(made: Figures) -> tuple[str, ...]:
    found, part = made.resolution, made.resolution.comparison.pooled
    question = "Which difference of two variants of one million parameters is resolved?"
    goal = f"{DIFFERENCE} nats at p < {LEVEL}, at most {MOST_SEEDS} seeds and {MINUTES} minutes on 2 cores"
    measured = (
        f"{numbers.difference(part.mean)} nats at {_p(part.p_t)}; from"
        f" {_fine(found.resolved)} nats on, {part.n} seeds, {numbers.time(found.seconds)}"
    )
    reached = found.resolved <= DIFFERENCE and part.p_t < LEVEL and part.n <= MOST_SEEDS
    return question, goal, measured, _yes(reached and found.seconds <= 60 * MINUTES)


def _itself(made: Figures) -> list[str]:
    pool, facts = made.pool, made.pool.variants[0]
    runs = len(pool.seeds)
    default = next(row for row in made.itself if row.n == DEFAULT)
    rows = [
        (
            str(row.n),
            f"{row.rate.found} of {row.rate.trials}",
            _percent(row.rate.share),
            _range(*row.rate.interval),
            _range(row.low, row.high),
        )
        for row in made.itself
    ]
    head = ("seeds", "wins", "share", "95% interval", "range of normal losses")
    return [
        "## A variant against itself",
        f"One variant of {facts.parameters:,} parameters was trained with {runs} seeds, {facts.steps} updates each, in"
        f" {framework_names(pool)}. The seeds are shuffled, and cut into groups. Two groups are compared as two"
        " variants, by the functions that write a report. The k-th seeds of two groups are a pair, so every difference"
        " is one of two independent runs, and every win is false. A win is a verdict of better or worse.",
        markdown_table(head, rows),
        "Comparisons of one shuffle share no run. A comparison of"
        f" {DEFAULT} seeds takes {2 * DEFAULT} runs, so a shuffle gives {runs // (2 * DEFAULT)}, and"
        f" {COMPARISONS} comparisons use each run about {COMPARISONS * 2 * DEFAULT / runs:.0f} times. The 95% interval"
        " takes the comparisons for independent. The last column does not: it is what 95% of pools of made-up normal"
        " losses give, cut into the same groups.",
        f"A test at the level of 5% has 5% of false wins in the long run. So {COMPARISONS} comparisons exceed 5% by"
        f" chance alone in {_percent(default.exceeding)} of such pools.",
    ]


def _planted(made: Figures, image: str) -> list[str]:
    rows = [
        (
            str(row.n),
            f"{row.effect:g}",
            numbers.nats(row.difference),
            _percent(row.rate.share),
            _percent(row.power),
            _range(row.low, row.high),
            _yes(row.expected),
        )
        for row in made.planted
    ]
    head = ("seeds", "planted, sd", "planted, nats", "found", "power function", "range", "within")
    return [
        "## A planted difference",
        "The runs are the same. A constant is added to every loss of the second group. Its size is given in standard"
        f" deviations of the difference of two runs. Each row is {PLANTED:,} comparisons. The power function is"
        " `detection_rate`, which also says how many more seeds an undecided comparison needs.",
        image,
        markdown_table(head, rows),
        "Range: what made-up normal losses give, cut into the same groups. In 95% of such pools, all"
        f" {len(rows)} shares lie within their ranges. In the picture, lines are the power function and bars the"
        " ranges.",
    ]


def _pairing(made: Figures, image: str) -> list[str]:
    rows = [
        (
            escaped(each.study),
            escaped(f"{each.variant} − {each.baseline}"),
            str(each.n),
            _fine(each.unpaired**0.5),
            _fine(each.paired**0.5),
            f"{each.ratio:.3f}",
            f"{each.low:.3f} to {each.high:.3f}",
            _yes(each.ratio <= GOAL),
        )
        for each in made.ratios
    ]
    head = ("study", "pair", "seeds", "unpaired sd", "paired sd", "ratio of variances", "95% interval", "at most 1/3")
    return [
        "## What pairing leaves of the noise",
        "Two variants of one seed share initial values where names and shapes agree, the order of batches and the"
        " validation text. The unpaired variance of a difference is the sum of both variances: that of runs of"
        " different seeds. The paired one is the variance of the differences per seed. A ratio of 0.1 says that pairing"
        " needs a tenth of the seeds. Standard deviations are in nats per token.",
        image,
        markdown_table(head, rows) if rows else "No study with at least two seeds was given.",
        "The interval is exact for normal losses of equal variance (Pitman, 1939; Morgan, 1939). With few seeds it is"
        " wide.",
        *_studies(made.paired),
    ]


def _studies(paired: Sequence[StudyResult]) -> list[str]:
    lines = [
        f"- {escaped(study.name)}: {study.variants[0].parameters:,} parameters, {study.variants[0].steps} updates,"
        f" {len(study.seeds)} seeds, {framework_names(study)}"
        for study in paired
    ]
    return ["\n".join(lines)] if lines else []


def _small(made: Figures) -> list[str]:
    found, study = made.resolution, made.small
    comparison, part = found.comparison, found.comparison.pooled
    facts = study.variants[0]
    per_seed = differences(study, comparison.variant)
    measured = [
        ("mean difference", f"{_signed(part.mean)} nats"),
        ("95% interval", f"{_signed(part.low)} to {_signed(part.high)} nats"),
        ("p of the paired t test", numbers.p_value(part.p_t)),
        ("standard deviation of the differences", f"{_fine(part.sd)} nats"),
        ("standard error of the mean", f"{_fine(found.error)} nats"),
        (f"mean difference that has p = {LEVEL} with {part.n} seeds", f"{_fine(found.resolved)} nats"),
        (f"true difference that is found at p < {LEVEL} in 80% of studies", f"{_fine(found.visible)} nats"),
        ("time of all runs", numbers.time(found.seconds)),
    ]
    return [
        "## A small difference",
        f"{escaped(study.question)} Two variants of {facts.parameters:,} parameters, {escaped(comparison.baseline)} and"
        f" {escaped(comparison.variant)}, were trained for {facts.steps} updates with {part.n} seeds in"
        f" {framework_names(study)}.",
        markdown_table(
            ("seed", f"{comparison.variant} − {comparison.baseline}, nats"),
            [(str(seed), _signed(value)) for seed, value in per_seed.items()],
        ),
        markdown_table(("what", "measured"), measured),
        f"The verdict of the report: {escaped(comparison.verdict.text)}.",
        "The time runs from the first file of the first run to the last file of the last run. It holds for an otherwise"
        " idle machine.",
    ]


def _commands(made: Figures, command: str) -> list[str]:
    studies = [made.pool, *made.paired, made.small]
    lines = dict.fromkeys(study.command for study in studies)
    return [
        "## Make it again",
        "Each study is resumed by its command if it was interrupted. The last command writes this page.",
        "```\n" + "\n".join([*lines, command]) + "\n```",
    ]


def _p(value: float) -> str:
    return f"p = {numbers.p_value(value)}".replace("= <", "< ")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%".replace(".0%", "%")


def _range(low: float, high: float) -> str:
    return f"{_percent(low)} to {_percent(high)}"


def _fine(value: float) -> str:
    """Writes a size of nats with two digits that count."""
    return f"{value:.2g}" if value < 1e-4 else f"{value:.5f}"


def _signed(value: float) -> str:
    return f"{value:+.5f}".replace("-", numbers.MINUS)


def _yes(reached: bool) -> str:
    return "yes" if reached else "**no**"
