"""Says before a study what it will take: memory and time of its runs. Refuses runs that cannot fit."""

from collections.abc import Mapping
from dataclasses import dataclass

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.planner import Twin, predict
from slm_core.planner.report import gigabytes
from slm_core.planner.search import cheapest, smallest
from slm_core.runs.vocabulary import expected_vocabulary
from slm_core.studies.study import Study
from slm_core.studies.tables import markdown_table
from slm_core.training.display.plain import duration


@dataclass(frozen=True)
class Forecast:
    """What one run of a variant in one twin will take.

    Args:
      variant, framework: whose.
      memory: predicted bytes at the peak of an update.
      fits: whether that is within memory.limit_gb.
      seconds: estimated time of the run; None if the speed is not known.
    """

    variant: str
    framework: str
    memory: int
    fits: bool
    seconds: float | None


def forecasts(study: Study, twins: Mapping[str, Twin], speeds: Mapping[str, float]) -> list[Forecast]:
    """Predicts the runs of a study, one per variant and twin.

    Args:
      twins: {framework: the twin for the planner}.
      speeds: {framework: operations per second}, from a short measurement of the first variant; {} if unknown.
    """
    made = []
    for variant in study.variants:
        config, facts = study.config(variant), study.facts[variant.name]
        vocab_size = expected_vocabulary(config)
        for framework in study.frameworks:
            memory, fits = _memory(config, vocab_size, twins[framework])
            work = (facts["flops"] or 0) * config.train.steps
            seconds = work / speeds[framework] if framework in speeds else None
            made.append(Forecast(variant.name, framework, memory, fits, seconds))
    return made


def _memory(config: Config, vocab_size: int, twin: Twin) -> tuple[int, bool]:
    limit = config.memory.limit_gb * 1e9 or float("inf")
    fitting = cheapest(config, vocab_size, twin, limit)
    return predict(fitting or smallest(config, vocab_size, twin), vocab_size, twin).total, fitting is not None


def refuse_too_large(study: Study, made: list[Forecast]) -> None:
    """Raises UserError if a run cannot fit into memory.limit_gb, before any run starts."""
    for forecast in made:
        if not forecast.fits:
            raise UserError(
                f"variant {forecast.variant!r} in {forecast.framework}: it takes {gigabytes(forecast.memory)} of"
                f" memory.limit_gb={study.base.memory.limit_gb:g}; make it smaller or raise the limit"
            )


def table(study: Study, made: list[Forecast]) -> str:
    """Writes a Markdown table of the study's variants: what they set, their size, memory and time."""
    rows = []
    for forecast in made:
        facts = study.facts[forecast.variant]
        steps = study.config(next(v for v in study.variants if v.name == forecast.variant)).train.steps
        rows.append(
            [
                forecast.variant,
                forecast.framework,
                f"{facts['parameters']:,}",
                f"{(facts['flops'] or 0) / 1e9:,.2f}",
                str(steps),
                gigabytes(forecast.memory) + ("" if forecast.fits else " (too much)"),
                "" if forecast.seconds is None else duration(forecast.seconds),
            ]
        )
    head = ["variant", "twin", "parameters", "GFLOP per update", "updates", "memory", "time per run"]
    return markdown_table(head, rows)


def total_seconds(study: Study, made: list[Forecast], jobs: int) -> float | None:
    """Estimates the time of the whole study; None if the speed is not known."""
    seconds = [forecast.seconds for forecast in made]
    known = [each for each in seconds if each is not None]
    return study.seeds * sum(known) / jobs if len(known) == len(seconds) else None
