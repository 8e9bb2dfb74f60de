"""Measures both twins against the outside oracle: tiny models of Hugging Face transformers with random weights.

Twins can be equal and both wrong; others wrote these classes. Each case does what a user does: it saves the model,
imports its folder, and compares a twin with it; then it exports the twin and loads the export. All of it is offline.
"""

import operator
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import slm_flax.trainer
import slm_torch.trainer
from parity.distances import largest, relative
from parity.hugging_face import by_pytorch
from parity.oracle.cases import Case
from parity.probe import Probe, probe
from parity.tolerances import GRADIENT_FLOOR
from slm_core.config import Config, Model
from slm_core.config.fields import layer_reads, with_values
from slm_core.config.layers import layer_specs
from slm_core.hf import exporting
from slm_core.hf.folder import read_tensors, write_config, write_tensors
from slm_core.hf.importing import Imported, convert, open_folder
from slm_core.protocols import Engine

TOLERANCES = {"float32": 1e-4, "float64": 1e-10}
"""{precision: tolerance} of the largest difference of logits, which are of order 1, and of the worst relative L2 error
of a parameter's gradient."""
HEAD = f"{'model':52}{'twin':7}{'dtype':9}{'logits':9}{'gradient':10}export"
FEATURES_OFF = "    logits move without: {}"
BUILD: dict[str, Callable[..., Engine]] = {
    "torch": slm_torch.trainer.build,
    "flax": slm_flax.trainer.build,
}
ROWS, LENGTH = 2, 48
LOG_RATE = -2.0
"""A logarithm of rates so low that a state holds many tokens; the norm of one alone would amplify roundings."""
HIDDEN_SINK = -1e4
"""A score of a sink so low that the sink gets no weight."""
FEATURES = {
    "window": {"attention.window": 0},
    "scaling": {"position.scaling": "none"},
    "soft-cap": {"attention.softcap": 0.0},
    "logit soft-cap": {"logit_softcap": 0.0},
    "scale": {"attention.scale": 1.0},
    "partial rotation": {"position.fraction": 1.0},
    "embedding scale": {"embed_scale": 1.0},
    "residual multiplier": {"residual_multiplier": 1.0},
    "logit multiplier": {"logit_multiplier": 1.0},
    "1 + w": {"norm.weight": "scale"},
    "groups of experts": {"mlp.groups": 1},
    "routed scale": {"mlp.routed_scale": 1.0},
}
"""{feature: fields inside `model.` that turn it off}."""


@dataclass(frozen=True)
class Measured:
    """One case in one twin and precision: its errors against the Hugging Face class."""

    case: str
    twin: str
    precision: str
    logits: float
    gradient: float
    export: float  # of the logits of the class that loads what we export

    @property
    def errors(self) -> tuple[float, float, float]:
        return self.logits, self.gradient, self.export

    @property
    def passed(self) -> bool:
        return max(self.errors) <= TOLERANCES[self.precision]


def build(case: Case, precision: str) -> Any:
    """Builds the transformers model of a case, with random weights that hide no fault."""
    transformers.logging.set_verbosity_error()
    config = transformers.CONFIG_MAPPING[case.family](**case.values)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model)
    return by_pytorch(model.to(getattr(torch, precision)).eval())


