"""Makes the sections of a report, in order. The page and report.md show the same ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from slm_core.studies.comparison import Comparison
from slm_core.studies.report import charts, numbers, summary, tables
from slm_core.studies.report.style import Chart
from slm_core.studies.report.tables import Table
from slm_core.studies.results import StudyResult
from slm_core.studies.study import MATCHES


@dataclass(frozen=True)
class Section:
    """A section of the report. What is empty is not shown.

    Args:
      anchor: its identifier on the page.
      title: its heading.
      lead: the paragraph that carries the answer.
      paragraphs: text.
      items: (name or "", text) of a list.
      charts: in order.
      tables: in order.
      markup: HTML of our own, below the tables.
      notes: small text below that.
      code: a command line.
    """

    anchor: str
    title: str
    lead: str = ""
    paragraphs: tuple[str, ...] = ()
    items: tuple[tuple[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    markup: str = ""
    notes: tuple[str, ...] = ()
    code: str = ""


def sections(result: StudyResult, comparisons: Sequence[Comparison]) -> list[Section]:
    """Makes all sections."""
    return [
        _answer(result, comparisons),
        _variants(result, comparisons),
        _learning_curves(result),
        _final_losses(result, comparisons),
        _tuned(result),
        _tokens(result, comparisons),
        _configs(result),
        _twins(result, comparisons),
        _failures(result),
        _versions(result),
        _reading(),
    ]


def answer(result: StudyResult, comparisons: Sequence[Comparison]) -> str:
    """Says in a sentence which variants are better than the baseline."""
    baseline = result.variants[0].name
    if len(result.variants) == 1:
        return f"There is nothing to compare: the study has one variant, {baseline}."
    if not _measured(comparisons):
        return "There is no answer yet: no variant and its baseline have finished a run of the same seed."
    undecided = sum(c.verdict.kind == "undecided" for c in comparisons)
    open_ones = f" Undecided: {undecided} of {len(comparisons)}." if undecided else ""
    return _better([c for c in comparisons if c.verdict.kind == "better"], baseline) + open_ones


def _better(better: Sequence[Comparison], baseline: str) -> str:
    gains = [(c.variant, numbers.nats(-c.pooled.mean)) for c in sorted(better, key=lambda c: c.pooled.mean)]
    than = "the baseline" if baseline == "baseline" else f"the baseline, {baseline}"
    if not gains:
        return f"No variant is shown to be better than {than}."
    if len(gains) == 1:
        ((variant, gain),) = gains
        return f"{variant} is better than {than}: its loss is {gain} nats per token lower."
    each = "; ".join(f"{variant} by {gain}" for variant, gain in gains)
    return (
        f"{len(gains)} variants are better than {than}: {each} nats per token. They were not tested against each other."
    )


def _measured(comparisons: Sequence[Comparison]) -> bool:
    """Says whether a variant and the baseline have finished a run of the same seed."""
    return any(numbers.known(comparison.pooled.mean) for comparison in comparisons)


def _answer(result: StudyResult, comparisons: Sequence[Comparison]) -> Section:
    paragraphs = [f"{MATCHES.get(result.match, f'The variants are matched by {result.match}.')} {_scale(result)}"]
    gone = len(summary.missing(result))
    if gone:
        total = len(result.variants) * len(result.frameworks) * len(result.seeds)
        have = "has" if gone == 1 else "have"
        paragraphs.append(f"{gone} of {total} runs {have} no final loss, so the answer may change. See the failures.")
    items = tuple(_verdict(comparison) for comparison in comparisons)
    lead = answer(result, comparisons)
    return Section("answer", "The question and the answer", lead, tuple(paragraphs), items)


def _verdict(comparison: Comparison) -> tuple[str, str]:
    """Returns the variant's name and its verdict; the name is empty if the verdict starts with it."""
    text = comparison.verdict.text
    return ("" if text.startswith(f"{comparison.variant} ") else comparison.variant), text


def _scale(result: StudyResult) -> str:
    seeds = f"{len(result.seeds)} seed{'' if len(result.seeds) == 1 else 's'}"
    variants = f"{len(result.variants)} variant{'' if len(result.variants) == 1 else 's'}"
    return f"{variants} of {result.preset}, {seeds}, in {summary.framework_names(result)}."


def _variants(result: StudyResult, comparisons: Sequence[Comparison]) -> Section:
    several = (
        (tables.frameworks_table(result, comparisons),) if _measured(comparisons) and len(result.frameworks) > 1 else ()
    )
    notes = [
        "Final loss: mean over the seeds ± half of its 95% interval. "
        "The interval of a difference is often far narrower, because the seeds are paired.",
        "Difference: variant minus baseline, in nats per token. Below zero is better.",
        "Time per run: tokens by tokens per second, without evaluations and start.",
    ]
    return Section(
        "variants",
        "The variants",
        tables=(tables.variants_table(result, comparisons), *several, tables.costs_table(result)),
        notes=tuple(notes),
    )


