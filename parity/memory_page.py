"""Writes docs/memory.md: the memory of presets with each memory setting, predicted and measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from parity.memory import cases, measured, planned
from slm_core.config import Config, presets
from slm_core.config.fields import with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.planner import PARTS, Prediction, predict
from slm_core.planner.report import TWINS
from slm_core.planner.search import CHUNK, cheapest, resolved
from slm_core.runs.fingerprints import Identity
from slm_core.runs.saved import SavedRun
from slm_core.runs.vocabulary import expected_vocabulary

MICRO, CONTEXT = 8, 1024
NO_SETTING: dict[str, Any] = {
    "memory.remat": "none", "memory.loss_chunk": 0, "precision.compute": "float32", "optim.kind": "adamw",
    "train.micro_batch_size": MICRO,
}  # fmt: skip
_CHUNKED = {"memory.loss_chunk": CHUNK}
_BLOCK = {"memory.remat": "block"} | _CHUNKED
SETTINGS: dict[str, dict[str, Any]] = {
    "no setting": {},
    "loss_chunk": _CHUNKED,
    "loss_chunk, remat=attention": {"memory.remat": "attention"} | _CHUNKED,
    "loss_chunk, remat=block": _BLOCK,
    "loss_chunk, remat=full": {"memory.remat": "full"} | _CHUNKED,
    "loss_chunk, remat=block, adamw8bit": {"optim.kind": "adamw8bit"} | _BLOCK,
    "loss_chunk, remat=block, float16": {"precision.compute": "float16"} | _BLOCK,
    "loss_chunk, remat=block, one sequence at once": {"train.micro_batch_size": 1} | _BLOCK,
    "loss_chunk, remat=block, LoRA on int8": {"finetune.kind": "lora", "finetune.frozen": "int8"} | _BLOCK,
    "loss_chunk, remat=block, LoRA on NF4": {"finetune.kind": "lora", "finetune.frozen": "nf4"} | _BLOCK,
}  # fmt: skip
"""{name: overrides of NO_SETTING}."""

ALL_SETTINGS = "configs/gpt2.py:124m"
FEW = ("no setting", "loss_chunk, remat=block", "loss_chunk, remat=block, LoRA on NF4")
PRESETS = (ALL_SETTINGS, "configs/llama.py:60m", "configs/llama.py:100m", "configs/llama.py:135m")


@dataclass(frozen=True)
class Row:
    """One config of one twin, predicted and measured.

    Args:
      measured: bytes.
    """

    subject: str
    setting: str
    twin: str
    prediction: Prediction
    measured: int

    @property
    def ratio(self) -> float:
        return self.prediction.update / self.measured


class Job(NamedTuple):
    """One config to measure in one twin.

    Args:
      subject: the preset; "": a small model of `parity.memory.cases`.
      setting: the memory setting, a key of SETTINGS, or the name of the small model.
      twin: "torch" or "flax".
    """

    subject: str
    setting: str
    twin: str
    config: Config
    vocab_size: int


def jobs() -> list[Job]:
    """Lists every config to measure in each twin, the slowest first."""
    todo: list[Job] = []
    for spec in PRESETS:
        preset = presets.load(spec)[0]
        subject, vocab_size = spec.removeprefix("configs/"), expected_vocabulary(preset)
        for setting in SETTINGS if spec == ALL_SETTINGS else FEW:
            config = _with_settings(preset, SETTINGS[setting])
            todo += [Job(subject, setting, twin, config, vocab_size) for twin in TWINS]
        todo += _resolved(subject, preset, vocab_size)
    base = presets.load(PRESETS[-1])[0]
    todo += _resolved(
        f"finetune.py, of {PRESETS[-1].removeprefix('configs/')}", _tuned(base), expected_vocabulary(base)
    )
    for name, (config, vocab_size) in cases().items():
        todo += [Job("", name, twin, on_card(config), vocab_size) for twin in TWINS]
    return todo


def _resolved(subject: str, preset: Config, vocab_size: int) -> list[Job]:
    """Resolves the open fields of a preset within its memory limit, in float32; one job per twin."""
    limit, preset = preset.memory.limit_gb * 1e9, on_card(preset)
    chosen = {twin: cheapest(preset, vocab_size, planned(twin), limit) or resolved(preset) for twin in TWINS}
    return [Job(subject, "as the trainer resolves it", twin, config, vocab_size) for twin, config in chosen.items()]


def _tuned(base: Config) -> Config:
    """Makes the config that configs/finetune.py makes from a run of this config."""
    from configs.finetune import of_run

    nowhere = Path("models/base")
    return of_run(SavedRun(base, "torch", nowhere, nowhere, 0, Identity("", "")))


def _with_settings(preset: Config, overrides: dict[str, Any]) -> Config:
    values = NO_SETTING | overrides
    config, _ = drop_unread(preset, with_values(preset, values), values)
    validate(config, values)
    return config


def on_card(config: Config) -> Config:
    """Makes the config that the planner sees for a GPU, in float32 if it names no other dtype."""
    auto = config.precision.compute == "auto"
    return with_values(config, {"run.device": "auto"} | ({"precision.compute": "float32"} if auto else {}))


def measure(job: Job) -> Row:
    """Predicts and measures one job."""
    prediction = predict(job.config, job.vocab_size, planned(job.twin))
    return Row(job.subject, job.setting, job.twin, prediction, measured(job.config, job.vocab_size, job.twin))


INTRODUCTION = """# Memory