def randomise(model: Any) -> None:
    """Fills every weight of a transformers model with random numbers that hide no fault."""
    generator = torch.Generator().manual_seed(0)
    tensors = [
        *model.named_parameters(),
        *((name, b) for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")),
    ]
    with torch.no_grad():
        for name, tensor in tensors:
            noise = torch.randn(tensor.shape, generator=generator)
            mean = LOG_RATE if name.endswith(".A_log") else tensor
            tensor.copy_(noise / min(tensor.shape[-2:]) ** 0.5 if tensor.ndim > 1 else mean + 0.3 * noise)


def tokens_of(vocab_size: int) -> np.ndarray:
    """Returns a batch longer than the windows and original contexts of the cases, int32 [rows, length + 1]."""
    return np.random.default_rng(0).integers(0, vocab_size, (ROWS, LENGTH + 1), dtype=np.int32)


def reference(model: Any, tokens: np.ndarray) -> Probe:
    """Computes logits, the sum of token losses, and its gradients by the names of a checkpoint."""
    ids = torch.from_numpy(tokens).long()
    logits = model(ids[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    loss.backward()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        for p in model.parameters():
            p.copy_(p.grad)
        # The gradients are saved like a checkpoint, so that saving changes them as it changes weights.
        model.save_pretrained(folder)
        gradients = dict(read_tensors(Path(folder)))
        for name, p in model.named_parameters():
            p.copy_(weights[name])
            p.grad = None
    return Probe(logits.detach().numpy(), loss.detach().numpy(), gradients)


def engine_with(
    twin: str, config: Config, vocab_size: int, weights: Mapping[str, np.ndarray], precision: str
) -> Engine:
    """Builds a twin's engine with these weights."""
    values = {"precision.params": precision, "precision.compute": precision, "run.device": "cpu"}
    engine = BUILD[twin](with_values(config, values), vocab_size)
    state = engine.export_state()
    engine.import_state(state | {f"params/{name}": value for name, value in weights.items()})
    return engine


def line(measured: Measured) -> str:
    """Returns the line of a terminal's table, under HEAD."""
    errors = (f"{error:.0e}".ljust(9 + (i == 1)) for i, error in enumerate(measured.errors))
    mark = "" if measured.passed else "  FAIL"
    return f"{measured.case[:51]:52}{measured.twin:7}{measured.precision:9}{''.join(errors)}{mark}".rstrip()


@dataclass(frozen=True)
class Reference:
    """A case's model after saving and importing, and its logits, loss and gradients on a batch."""

    imported: Imported
    weights: dict[str, np.ndarray]
    tokens: np.ndarray
    probe: Probe


def refer(case: Case, precision: str) -> Reference:
    """Builds a case's model, imports it as a user would, and runs it."""
    model = build(case, precision)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        imported, items = open_folder(Path(folder))
        weights = dict(items)
    tokens = tokens_of(imported.vocab_size)
    return Reference(imported, weights, tokens, reference(model, tokens))


def measure(case: Case, precision: str) -> Iterator[Measured]:
    """Yields each twin's errors in one case."""
    expected = refer(case, precision)
    for twin in BUILD:
        engine = engine_with(twin, expected.imported.config, expected.imported.vocab_size, expected.weights, precision)
        probed = probe(engine, expected.tokens)
        again = exported_logits(expected.imported, engine, expected.tokens, precision)
        logits = largest(probed.logits, expected.probe.logits)
        gradient = gradient_error(expected.imported, probed, expected.probe)
        yield Measured(case.name, twin, precision, logits, gradient, largest(probed.logits, again))


def sensitivity(case: Case) -> dict[str, float]:
    """Returns how far the PyTorch twin's logits move if it lacks one feature of the case, as by a mistake."""
    expected = refer(case, "float32")
    model, moved = expected.imported.config.model, {}
    features = {name: fields for name, fields in FEATURES.items() if name != "1 + w" or model.norm.weight == "one_plus"}
    variants = {feature: (_without(model, fields), expected.weights) for feature, fields in features.items()}
    sinks = {name: value * 0 + HIDDEN_SINK for name, value in expected.weights.items() if name.endswith(".sinks")}
    variants["sinks"] = (model, expected.weights | sinks)
    for feature, (other, weights) in variants.items():
        if other != model or (feature == "sinks" and sinks):
            config = with_values(expected.imported.config, {"model": other})
            probed = probe(
                engine_with("torch", config, expected.imported.vocab_size, weights, "float32"), expected.tokens
            )
            moved[feature] = largest(probed.logits, expected.probe.logits)
    return moved


def _without(model: Model, fields: Mapping[str, Any]) -> Model:
    """Returns a model with fields set in all layers, also in its pattern; the same model if no layer differs."""
    for name, value in fields.items():
        leaf = operator.attrgetter(name)
        readers = [layer for layer in layer_specs(model) if "." not in name or layer_reads(layer, name)]
        if any(leaf(layer) != value for layer in readers):
            pattern = re.sub(rf"(?<![\w.]){re.escape(name)}=[^,| ]+", f"{name}={value}", model.pattern)
            model = with_values(model, {"pattern": pattern, name: value})
    return model


def gradient_error(imported: Imported, probed: Probe, expected: Probe) -> float:
    """Returns the worst relative error of a gradient, against its own norm or a share of the norm of all gradients."""
    gradients = converted_gradients(imported, expected.gradients)
    floor = GRADIENT_FLOOR * np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in gradients.values()))
    names = [name for name in gradients if not name.endswith(".balance")]  # no optimizer trains it
    return max(relative(probed.gradients[name], gradients[name], floor) for name in names)


def converted_gradients(imported: Imported, gradients: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts gradients as weights are, without what a rule adds to a weight."""
    added = dict(convert(imported, {name: np.zeros_like(gradient) for name, gradient in gradients.items()}))
    return {name: gradient - added[name] for name, gradient in convert(imported, gradients)}


def exported_logits(imported: Imported, engine: Engine, tokens: np.ndarray, precision: str) -> np.ndarray:
    """Exports an engine's weights, loads them with AutoModelForCausalLM and returns its logits."""
    weights = {name.removeprefix("params/"): value for name, value in engine.export_state().items()}
    family, written = exporting.choose(imported.config, imported.family.model_type)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_config(folder, family, written, imported.vocab_size, imported.tokens, precision)
        write_tensors(folder, exporting.convert(family, written, weights, imported.config), precision)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, precision), attn_implementation="eager"
        )
    with torch.no_grad():
        return loaded(torch.from_numpy(tokens[:, :-1]).long(), use_cache=False).logits.numpy()
