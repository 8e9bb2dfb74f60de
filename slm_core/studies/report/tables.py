"""Makes the tables of a report. The page and report.md show the same cells."""

from collections.abc import Sequence
from dataclasses import dataclass

from slm_core.studies.comparison import Comparison
from slm_core.studies.report import numbers, summary
from slm_core.studies.report.numbers import MISSING
from slm_core.studies.results import StudyResult, VariantFacts
from slm_core.studies.statistics import Paired


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
      caption: says what it shows.
      head: a title per column.
      rows: cells; the first of a row is its header.
      words: the columns that hold words, which stand on the left. Numbers stand on the right.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)


def variants_table(result: StudyResult, comparisons: Sequence[Comparison]) -> Table:
    """Makes the table of the answer: final loss, difference to the baseline, verdict; and on a task the accuracy."""
    on_task = result.fields.get("data.source") == "task"
    by_name = {comparison.variant: comparison for comparison in comparisons}
    rows = []
    for variant in result.variants:
        losses = list(summary.final_losses(result, variant.name).values())
        verdict = "baseline" if variant is result.variants[0] else "no result"
        difference = (MISSING,) * 4
        if comparison := by_name.get(variant.name):
            verdict = comparison.verdict.kind
            p_and_floor = numbers.p_value(comparison.p_holm), numbers.rounding(comparison.floor)
            difference = (*_difference(comparison.pooled), *p_and_floor)
        accuracy = (_accuracy(summary.accuracies(result, variant.name)),) if on_task else ()
        rows.append((variant.name, verdict, _loss(losses), *accuracy, *difference, str(len(losses))))
    accuracy = ("accuracy",) if on_task else ()
    tested = ("difference", "95% interval", "Holm p", "rounding floor", "seeds")
    head = ("variant", "verdict", "final loss, nats", *accuracy, *tested)
    return Table("Final validation loss, and its paired difference to the baseline", head, tuple(rows), (0, 1))


def _accuracy(values: Sequence[float]) -> str:
    """Shows the mean accuracy, and the lowest and highest of the runs."""
    if not values:
        return MISSING
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def frameworks_table(result: StudyResult, comparisons: Sequence[Comparison]) -> Table:
    """Makes the table of the differences in each twin alone."""
    rows = []
    for comparison in comparisons:
        for framework, paired in comparison.frameworks.items():
            p_values = numbers.p_value(paired.p_t), numbers.p_value(paired.p_permutation)
            name = summary.framework_name(framework)
            rows.append((comparison.variant, name, *_difference(paired), str(paired.n), *p_values))
    head = ("variant", "twin", "difference, nats", "95% interval", "seeds", "p (paired t)", "p (permutation)")
    return Table("The differences in each twin, before the correction of Holm", head, tuple(rows), (0, 1))


def costs_table(result: StudyResult) -> Table:
    """Makes the table of what each variant costs: parameters, operations, speed, memory, time."""
    rows = [
        (
            variant.name,
            numbers.count(variant.parameters),
            numbers.flops(variant.flops),
            numbers.flops(None if variant.flops is None else variant.flops * variant.steps),
            f"{variant.steps:,}",
            numbers.count(summary.tokens_of_run(variant)),
            *(cell for framework in result.frameworks for cell in _speed(result, variant, framework)),
        )
        for variant in result.variants
    ]
    measured = ("tokens/s", "peak memory", "time per run")
    columns = tuple(
        f"{title}, {summary.framework_name(framework)}" for framework in result.frameworks for title in measured
    )
    head = ("variant", "parameters", "FLOPs per update", "FLOPs per run", "updates", "tokens", *columns)
    return Table("What each variant costs", head, tuple(rows))


def losses_table(result: StudyResult) -> Table:
    """Makes the table of the final loss of every run."""
    rows = []
    for variant in result.variants:
        for framework in result.frameworks:
            losses = summary.final_losses(result, variant.name, framework)
            cells = [numbers.nats(losses.get(seed)) for seed in result.seeds]
            rows.append((variant.name, summary.framework_name(framework), *cells))
    return Table("Final loss of every run, nats per token", ("variant", "twin", *_seeds(result)), tuple(rows), (0, 1))