Written by `{command}`, not by hand. This page shows the peak memory of one update in each twin.
`slm_core/planner` **predicts** it from the config. It is **measured** without a GPU, and the update does not run:

- PyTorch: MemTracker counts the memory under FakeTensorMode. Layers choose as on a GPU below compute capability 8.0.
- Flax: XLA compiles the update for an NVIDIA GeForce GTX 1660 Ti, which need not be there. Its `memory_analysis`
  gives temporaries + arguments + outputs - aliased.

One GB is 1e9 bytes. `uv run scripts/plan_memory.py --config ...` predicts the memory of any config, and with
`--measure` also measures it.

A run on the card needs more: the CUDA context, workspaces that libraries allocate themselves, and fragmentation.
This page does not count them. The planner leaves 5% of the free memory for them.

A checkpoint is written from a copy of weights and optimizer state, while updates go on. The copy is in the host's
memory. So on a CPU the planner counts it beside the update, as `snapshot`, unless `run.async_saving` is off or the
last step alone saves. On a GPU it takes nothing of the card.

{summary}

{versions}. {machine}.
"""


def page(rows: list[Row], command: str) -> str:
    """Writes the text of docs/memory.md."""
    from parity.report import machine
    from slm_core.runs.provenance import versions
    from slm_core.studies.tables import markdown_table

    worst = max(rows, key=lambda row: abs(row.ratio - 1))
    configs = len({(row.subject, row.setting) for row in rows})
    summary = (
        f"{len(rows)} measurements of {configs} configs. The ratio of predicted to measured memory is"
        f" {min(row.ratio for row in rows):.3f} to {max(row.ratio for row in rows):.3f}. It is farthest from 1 for"
        f" {' '.join((worst.subject, worst.setting)).strip()} ({TWINS[worst.twin]})."
    )
    software = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = INTRODUCTION.format(command=command, summary=summary, versions=software, machine=machine())
    text += f"\n## Presets\nMicro-batches of {MICRO} x {CONTEXT} tokens, in float32 unless the name says otherwise.\n\n"
    text += markdown_table(_HEAD, list(_lines([row for row in rows if row.subject])))
    text += "\n\n![predicted memory of gpt2.py:124m by setting](memory.png)\n"
    text += f"\n## The savings of {ALL_SETTINGS.removeprefix('configs/')}\n"
    text += "Measured memory, divided by that without any setting.\n\n"
    text += markdown_table(["setting", *TWINS.values()], list(_savings(rows)))
    text += "\n\n## Small models: one per setting and component\n"
    text += "6 layers, 384 wide, vocabulary 8192, micro-batches of 8 x 256 tokens, unless the name says otherwise.\n\n"
    return text + markdown_table(_HEAD, list(_lines([row for row in rows if not row.subject]))) + "\n"


_HEAD = ["config", "twin", *PARTS, "predicted", "measured", "ratio"]


def _lines(rows: list[Row]) -> Iterator[list[str]]:
    for row in rows:
        parts = [f"{getattr(row.prediction, part) / 1e9:.2f}" for part in PARTS]
        name = f"{row.subject}: {row.setting}" if row.subject else row.setting
        totals = [f"{row.prediction.update / 1e9:.2f}", f"{row.measured / 1e9:.2f}", f"{row.ratio:.3f}"]
        yield [name, TWINS[row.twin], *parts, *totals]


def _savings(rows: list[Row]) -> Iterator[list[str]]:
    bytes_of = {
        (row.setting, row.twin): row.measured for row in rows if row.subject == ALL_SETTINGS.removeprefix("configs/")
    }
    for setting in SETTINGS:
        yield [setting, *(f"{bytes_of[setting, twin] / bytes_of['no setting', twin]:.2f}" for twin in TWINS)]


def pictured(rows: list[Row]) -> dict[str, dict[str, Prediction]]:
    """Collects {memory setting: {twin: prediction}} of the preset that is measured with every setting."""
    titles: dict[str, dict[str, Prediction]] = {}
    for row in rows:
        if row.subject == ALL_SETTINGS.removeprefix("configs/"):
            titles.setdefault(row.setting, {})[row.twin] = row.prediction
    return titles
