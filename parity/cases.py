"""Lists the cases of the suite: a small model for every component and option of the schema, and every preset.

A component enters by itself. Each value of each field with choices gets a case (`_choice_cases`), and so does each
other option that no case sets (`_number_cases`). Mixtures of options are in `parity.options`.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from parity.checks import CHECKS
from parity.fields import choices, other_values, selecting
from parity.options import (
    BASE,
    FLOAT32_TOO,
    KERNEL_OPTIONS,
    MEMORY_SETTINGS,
    NEEDS,
    OPTIMIZED,
    OPTIONS,
    QUICK,
    Overrides,
)
from slm_core.config import DTYPES, Config, presets
from slm_core.config.fields import field_table, flatten, reads, selected, with_values
from slm_core.config.layers import layer_specs
from slm_core.config.pattern import overridden, parse
from slm_core.config.validation import drop_unread, unread, validate
from slm_core.errors import UserError
from slm_core.model.one_twin import check_comparable
from slm_core.runs.vocabulary import expected_vocabulary
from slm_core.training.schedules import warmup_steps

PROOFS = ("float64", "float32")
ALL = tuple(CHECKS)
TRAINING = ("initial_weights", "update", "loss_curve", "resume")
ONCE = ("initial_weights", "logits", "gradients", "update", "decoding")
"""Checks that run each program once: a hundred updates of a long context show no more than one."""
ONE_PASS = ("initial_weights", "logits", "gradients")
VOCAB = 61
AUTO = "auto"
"""A choice that stands for another, which is resolved when an engine is built."""
CODES = {("update", "float32"): 1e-3}
"""Tolerances of moments in 8 bits. Rounding moves one code in 1e5 over a middle; that one code is 3e-4 of 512 codes."""

REGISTRIES = (
    "model.mixer.kind", "model.attention.kind", "model.attention.kernel", "model.position.kind", "model.norm.kind",
    "model.mlp.kind", "optim.kind", "optim.schedule",
)  # fmt: skip
"""The fields whose values are components."""

SECTIONS = {
    "model.mixer": "mixers", "model.attention.kernel": "kernels", "model.attention": "attention",
    "model.position": "positions", "model.norm": "norms", "model.mlp": "MLPs", "model": "model", "memory": "model",
    "optim": "optimizers and schedules", "finetune": "fine-tuning", "precision": "half precisions",
}  # fmt: skip
"""{beginning of a field's name: the section of the cases about it}."""

NO_NUMERICS = {"memory.limit_gb", "finetune.base"}
"""Fields of model, optim, memory and finetune that change nothing that is computed."""

HALVES, LOSS_CURVES, PRESETS = "half precisions", "loss curves of larger models", "presets"
ORDER = tuple(dict.fromkeys([*OPTIONS, *SECTIONS.values(), HALVES, LOSS_CURVES, PRESETS]))
"""Sections, in the order in which they are reported."""


@dataclass(frozen=True)
class Case:
    """One model that both twins build.

    Args:
      name: what it shows.
      config: valid; the suite sets the precision.
      section: one of ORDER.
      about: components ("mla") and choices ("yarn", "scaling=yarn") that it is there to prove.
      vocab_size: tokens of the vocabulary.
      checks: names of the checks that say something about it.
      precisions: those in which it runs.
      quick: those of them in which it runs by default.
      rows, length: shape of a batch, [rows, length + 1].
      tolerances: {(check, precision): tolerance} that differ from the table of `parity.tolerances`.
      optimized: whether XLA compiles it as it compiles a run. Most small cases are compiled without optimizations,
        which more than halves their time: a few of them and the larger ones prove the optimizations.
    """

    name: str
    config: Config
    section: str = "model"
    about: frozenset[str] = frozenset()
    vocab_size: int = VOCAB
    checks: tuple[str, ...] = ALL
    precisions: tuple[str, ...] = PROOFS
    quick: tuple[str, ...] = ()
    rows: int = 4
    length: int = 16
    tolerances: Mapping[tuple[str, str], float] = field(default_factory=dict)
    optimized: bool = True

    @property
    def large(self) -> bool:
        """Whether it takes minutes of time or gigabytes of memory."""
        return _parameters(self.config, self.vocab_size) > 500_000


def cases() -> list[Case]:
    """Returns every case, by section in the order of ORDER. Names are unique."""
    entries = [tiny("base", {}, "model")]
    entries += _choice_cases(entries, REGISTRIES)
    for section, table in OPTIONS.items():
        entries += [tiny(name, overrides, section) for name, overrides in table.items() if name != "base"]
    for kernel in choices("model.attention.kernel"):
        for name, overrides in KERNEL_OPTIONS.items():
            entries.append(tiny(f"{kernel}, {name}", {"attention.kernel": kernel} | overrides, "kernels"))
    entries += _choice_cases(entries, field_table())
    entries += _number_cases(entries)
    entries += [*_half_cases(), *_loss_curve_cases(), *preset_cases()]
    return sorted(entries, key=lambda case: ORDER.index(case.section))


def preset_cases() -> Iterator[Case]:
    """Yields every preset and variant, but those of tasks: small cases have what their models set."""
    for listed in presets.listing():
        for variant in listed.variants or [""]:
            spec = f"{listed.path}:{variant}" if variant else listed.path
            config = presets.load(spec)[0]
            if config.data.source != "task":
                yield config_case(spec.removeprefix("configs/"), config)


def config_case(name: str, config: Config) -> Case:
    """Returns the case of a whole config: its model at full size, on short sequences.

    Above 10M parameters only the checks of one pass run, on one sequence.

    Raises:
      UserError: one twin alone has the config's optimizer.
    """
    check_comparable(config)
    vocabulary = expected_vocabulary(config)
    size = _parameters(config, vocabulary)
    big = size > 10_000_000
    small = {
        "train.batch_size": 1 if big else 2,
        "train.micro_batch_size": 1,
        "optim.warmup_steps": min(warmup_steps(config.optim, config.train.steps), 10),
        "run.device": "cpu",
        "run.compile": False,
        "run.async_saving": False,  # the proof saves nothing beside training, and a copy would not fit the limit
    }
    case = Case(
        name, with_values(config, small), PRESETS, frozenset(components(config)), vocabulary, ONE_PASS if big else ALL,
        rows=1 if big else 2, length=min(config.data.seq_len, 16 if big else 32),
    )  # fmt: skip
    return case if case.large else replace(case, quick=PROOFS[:1])


def components(config: Config) -> set[str]:
    """Returns the registry entries that a config's layers, optimizer and schedule use."""
    used = set()
    for model in (config.model, *layer_specs(config.model)):
        values = flatten(with_values(config, {"model": model}))
        used |= {values[name] for name in REGISTRIES}
    return used


def tiny(name: str, overrides: Overrides, section: str) -> Case:
    """Returns the case of BASE with overrides. Fields that these leave unread go back to their defaults."""
    overrides = {name if name in field_table() else f"model.{name}": value for name, value in overrides.items()}
    config, _ = drop_unread(BASE, with_values(BASE, overrides), overrides)
    validate(config, overrides)
    # A kernel's case is about the kernel, not about the components whose options it must support.
    fields = [name for name in overrides if section != "kernels" or name in REGISTRIES]
    about = _about(config, fields) if overrides else components(config)
    quick = PROOFS if name in FLOAT32_TOO else PROOFS[:1] if name in QUICK else ()
    # Only this optimizer decodes with other parameters than those that it trains.
    trains = section == "optimizers and schedules" and config.optim.kind != "schedule_free"
    return Case(
        name,
        config,
        section,
        frozenset(about),
        checks=TRAINING if trains else ONCE if config.data.seq_len > BASE.data.seq_len else ALL,
        quick=quick,
        length=config.data.seq_len,
        tolerances=CODES if config.optim.kind == "adamw8bit" else {},
        optimized=name in OPTIMIZED,
    )


def _about(config: Config, names: Iterable[str]) -> set[str]:
    """Returns the components and choices that a case with these fields is about."""
    about: set[str] = set()
    for name in names:
        *path, leaf = name.split(".")
        if name == "model.pattern":
            for entry in parse(config.model.pattern):
                layer = with_values(config, {"model": overridden(config.model, entry)})
                about |= _about(layer, [f"model.{inner}" for inner in entry.values])
        elif name == "data.document_mask":
            about.add(leaf)  # not the source of text, by which it is read
        else:
            about |= _readers(functools.reduce(getattr, path, config), ".".join(path), leaf)
    return about


def _readers(owner: Any, section: str, leaf: str) -> set[str]:
    """Returns the names of a field's value, if it is a choice, and of the choices by which it is read."""
    name = f"{section}.{leaf}"
    option = field_table()[name].option
    names: set[str] = set()
    if option.choices:
        value = selected(owner, leaf)
        names = {value} if name in REGISTRIES else {f"{leaf}={value}"} | ({value} - registered())
    if name not in REGISTRIES and leaf != "kind" and hasattr(owner, "kind"):
        names |= _readers(owner, section, "kind")
    for selector in option.read_by:
        names |= _readers(owner, section, selector)
    return names


def registered() -> set[str]:
    """Returns the entries of all registries."""
    return {value for name in REGISTRIES for value in choices(name)}


def _choice_cases(entries: list[Case], names: Iterable[str]) -> list[Case]:
    """Returns a case for each value of each choice that none of the entries has."""
    missing: list[Case] = []
    for name in names:
        for value in choices(name) if name in numerics() else ():
            if value != AUTO and not any(_reads(case.config, name, value) for case in entries):
                overrides = selecting(name, BASE) | NEEDS.get(value, {}) | {name: value}
                case = tiny(f"{short_name(name)}={value}", overrides, section_of(name))
                missing.append(replace(case, quick=PROOFS[:1]) if name in REGISTRIES else case)
    return missing


def _number_cases(entries: list[Case]) -> list[Case]:
    """Returns a case for each field without choices that no entry sets. It has the first value that is valid."""
    missing = []
    for name in numerics() - set().union(*(proven(case) for case in entries)):
        for value in () if choices(name) else other_values(name, field_table()[name].default):
            try:
                overrides = selecting(name, BASE) | {name: value}
                missing.append(tiny(f"{short_name(name)}={value}", overrides, section_of(name)))
                break
            except UserError:  # beyond the field's bounds, or not valid beside the others
                continue
    return sorted(missing, key=lambda case: case.name)


def numerics() -> set[str]:
    """Returns the fields that change what is computed, each of which some case must set."""
    sections = ("model.", "optim.", "memory.", "finetune.")
    return {name for name in field_table() if name.startswith(sections)} - NO_NUMERICS


def proven(case: Case) -> set[str]:
    """Returns the fields to which a case gives another value than BASE, and which some layer reads."""
    layers = layer_specs(case.config.model) if case.config.model.pattern else ()
    base, names = flatten(BASE), set()
    for config in (case.config, *(with_values(case.config, {"model": layer}) for layer in layers)):
        changed = {name for name, value in flatten(config).items() if value != base[name]}
        names |= {name for name in changed if not unread(config, name)}
    return names


def section_of(name: str) -> str:
    """Returns the section of the cases about a field."""
    return next(section for beginning, section in SECTIONS.items() if name.startswith(beginning))


def short_name(name: str) -> str:
    """Returns a dotted name as the table shows it: without "model.", and without a section that the leaf implies."""
    *sections, leaf = name.removeprefix("model.").split(".")
    return ".".join([*sections, leaf]) if leaf == "kind" else leaf


def _reads(config: Config, name: str, value: str) -> bool:
    """Returns whether a config has this value in a field, and reads it."""
    *sections, leaf = name.split(".")
    owner: Any = functools.reduce(getattr, sections, config)
    return getattr(owner, leaf) == value and reads(owner, leaf)


def _half_cases() -> Iterator[Case]:
    """Yields BASE in the half precisions. In float16 the loss scale overflows at once, and again when it has grown."""
    for name in (name for name in DTYPES if name not in PROOFS):
        overrides: Overrides = {"precision.compute": name}
        members = {kernel: {"attention.kernel": kernel} for kernel in choices("model.attention.kernel")}
        if name == "float16":
            overrides |= {"precision.loss_scale_init": 2.0**24, "precision.loss_scale_growth_interval": 8}
            members["all that saves memory"] = MEMORY_SETTINGS
        for title, extra in members.items():
            case = tiny(f"{name}, {title}", overrides | extra, HALVES)
            quick = (name,) if title == BASE.model.attention.kernel else ()
            yield replace(case, precisions=(name,), quick=quick, optimized=True)


def _loss_curve_cases() -> Iterator[Case]:
    """Yields two larger models, whose loss curves have tolerances of their own."""
    for layers, width, tolerance in ((4, 128, 1e-4), (6, 256, 5e-3)):
        # BASE's rate is for a width of 32: at 256 the loss spikes, and a spike magnifies rounding 1e5 times.
        values = {"model.n_layers": layers, "model.d_model": width, "data.seq_len": 64, "optim.lr": 1e-3}
        config = with_values(BASE, values)
        about = frozenset(components(config))
        yield Case(
            f"loss curve, {layers}x{width}", config, LOSS_CURVES, about, length=64,
            checks=("initial_weights", "loss_curve"),
            tolerances={("loss_curve", "float32"): tolerance},
        )  # fmt: skip


def _parameters(config: Config, vocab_size: int) -> int:
    """Estimates how many parameters a config has: 12 width^2 per layer, and the embedding."""
    model = config.model
    return model.d_model * (12 * model.n_layers * model.d_model + vocab_size)