def _learning_curves(result: StudyResult) -> Section:
    drawn = _side_by_side([charts.learning_curves(result, f) for f in result.frameworks])
    differences = _side_by_side([charts.difference_curves(result, f) for f in result.frameworks])
    text = (
        "Lines are means over the seeds. In the upper charts a band runs from the lowest to the highest seed. "
        "In the charts of differences it is the 95% interval of the mean difference, and below zero is better. "
        "The vertical axes fit what follows the first fifth of the run: before it, every loss falls fast."
    )
    paragraphs = (text if drawn else "No run has finished.",)
    return Section("learning-curves", "Learning curves", paragraphs=paragraphs, charts=(*drawn, *differences))


def _side_by_side(by_twin: Sequence[Sequence[Chart]]) -> list[Chart]:
    """Puts the twins' charts of the same variants side by side."""
    return [chart for row in zip_longest(*by_twin) for chart in row if chart]


def _final_losses(result: StudyResult, comparisons: Sequence[Comparison]) -> Section:
    drawn = charts.final_differences(result, comparisons)
    text = (
        "Each dot is one seed: the variant's final loss minus the baseline's of the same seed and twin. "
        "An arrow stands for a mean beyond the axis."
    )
    return Section(
        "final-losses",
        "Final losses per seed",
        paragraphs=(text if drawn else "No variant and its baseline have finished a run of the same seed.",),
        charts=tuple(drawn),
        tables=(tables.losses_table(result),),
    )


def _tuned(result: StudyResult) -> Section:
    failed = sum(trial.loss is None for trial in result.trials)
    text = f"{len(result.trials)} trials chose each variant's own settings. A ring marks the best trial." + (
        f" {failed} of them ended without a loss." if failed else ""
    )
    paragraphs = (text if result.trials else "No setting was tuned: every variant has the value of the base config.",)
    return Section(
        "tuned", "Loss over the tuned settings", paragraphs=paragraphs, charts=tuple(charts.tuned_settings(result))
    )


def _tokens(result: StudyResult, comparisons: Sequence[Comparison]) -> Section:
    text = (
        "A part below 1 says that the variant needs fewer tokens than the baseline to reach the baseline's final loss."
    )
    return Section(
        "tokens",
        "Tokens to reach the baseline's loss",
        paragraphs=(text if _measured(comparisons) else "There is no comparison yet.",),
        charts=tuple(charts.tokens_to_baseline(result, comparisons)),
        tables=(tables.tokens_table(result, comparisons),) if _measured(comparisons) else (),
    )


def _configs(result: StudyResult) -> Section:
    table, notes = tables.config_table(result)
    return Section(
        "configs",
        "What differs in the configs",
        paragraphs=() if len(table.head) > 1 else ("No field differs.",),
        tables=(table,) if len(table.head) > 1 else (),
        notes=notes,
    )


def _twins(result: StudyResult, comparisons: Sequence[Comparison]) -> Section:
    if len(result.frameworks) < 2:
        only = summary.framework_name(result.frameworks[0])
        text = f"Only {only} ran, so rounding could not be measured. Run both twins to see the rounding floor."
        return Section("twins", "The agreement of the twins", paragraphs=(text,))
    text = (
        "The twins of one seed differ by rounding alone. Their difference shows what rounding does to this experiment."
    )
    return Section(
        "twins",
        "The agreement of the twins",
        paragraphs=(text,),
        tables=(tables.twins_table(result, comparisons),),
    )


def _failures(result: StudyResult) -> Section:
    table = tables.failures_table(result)
    paragraphs = () if table.rows else ("Every run has finished.",)
    return Section("failures", "Failures", paragraphs=paragraphs, tables=(table,) if table.rows else ())


def _versions(result: StudyResult) -> Section:
    return Section(
        "versions",
        "Versions, machine and command",
        paragraphs=(f"Machine: {result.machine}",),
        tables=(tables.versions_table(result),),
        code=result.command,
    )


def _reading() -> Section:
    sentences = (
        "Paired: runs of one seed share initial values and the order of batches, so each seed gives one difference, "
        "variant minus baseline, which is free of most of the noise.",
        "Interval: if the study were made again many times, 95% of such intervals would hold the true mean difference; "
        "Holm's p value is corrected for the number of comparisons.",
        "Rounding floor: the twins compute the same function and differ by rounding alone, so a difference as small as "
        "theirs is not called a gain.",
    )
    return Section("reading", "How to read this page", paragraphs=sentences)
