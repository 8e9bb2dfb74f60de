"""What the ladder proves: one small model for every component and option of the schema, and every preset.

A component enters by itself: each value of each `choices` field gets a cell (`_choice_cells`). An option that is a
number needs one line in `OPTIONS`; a test fails for a field of `model`, `optim` or `memory` that no cell sets.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from slm_core import presets
from slm_core.config import DTYPES, Attention, Config, Data, Memory, Model, Optim, Run, Train
from slm_core.config_dict import field_table, flatten, with_values
from slm_core.errors import UserError, nearest
from slm_core.pattern import layer_models, reads
from slm_core.validate import drop_unread, validate

PROOFS = ("float64", "float32")
ALL = (0, 1, 2, 3, 4, 5, 6)
TRAINING = (3, 4, 6)
VOCAB = 61
CHARACTERS = 65  # assumed for a `char` preset: those of the Shakespeare corpus


@dataclass(frozen=True)
class Cell:
    """One model that both twins build.

    Args:
      name: what it shows.
      config: checked; the ladder sets the precision.
      vocab_size: tokens.
      rungs: those worth climbing.
      precisions: those worth climbing in.
      rows, length: shape of a batch, [rows, length + 1].
      budgets: {(rung, precision): budget} where it is not the table's.
      optimized: compiled as a run compiles it. One-layer cells are not, which halves their time: the larger cells prove
        XLA's optimizations.
      slow: left out unless asked for.
    """

    name: str
    config: Config
    vocab_size: int = VOCAB
    rungs: tuple[int, ...] = ALL
    precisions: tuple[str, ...] = PROOFS
    rows: int = 4
    length: int = 16
    budgets: Mapping[tuple[int, str], float] = field(default_factory=dict)
    optimized: bool = True
    slow: bool = False


BASE = Config(
    model=Model(
        d_model=32, n_layers=1, dropout=0.1, attention=Attention(n_heads=4, n_kv_heads=2, kernel="dot_product")
    ),
    data=Data(seq_len=16),
    optim=Optim(lr=3e-3, clip_norm=0.5, warmup_steps=10),
    train=Train(steps=100, batch_size=4, micro_batch_size=2),
    memory=Memory(remat="block"),
    run=Run(device="cpu"),
)
"""Everything that training can turn on is on: dropout, accumulation, clipping, recomputation, warm-up, decay.
One layer: compiling takes most of the ladder's time."""

OPTIONS: dict[str, dict[str, Any]] = {
    "two layers": {"model.n_layers": 2},
    "everything off": {
        "model.dropout": 0.0, "memory.remat": "none", "train.micro_batch_size": 0, "optim.clip_norm": 0.0,
        "optim.warmup_steps": 0, "optim.weight_decay": 0.0,
    },
    "layernorm, biases": {
        "model.norm.kind": "layernorm", "model.norm.bias": True, "model.attention.bias": True, "model.mlp.bias": True,
    },
    "shapes, norm eps": {
        "model.attention.n_heads": 6, "model.attention.head_dim": 6, "model.mlp.hidden": 40, "model.norm.eps": 1e-2,
    },
    "part of rope": {"model.position.fraction": 0.5, "model.position.theta": 100.0},
    "stretched rope": {"model.position.scaling": "linear", "model.position.scaling_factor": 4.0},
    "sinusoidal, theta": {"model.position.kind": "sinusoidal", "model.position.theta": 100.0},
    "untied, capped head": {"model.tie_embeddings": False, "model.logit_softcap": 3.0},
    "embedding, init": {"model.embed_scale": 5.5, "model.init_std": 0.1, "model.depth_scaled_init": False},
    "pattern": {
        "model.n_layers": 2,
        "model.pattern": "attention.window=5 | position.kind=none,attention.n_kv_heads=1,mlp.kind=gelu,norm.eps=1e-3",
    },
    "loss in chunks of 7": {"memory.loss_chunk": 7},
    "optimizer": {
        "optim.betas": (0.8, 0.99), "optim.eps": 1e-4, "optim.weight_decay": 0.3, "optim.decay_embeddings": True,
        "optim.decay_norms": True, "optim.decay_biases": True, "optim.lr": 1e-2,
    },
    "wsd": {"optim.schedule": "wsd", "optim.decay_fraction": 0.5, "optim.min_lr_ratio": 0.2},
}  # fmt: skip
"""{name: overrides of BASE}: options that are no choices. Name a new number here."""

KERNEL_OPTIONS: dict[str, dict[str, Any]] = {
    "multi-query": {"model.attention.n_kv_heads": 1},
    "multi-head": {"model.attention.n_kv_heads": None},
    "window": {"model.attention.window": 5},
    "softcap": {"model.attention.softcap": 2.0},
    "long": {"data.seq_len": 160},  # more than one block of a kernel that works in blocks
}
"""What every kernel must do, whichever it is."""

REGISTRIES = (
    "model.attention.kind", "model.attention.kernel", "model.position.kind", "model.norm.kind", "model.mlp.kind",
    "optim.kind", "optim.schedule",
)  # fmt: skip
"""The fields whose values are components."""


