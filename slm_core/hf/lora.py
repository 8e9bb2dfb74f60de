"""Makes the matrices of a PEFT adapter the LoRA parameters of a run, and writes those of a run as a PEFT adapter.

A PEFT module may be several of our linear layers, such as one projection for queries, keys and values. Each of them
gets all of A, and the columns of B that are its own: the function is the same.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from slm_core.config import Config, Finetune
from slm_core.errors import UserError
from slm_core.hf.adapter import Adapter, Pair
from slm_core.hf.family import Family
from slm_core.hf.rules import Rule
from slm_core.hf.shapes import Shape, weight_shape
from slm_core.quantization.formats import ADAPTER

REMEDY = "import it with --adapter merged"


def finetune_of(adapter: Adapter, family: Family, config: Config) -> Finetune:
    """Returns the settings of the run that an adapter becomes.

    Raises:
      UserError: it adapts what is not a linear layer here, or its modules have different ranks or scales.
    """
    shapes = {(pair.rank, pair.scale) for pair in adapter.pairs.values()}
    if len(shapes) != 1:
        kinds = ", ".join(f"rank {rank} with scale {scale:g}" for rank, scale in sorted(shapes)) or "no adapter"
        raise UserError(f"--adapter=lora: a run has one rank and one scale, and the adapter has {kinds}: {REMEDY}")
    ((rank, scale),) = shapes
    if scale <= 0:
        raise UserError(f"--adapter=lora: the adapter has the scale {scale:g}, and a run's is above 0: {REMEDY}")
    paths = [name.removesuffix(".weight") for rule in _rules(adapter, family, config).values() for name in rule.names]
    every = [name.removesuffix(".weight") for rule in family.rules(config) for name in rule.names]
    return Finetune(kind="lora", targets=expression(paths, every), rank=rank, alpha=scale * rank, frozen="float")


def adapters_of(adapter: Adapter, family: Family, config: Config, vocab_size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of a run's LoRA parameters: A, [in, rank], and B, [rank, out].

    Raises:
      UserError: a pair has not the shape of its layer, or a module mixes the inputs of our layers.
    """
    for name, rule in _rules(adapter, family, config).items():
        a, b = adapter.matrices(adapter.pairs[name])
        inputs_first = name.endswith(family.inputs_first)
        shapes = [weight_shape(ours, config, vocab_size) for ours in rule.names]
        if not _keeps_inputs(rule, inputs_first, a.shape[1], len(b), shapes):
            raise UserError(f"--adapter=lora: {adapter.pairs[name].module} is not a linear layer here: {REMEDY}")
        for ours, part in zip(rule.names, rule.layout.from_hf([b.T if inputs_first else b]), strict=True):
            path = ours.removesuffix(".weight")
            yield f"{path}.{ADAPTER[0]}", np.ascontiguousarray(a.T)
            yield f"{path}.{ADAPTER[1]}", np.ascontiguousarray(part)


def _keeps_inputs(rule: Rule, inputs_first: bool, inputs: int, outputs: int, shapes: Sequence[Shape]) -> bool:
    """Returns whether a rule, applied to B alone, gives our layers' parts of B: tried with a product of two vectors."""
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((1, inputs)), generator.standard_normal((outputs, 1))
    try:
        parts, whole = (rule.layout.from_hf([x.T if inputs_first else x]) for x in (b, b @ a))
    except (ValueError, IndexError):  # of another shape than the layer
        return False
    fits = [array.shape for array in whole] == list(shapes)
    return fits and all(np.allclose(a.T @ part, full) for part, full in zip(parts, whole, strict=True))


def _rules(adapter: Adapter, family: Family, config: Config) -> dict[str, Rule]:
    """Returns {tensor of the checkpoint: its rule} of the modules with an adapter, in the order of the rules."""
    rules = {hf_name: rule for rule in family.rules(config) for hf_name in rule.hf_names}
    known = {name if name in rules else family.prefix + name: name for name in adapter.pairs}
    for hf_name, name in known.items():
        _check_linear(adapter.pairs[name], rules.get(hf_name))
    return {known[hf_name]: rule for hf_name, rule in rules.items() if hf_name in known}


def _check_linear(pair: Pair, rule: Rule | None) -> None:
    paths = [name.removesuffix(".weight") for name in rule.names] if rule and len(rule.hf_names) == 1 else []
    if pair.embedding or not paths or not all(path == "head" or path.endswith("_proj") for path in paths):
        raise UserError(f"--adapter=lora: {pair.module} is not a linear layer here: {REMEDY}")


def expression(paths: Sequence[str], every: Sequence[str]) -> str:
    """Writes a regular expression that matches `paths` and nothing else of `every`."""
    layers, names = {}, [path for path in paths if not path.startswith("layers.")]
    for path in paths:
        if found := re.fullmatch(r"layers\.(\d+)\.(.+)", path):
            layers.setdefault(found[2], []).append(found[1])
    groups: dict[tuple[str, ...], list[str]] = {}
    for inner, numbers in layers.items():
        groups.setdefault(tuple(numbers), []).append(inner)
    for numbers, inner in groups.items():
        names.append(rf"layers\.{_one_of(numbers)}\.{_one_of(inner)}")
    whole = re.sub(r"layers\\\.\((?:\d+\|)+\d+\)", r"layers\\.\\d+", "|".join(names))
    exact = "|".join(names)
    return whole if _matched(whole, every) == set(paths) else exact


def _one_of(words: Sequence[str]) -> str:
    escaped = [word.replace(".", r"\.") for word in words]
    return f"({'|'.join(escaped)})" if len(escaped) > 1 else escaped[0]


def _matched(targets: str, paths: Sequence[str]) -> set[str]:
    return {path for path in paths if re.fullmatch(targets, path)}