def tokens_table(result: StudyResult, comparisons: Sequence[Comparison]) -> Table:
    """Makes the table of the tokens at which each variant reaches the baseline's final loss."""
    base = summary.tokens_of_run(result.variants[0])
    rows = []
    for comparison in comparisons:
        tokens = comparison.tokens
        reached = f"{tokens.reached} of {tokens.n}"
        if not numbers.known(tokens.ratio):
            rows.append((comparison.variant, "not reached", MISSING, MISSING, MISSING, reached))
            continue
        saved = f"{100 * (tokens.ratio - 1):+.0f}%".replace("-", numbers.MINUS)
        interval = f"{tokens.low:.2f} to {tokens.high:.2f}" if numbers.known(tokens.high) and tokens.n > 1 else MISSING
        count = numbers.count(tokens.ratio * base)
        rows.append((comparison.variant, count, f"{tokens.ratio:.2f}", interval, saved, reached))
    head = ("variant", "tokens", "per token of the baseline", "95% interval", "more or fewer", "seeds that reach it")
    return Table(f"The baseline trains on {numbers.count(base)} tokens", head, tuple(rows))


def config_table(result: StudyResult) -> tuple[Table, tuple[str, ...]]:
    """Makes the table of the fields that differ. A star marks what matching, tuning or a recommendation changed.

    Returns:
      The table, and one line per note, with the variant's name.
    """
    fields = dict.fromkeys(field for v in result.variants for field in (*v.overrides, *v.adjusted))
    differing = [f for f in fields if len({repr(_field(result, v, f)) for v in result.variants}) > 1]
    rows = tuple((v.name, *(_field_cell(result, v, field) for field in differing)) for v in result.variants)
    notes = tuple(f"{v.name}: {note}" for v in result.variants for note in v.notes)
    caption = "The fields whose values differ" + (
        "; * was adjusted" if any(v.adjusted for v in result.variants) else ""
    )
    return Table(caption, ("variant", *differing), rows, tuple(range(len(differing) + 1))), notes


def twins_table(result: StudyResult, comparisons: Sequence[Comparison]) -> Table:
    """Makes the table of the second twin's final loss minus the first's, per variant and seed."""
    first, second = result.frameworks[:2]
    floors = {comparison.variant: comparison.floor for comparison in comparisons}
    rows = []
    for variant in result.variants:
        left, right = (summary.final_losses(result, variant.name, framework) for framework in (first, second))
        gaps = {seed: right[seed] - left[seed] for seed in left if seed in right}
        largest = max((abs(gap) for gap in gaps.values()), default=None)
        cells = [numbers.signed_rounding(gaps.get(seed)) for seed in result.seeds]
        rows.append((variant.name, *cells, numbers.rounding(largest), numbers.rounding(floors.get(variant.name))))
    head = ("variant", *_seeds(result), "largest", "floor of its difference")
    names = f"{summary.framework_name(second)} minus {summary.framework_name(first)}"
    return Table(f"{names}: difference of final losses, nats", head, tuple(rows))


def failures_table(result: StudyResult) -> Table:
    """Makes the table of the runs without a final loss."""
    rows = tuple(
        (name, summary.framework_name(framework), str(seed), reason)
        for name, framework, seed, reason in summary.missing(result)
    )
    return Table("Runs without a final loss", ("variant", "twin", "seed", "reason"), rows, (0, 1, 3))


def versions_table(result: StudyResult) -> Table:
    """Makes the table of the versions."""
    return Table("Versions", ("package", "version"), tuple(result.versions.items()), (0, 1))


def _seeds(result: StudyResult) -> tuple[str, ...]:
    return tuple(f"seed {seed}" for seed in result.seeds)


def _loss(losses: Sequence[float]) -> str:
    """Formats a mean over seeds and half its interval."""
    mean = summary.mean(losses)
    text = numbers.nats(mean.mean)
    return f"{text} ± {numbers.nats(mean.half)}" if numbers.known(mean.half) else text


def _difference(paired: Paired) -> tuple[str, str]:
    return numbers.difference(paired.mean), numbers.interval(paired.low, paired.high)


def _speed(result: StudyResult, variant: VariantFacts, framework: str) -> tuple[str, str, str]:
    speed = summary.speed(result, variant.name, framework)
    time = summary.tokens_of_run(variant) / speed if speed > 0 else None
    return (
        numbers.rate(speed),
        numbers.memory(summary.peak_memory(result, variant.name, framework)),
        numbers.time(time),
    )


def _field(result: StudyResult, variant: VariantFacts, field: str) -> object:
    return (result.fields | variant.overrides | variant.adjusted).get(field, MISSING)


def _field_cell(result: StudyResult, variant: VariantFacts, field: str) -> str:
    return numbers.value(_field(result, variant, field)) + (" *" if field in variant.adjusted else "")