def cells() -> list[Cell]:
    """Returns every cell, the quick ones and the slow ones; names are unique."""
    found = [_tiny(name, overrides) for name, overrides in OPTIONS.items()]
    for kernel in field_table()["model.attention.kernel"].field.metadata["choices"]:
        for name, overrides in KERNEL_OPTIONS.items():
            found.append(_tiny(f"{kernel}, {name}", {"model.attention.kernel": kernel, **overrides}))
    found += _choice_cells(found)
    return [*found, *_half_cells(), *_curve_cells(), *preset_cells()]


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
    size = _parameters(config)
    big = size > 10_000_000
    small = {
        "train.batch_size": 1 if big else 2,
        "train.micro_batch_size": 1,
        "optim.warmup_steps": min(config.optim.warmup_steps, 10),
        "run.device": "cpu",
        "run.compile": False,
    }
    length = min(config.data.seq_len, 16 if big else 32)
    return Cell(
        name, with_values(config, small), _vocabulary(config), ALL[:3] if big else ALL, rows=1 if big else 2,
        length=length, slow=size > 500_000,
    )  # fmt: skip


def select(found: list[Cell], component: str = "", slow: bool = False) -> list[Cell]:
    """Returns the cells that involve a component ("rope"; ""  is any), without the slow ones unless asked for.

    Raises:
      UserError: no cell involves it.
    """
    known = {name for cell in found for name in components(cell.config)}
    if component and component not in known:
        raise UserError(
            f"--component={component} is no registry entry{nearest(component, known)}: use {', '.join(sorted(known))}"
        )
    return [
        cell for cell in found if (slow or not cell.slow) and (not component or component in components(cell.config))
    ]


def components(config: Config) -> set[str]:
    """Returns the registry entries that a config's layers, optimizer and schedule use."""
    used = set()
    for model in (config.model, *layer_models(config.model)):
        values = flatten(with_values(config, {"model": model}))
        used |= {values[name] for name in REGISTRIES}
    return used


def _tiny(name: str, overrides: Mapping[str, Any]) -> Cell:
    """Returns the cell of BASE with overrides; fields that those leave unread go back to their defaults."""
    changed = with_values(BASE, overrides)
    config, _ = drop_unread(BASE, changed, overrides)
    validate(config, overrides)
    training_only = overrides and all(field.startswith("optim.") for field in overrides)
    return Cell(
        name,
        config,
        rungs=TRAINING if training_only else ALL,
        length=config.data.seq_len,
        optimized=config.model.n_layers > 1,
    )


def _choice_cells(found: list[Cell]) -> list[Cell]:
    """Returns a cell for each value of each choice that no cell found so far has."""
    missing: list[Cell] = []
    for name, info in field_table().items():
        if not name.startswith(("model.", "optim.", "memory.")):
            continue
        for value in info.field.metadata["choices"] or ():
            if not any(_reads(cell.config, name, value) for cell in [*found, *missing]):
                missing.append(_tiny(f"{_short(name)}={value}", _selected(name) | {name: value}))
    return missing


def _short(name: str) -> str:
    """Returns a dotted name as the table shows it: without "model.", nor the section where the leaf says enough."""
    *sections, leaf = name.removeprefix("model.").split(".")
    return ".".join([*sections, leaf]) if leaf == "kind" else leaf


def _selected(name: str) -> dict[str, Any]:
    """Returns the overrides of BASE under which a field is read."""
    section, _, leaf = name.rpartition(".")
    rules = field_table()[name].field.metadata["read_by"] or {}
    chosen = {}
    for selector, kinds in rules.items():
        full = f"{section}.{selector}"
        chosen |= _selected(full)
        if flatten(BASE)[full] not in kinds:
            chosen[full] = kinds[0]
    return chosen


def _reads(config: Config, name: str, value: str) -> bool:
    """Returns whether a config has this value in a field, and reads it."""
    *sections, leaf = name.split(".")
    owner: Any = functools.reduce(getattr, sections, config)
    return getattr(owner, leaf) == value and reads(owner, leaf)


def _half_cells() -> Iterator[Cell]:
    """Yields BASE in the half precisions; float16 starts from a scale that overflows and soon grows into overflow."""
    for name in (name for name in DTYPES if name not in PROOFS):
        overrides: dict[str, Any] = {"precision.compute": name}
        if name == "float16":
            overrides |= {"precision.loss_scale_init": 2.0**24, "precision.loss_scale_growth_interval": 8}
        for kernel in field_table()["model.attention.kernel"].field.metadata["choices"]:
            config = with_values(BASE, overrides | {"model.attention.kernel": kernel})
            yield Cell(f"{name}, {kernel}", config, rungs=(0, 4, 6), precisions=(name,))


def _curve_cells() -> Iterator[Cell]:
    """Yields the two larger models whose curves have budgets of their own."""
    for layers, width, budget in ((4, 128, 1e-4), (6, 256, 5e-3)):
        # BASE's rate is for a width of 32: at 256 the loss spikes, and a spike magnifies rounding 1e5 times.
        values = {"model.n_layers": layers, "model.d_model": width, "data.seq_len": 64, "optim.lr": 1e-3}
        config = with_values(BASE, values)
        budgets = {(4, "float32"): budget}
        yield Cell(f"curve, {layers}x{width}", config, rungs=(0, 4), length=64, budgets=budgets, slow=True)


def _vocabulary(config: Config) -> int:
    sizes = {"byte": 256, "char": CHARACTERS}
    return sizes.get(config.data.tokenizer, config.data.vocab_size)


def _parameters(config: Config) -> int:
    """Returns about how many parameters a config has: 12 width^2 a layer, and the embedding."""
    model = config.model
    return model.d_model * (12 * model.n_layers * model.d_model + _vocabulary(config))
