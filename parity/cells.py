"""What the ladder proves: one small model for every component and option of the schema, and every preset.

A component enters by itself: each value of each `choices` field gets a cell (`_choice_cells`), and so does each other
option that no cell sets (`_number_cells`). Mixtures of options are in `parity.options`.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from parity.fields import choices, other_values, selecting
from parity.options import BASE, FLOAT32_TOO, KERNEL_OPTIONS, LEVERS, NEEDS, OPTIMIZED, OPTIONS, QUICK, Overrides
from slm_core.config import DTYPES, Config, presets
from slm_core.config.fields import field_table, flatten, reads, selected, with_values
from slm_core.config.layers import layer_specs
from slm_core.config.pattern import overridden, parse
from slm_core.config.validation import drop_unread, unread, validate
from slm_core.errors import UserError, nearest
from slm_core.runs.vocabulary import expected_vocabulary

PROOFS = ("float64", "float32")
ALL = (0, 1, 2, 3, 4, 5, 6)
TRAINING = (0, 3, 4, 6)
ONCE = (0, 1, 2, 3, 5)  # each program once: a hundred updates of a long context show no more than one
VOCAB = 61
AUTO = "auto"
"""A choice that stands for another, which an engine resolves when it is built."""
CODES = {(3, "float32"): 1e-3}
"""Budgets of moments in 8 bits: rounding takes one code in 1e5 over a middle, and it alone is 3e-4 of 512 codes."""
FEW = 4
"""Cells that prove one component in under a minute."""

REGISTRIES = (
    "model.attention.kind", "model.attention.kernel", "model.position.kind", "model.norm.kind", "model.mlp.kind",
    "optim.kind", "optim.schedule",
)  # fmt: skip
"""The fields whose values are components."""

SECTIONS = {
    "model.attention.kernel": "kernels", "model.attention": "attention", "model.position": "positions",
    "model.norm": "norms", "model.mlp": "MLPs", "model": "model", "memory": "model",
    "optim": "optimizers and schedules", "finetune": "fine-tuning",
}  # fmt: skip
"""{beginning of a field's name: the section of a cell about it}."""

NO_NUMERICS = {"memory.limit_gb", "finetune.base"}
"""Fields of model, optim, memory and finetune that change nothing that is computed."""

HALVES, CURVES, PRESETS = "half precisions", "curves of larger models", "presets"
ORDER = tuple(dict.fromkeys([*OPTIONS, *SECTIONS.values(), HALVES, CURVES, PRESETS]))
"""Sections, as they are reported."""


@dataclass(frozen=True)
class Cell:
    """One model that both twins build.

    Args:
      name: what it shows.
      config: checked; the ladder sets the precision.
      section: one of ORDER.
      about: components ("mla") and choices ("yarn", "scaling=yarn") that it is there to prove.
      vocab_size: tokens.
      rungs: those worth climbing.
      precisions: those worth climbing in.
      quick: those of them that are climbed by default.
      rows, length: shape of a batch, [rows, length + 1].
      budgets: {(rung, precision): budget} where it is not the table's.
      optimized: compiled as a run compiles it. Most small cells are not, which more than halves their time: a few of
        them and the larger ones prove XLA's optimizations.
    """

    name: str
    config: Config
    section: str = "model"
    about: frozenset[str] = frozenset()
    vocab_size: int = VOCAB
    rungs: tuple[int, ...] = ALL
    precisions: tuple[str, ...] = PROOFS
    quick: tuple[str, ...] = ()
    rows: int = 4
    length: int = 16
    budgets: Mapping[tuple[int, str], float] = field(default_factory=dict)
    optimized: bool = True

    @property
    def large(self) -> bool:
        """Whether it takes minutes or gigabytes."""
        return _parameters(self.config, self.vocab_size) > 500_000


def cells() -> list[Cell]:
    """Returns every cell; names are unique. Those of a section stand together, in the order of ORDER."""
    found = [_tiny("base", {}, "model")]
    found += _choice_cells(found, REGISTRIES)
    for section, table in OPTIONS.items():
        found += [_tiny(name, overrides, section) for name, overrides in table.items() if name != "base"]
    for kernel in choices("model.attention.kernel"):
        for name, overrides in KERNEL_OPTIONS.items():
            found.append(_tiny(f"{kernel}, {name}", {"attention.kernel": kernel} | overrides, "kernels"))
    found += _choice_cells(found, field_table())
    found += _number_cells(found)
    found += [*_half_cells(), *_curve_cells(), *preset_cells()]
    return sorted(found, key=lambda cell: ORDER.index(cell.section))


def preset_cells() -> Iterator[Cell]:
    """Yields every preset and variant."""
    for listed in presets.listing():
        for variant in listed.variants or [""]:
            spec = f"{listed.path}:{variant}" if variant else listed.path
            yield config_cell(spec.removeprefix("configs/"), presets.load(spec)[0])


def config_cell(name: str, config: Config) -> Cell:
    """Returns the cell of a whole config: its model at full size, on short sequences.

    Above 10M parameters one sequence is compared on rungs 0 to 2.
    """
    vocabulary = expected_vocabulary(config)
    size = _parameters(config, vocabulary)
    big = size > 10_000_000
    small = {
        "train.batch_size": 1 if big else 2,
        "train.micro_batch_size": 1,
        "optim.warmup_steps": min(config.optim.warmup_steps, 10),
        "run.device": "cpu",
        "run.compile": False,
    }
    cell = Cell(
        name, with_values(config, small), PRESETS, frozenset(components(config)), vocabulary, ALL[:3] if big else ALL,
        rows=1 if big else 2, length=min(config.data.seq_len, 16 if big else 32),
    )  # fmt: skip
    return cell if cell.large else replace(cell, quick=PROOFS[:1])


def select(found: list[Cell], component: str = "", everything: bool = False) -> list[Cell]:
    """Returns the cells to climb.

    Args:
      found: all there are.
      component: a registry entry ("rope") or choice ("yarn", "scaling=yarn"): only cells that are about it. "": any.
      everything: all of them; else the quick ones, or a FEW small ones about the component, its own cell first.

    Raises:
      UserError: no cell is about the component.
    """
    if not component:
        return [cell for cell in found if everything or cell.quick]
    known = {name for cell in found for name in cell.about}
    if component not in known:
        entries = ", ".join(sorted(_registered()))
        raise UserError(
            f"--component={component} is no registry entry{nearest(component, known)}: use {entries}, or a value of"
            " another field with choices, such as yarn or qk_norm=l2"
        )
    about = [cell for cell in found if component in cell.about]
    if everything:
        return about
    value = component.rpartition("=")[2]
    fields = [name for name in field_table() if value in choices(name)]
    own, home = {"base", *(f"{_short(name)}={value}" for name in fields)}, {_section(name) for name in fields[:1]}
    small = [cell for cell in about if cell.section not in (CURVES, PRESETS)]
    return sorted(small, key=lambda cell: (cell.name not in own, cell.section not in home, cell.optimized))[:FEW]


def components(config: Config) -> set[str]:
    """Returns the registry entries that a config's layers, optimizer and schedule use."""
    used = set()
    for model in (config.model, *layer_specs(config.model)):
        values = flatten(with_values(config, {"model": model}))
        used |= {values[name] for name in REGISTRIES}
    return used


def _tiny(name: str, overrides: Overrides, section: str) -> Cell:
    """Returns the cell of BASE with overrides; fields that those leave unread go back to their defaults."""
    overrides = {name if name in field_table() else f"model.{name}": value for name, value in overrides.items()}
    config, _ = drop_unread(BASE, with_values(BASE, overrides), overrides)
    validate(config, overrides)
    # A kernel's cell is about the kernel, not about those whose options it must have.
    fields = [name for name in overrides if section != "kernels" or name in REGISTRIES]
    about = _about(config, fields) if overrides else components(config)
    quick = PROOFS if name in FLOAT32_TOO else PROOFS[:1] if name in QUICK else ()
    # Of optimizers only this one decodes with other parameters than those that it trains.
    trains = section == "optimizers and schedules" and config.optim.kind != "schedule_free"
    return Cell(
        name,
        config,
        section,
        frozenset(about),
        rungs=TRAINING if trains else ONCE if config.data.seq_len > BASE.data.seq_len else ALL,
        quick=quick,
        length=config.data.seq_len,
        budgets=CODES if config.optim.kind == "adamw8bit" else {},
        optimized=name in OPTIMIZED,
    )


def _about(config: Config, names: Iterable[str]) -> set[str]:
    """Returns the components and choices that a cell is about which sets these fields."""
    about: set[str] = set()
    for name in names:
        *path, leaf = name.split(".")
        if name == "model.pattern":
            for entry in parse(config.model.pattern):
                layer = with_values(config, {"model": overridden(config.model, entry)})
                about |= _about(layer, [f"model.{inner}" for inner in entry.values])
        else:
            about |= _readers(functools.reduce(getattr, path, config), ".".join(path), leaf)
    return about


def _readers(owner: Any, section: str, leaf: str) -> set[str]:
    """Returns the names of a field's value, if it is a choice, and of the choices by which it is read."""
    name = f"{section}.{leaf}"
    option = field_table()[name].option
    found: set[str] = set()
    if option.choices:
        value = selected(owner, leaf)
        found = {value} if name in REGISTRIES else {f"{leaf}={value}"} | ({value} - _registered())
    if name not in REGISTRIES and leaf != "kind" and hasattr(owner, "kind"):
        found |= _readers(owner, section, "kind")
    for selector in option.read_by:
        found |= _readers(owner, section, selector)
    return found


def _registered() -> set[str]:
    return {value for name in REGISTRIES for value in choices(name)}


def _choice_cells(found: list[Cell], names: Iterable[str]) -> list[Cell]:
    """Returns a cell for each value of each choice that no cell found so far has."""
    missing: list[Cell] = []
    for name in names:
        for value in choices(name) if name in numerics() else ():
            if value != AUTO and not any(_reads(cell.config, name, value) for cell in found):
                overrides = selecting(name, BASE) | NEEDS.get(value, {}) | {name: value}
                cell = _tiny(f"{_short(name)}={value}", overrides, _section(name))
                missing.append(replace(cell, quick=PROOFS[:1]) if name in REGISTRIES else cell)
    return missing


def _number_cells(found: list[Cell]) -> list[Cell]:
    """Returns a cell for each field without choices that no cell found so far sets, with the first value that fits."""
    cells = []
    for name in numerics() - set().union(*(proven(cell) for cell in found)):
        for value in () if choices(name) else other_values(name, field_table()[name].default):
            try:
                overrides = selecting(name, BASE) | {name: value}
                cells.append(_tiny(f"{_short(name)}={value}", overrides, _section(name)))
                break
            except UserError:  # out of the field's bounds, or it does not fit the others
                continue
    return sorted(cells, key=lambda cell: cell.name)


def numerics() -> set[str]:
    """Returns the fields that change what is computed, each of which some cell must set."""
    sections = ("model.", "optim.", "memory.", "finetune.")
    return {name for name in field_table() if name.startswith(sections)} - NO_NUMERICS


def proven(cell: Cell) -> set[str]:
    """Returns the fields that a cell sets otherwise than BASE, and reads, in some layer."""
    layers = layer_specs(cell.config.model) if cell.config.model.pattern else ()
    base, found = flatten(BASE), set()
    for config in (cell.config, *(with_values(cell.config, {"model": layer}) for layer in layers)):
        changed = {name for name, value in flatten(config).items() if value != base[name]}
        found |= {name for name in changed if not unread(config, name)}
    return found


def _section(name: str) -> str:
    return next(section for beginning, section in SECTIONS.items() if name.startswith(beginning))


def _short(name: str) -> str:
    """Returns a dotted name as the table shows it: without "model.", nor the section where the leaf says enough."""
    *sections, leaf = name.removeprefix("model.").split(".")
    return ".".join([*sections, leaf]) if leaf == "kind" else leaf


def _reads(config: Config, name: str, value: str) -> bool:
    """Returns whether a config has this value in a field, and reads it."""
    *sections, leaf = name.split(".")
    owner: Any = functools.reduce(getattr, sections, config)
    return getattr(owner, leaf) == value and reads(owner, leaf)


def _half_cells() -> Iterator[Cell]:
    """Yields BASE in the half precisions; float16 starts from a scale that overflows and soon grows into overflow."""
    for name in (name for name in DTYPES if name not in PROOFS):
        overrides: Overrides = {"precision.compute": name}
        members = {kernel: {"attention.kernel": kernel} for kernel in choices("model.attention.kernel")}
        if name == "float16":
            overrides |= {"precision.loss_scale_init": 2.0**24, "precision.loss_scale_growth_interval": 8}
            members["all that saves memory"] = LEVERS
        for title, own in members.items():
            cell = _tiny(f"{name}, {title}", overrides | own, HALVES)
            quick = (name,) if title == BASE.model.attention.kernel else ()
            yield replace(cell, precisions=(name,), quick=quick, optimized=True)


def _curve_cells() -> Iterator[Cell]:
    """Yields the two larger models whose curves have budgets of their own."""
    for layers, width, budget in ((4, 128, 1e-4), (6, 256, 5e-3)):
        # BASE's rate is for a width of 32: at 256 the loss spikes, and a spike magnifies rounding 1e5 times.
        values = {"model.n_layers": layers, "model.d_model": width, "data.seq_len": 64, "optim.lr": 1e-3}
        config = with_values(BASE, values)
        about = frozenset(components(config))
        budgets = {(4, "float32"): budget}
        yield Cell(f"curve, {layers}x{width}", config, CURVES, about, rungs=(0, 4), length=64, budgets=budgets)


def _parameters(config: Config, vocab_size: int) -> int:
    """Returns about how many parameters a config has: 12 width^2 a layer, and the embedding."""
    model = config.model
    return model.d_model * (12 * model.n_layers * model.d_model + vocab_size)
