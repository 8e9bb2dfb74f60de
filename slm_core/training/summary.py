"""Prints the lines with which a run starts and ends."""

import math
from collections.abc import Iterable, Mapping

from slm_core.config import Config, Finetune
from slm_core.config.recommended import unset_companions
from slm_core.config.values import value_text
from slm_core.data import Dataset
from slm_core.planner.report import TWINS
from slm_core.protocols import Engine
from slm_core.quantization import formats
from slm_core.quantization.formats import Declared
from slm_core.quantization.lora import AdapterPlan, short_paths
from slm_core.runs.folder import RunFolder
from slm_core.runs.progress import Progress
from slm_core.runs.saved import SavedRun
from slm_core.training.display.plain import number


def print_start(
    config: Config, engine: Engine, dataset: Dataset, run: RunFolder, progress: Progress, base: SavedRun | None
) -> None:
    """Prints the folder, the data and the updates of a run, and the facts about its engine."""
    tokens = config.train.batch_size * config.data.seq_len
    facts = {
        "run": f"{run.path}" + (f", continued after step {progress.step}" if progress.step else ""),
        **({"starts from": f"{base.checkpoint}"} if base else {}),
        **start_facts(run, progress.step),
        "data": f"{dataset}, vocabulary {dataset.vocab_size}",
        "updates": f"{config.train.steps} of {tokens:,} tokens",
        **engine.facts(),
    }
    if progress.step:  # the engine was given the recorded settings, so it has no reasons for them
        facts |= {
            name.rpartition(".")[2]: f"{value} (as resolved before)" for name, value in (run.resolved or {}).items()
        }
    print_facts(facts)


def start_facts(run: RunFolder, step: int) -> dict[str, str]:
    """Returns facts for `print_start`: the run that this one was started from, and the settings that change now."""
    facts = {}
    if run.origin:
        kind = "branch of" if run.origin.branch else "resumed from"
        facts[kind] = f"{run.origin.run} after step {run.origin.step}, trained in {TWINS[run.origin.framework]}"
    changed = [f"{name} {value_text(a)} -> {value_text(b)}" for name, (a, b) in run.changed_at(step).items()]
    return facts | ({"changed": ", ".join(changed)} if changed else {})


def print_companions(config: Config, overrides: Iterable[str]) -> None:
    """Prints a note for each kind whose paper asks for a setting that the user left at its default."""
    for kind, values, source in unset_companions(config, set(overrides)):
        flags = " ".join(f"--config.{name}={value_text(value)}" for name, value in values.items())
        print(f"note: {kind}: {source}; to do the same: {flags}", flush=True)


def print_facts(facts: Mapping[str, str]) -> None:
    """Prints {name: fact} in two columns."""
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:{width}}  {fact}", flush=True)


def print_end(config: Config, run: RunFolder, progress: Progress) -> None:
    """Prints how the run ended, and the commands that use it."""
    if progress.step == config.train.steps:
        loss = f"{number(progress.eval_loss, '.4f')} nats/token"
        accuracy = f", accuracy {number(progress.eval_accuracy, '.4f')}," if shows_accuracy(config) else ""
        print(f"final validation loss {loss}{accuracy} after {progress.step} steps")
    elif config.run.resume:
        print(f"stopped after step {progress.step}, saved; the same command continues it")
    else:
        print(
            f"stopped after step {progress.step}, saved; to continue it: the same command with "
            f"--config.run.name={run.path.name} in place of --config.run.resume=False"
        )
    print(f"run folder: {run.path}")
    if config.data.source == "task":
        print(f"evaluate it: uv run scripts/evaluate.py --run {run.path}", flush=True)
    else:
        prompt = "def " if config.data.source == "stdlib" else "The "
        print(f'text from it: uv run scripts/generate.py --run {run.path} --prompt "{prompt}"', flush=True)


def shows_accuracy(config: Config) -> bool:
    """Returns whether the share of right predictions is worth showing: text has many possible next tokens."""
    return config.data.source == "task"


def parameter_facts(declared: Declared, plan: AdapterPlan | None, config: Config) -> dict[str, str]:
    """Returns the facts about a model's parameters, for `print_start`.

    Args:
      plan: of the adapters; None: every parameter trains.
    """
    count = sum(math.prod(shape) for shape, _ in formats.dequantised(declared).values())
    if plan is None:
        return {"parameters": f"{count:,} in {config.precision.params}"}
    trained = sum(math.prod(shape) for shape, spec in declared.values() if spec.role != "frozen")
    return {
        "parameters": f"{count:,}, of which {trained:,} train, in {config.precision.params}",
        "fine-tuning": adapter_summary(plan, config.finetune),
    }


def adapter_summary(plan: AdapterPlan, finetune: Finetune) -> str:
    """Describes in one line which linear layers get an adapter, and how the frozen matrices are stored."""
    every = [*plan.quantised, *plan.floating]
    without = [path for path in every if path not in plan.adapted]
    line = f"adapters of rank {finetune.rank} on {len(plan.adapted)} of {len(every)} linear layers"
    line += f", none on {short_paths(without)}" if without else ""
    stored = [f"{len(plan.quantised)} in {finetune.frozen}"] if plan.quantised else []
    named = f" ({short_paths(plan.floating)})" if plan.quantised else ""
    stored += [f"{len(plan.floating)} as floats{named}"] if plan.floating else []
    stored += [f"{len(plan.experts)} of experts as floats"] if plan.experts else []
    return f"{line}; frozen: {', '.join(stored)}"
