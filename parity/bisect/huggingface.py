"""Traces a Hugging Face model, by the paths of our modules.

A rule of `slm_core.hf` that copies or transposes a weight names a Hugging Face module and our module. The path that
all rules of a block, an attention or an MLP have in common says the same of these. Tensors without a counterpart are
left out of the comparison.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from parity.bisect.events import LOGITS, LOSS, MODEL, Event, Recorder
from parity.bisect.folders import Source
from parity.bisect.models import Settings
from parity.bisect.sources import code_of
from parity.bisect.trace_torch import Taps, array, finished, is_tensor, recorded
from parity.hugging_face import by_pytorch
from slm_core.hf.importing import read_config
from slm_core.hf.rules import SAME, TRANSPOSED, Rule
from slm_core.protocols import IGNORE
from slm_torch.loss import Losses, input_ids, target_ids

CONTAINERS = {
    "": {"input": "input.x", "output": "output.x", "output.0": "output.x"},
    "attention": {"input": "input", "output": "output.0", "output.0": "output.0"},
    "mixer": {"input": "input", "output": "output"},
    "mlp": {"input": "input", "output": "output.0", "output.0": "output.0"},
}
"""{part of a block, "" for itself: {their tensor: ours}}."""

LAYER = {"input": "input", "output": "output"}
ALIKE = (SAME, TRANSPOSED)
APART = ("position", "router", "mixer.output_norm")
"""Ends of our paths whose module in transformers does more, or less, than look up or multiply by its weight."""

ADDING = {"bloom": ("attention", "mlp"), "mpt": ("mlp",)}
"""{family: parts of a block that add the residual stream to their output themselves}."""


class HuggingFaceModel:
    """A model of transformers, computed by its own class on the CPU, without dropout."""

    complete = False

    def __init__(self, source: Source, precision: str):
        """Loads a checkpoint; `source` is that of `folders.open_source`."""
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.name = f"transformers of {source.name}"
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            source.folder, dtype=getattr(torch, precision), attn_implementation="eager", local_files_only=True
        ).eval()
        by_pytorch(self.model)
        family = read_config(source.folder).family
        self.rules = list(family.rules(source.config))
        self.paths = paths_of(self.rules, source.config.model.n_layers, ADDING.get(family.model_type, ()))
        if type(self.model.get_input_embeddings()) is not nn.Embedding:  # it scales its rows as well
            self._leave_out("embed")
        if any("head_bias" in rule.names for rule in self.rules):  # its head adds the bias, our `logits` does
            self._leave_out("head")

    def trace(self, tokens: np.ndarray) -> list[Event]:
        """Returns the events that have a counterpart, by our names; see `models.Traceable`."""
        taps = Taps()
        recorder = Recorder(is_tensor, taps)

        def losses(tokens: torch.Tensor) -> Losses:
            logits = recorder.call(LOGITS, "", self._logits, (input_ids(tokens[:, :-1]),), {}, False)
            targets = target_ids(tokens[:, 1:]).flatten()
            loss = nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
            return Losses(loss, loss)

        with recorded(recorder, self.model), torch.enable_grad():
            sums = recorder.call(LOSS, "", losses, (torch.from_numpy(tokens).long(),), {}, False)
            gradients = taps.gradients_of(sums.objective, dict(self.model.named_parameters()))
        told = finished(recorder, taps, gradients)
        return [*filter(None, map(self._renamed, told)), *self._parameters(gradients)]

    def settings(self, module: str) -> Settings:
        """Returns the parameters of one of our modules, converted from those of the checkpoint."""
        tensors, values = dict(self.model.named_parameters()), {}
        for rule in self.rules:
            if any(name.rpartition(".")[0] == module for name in rule.names) and tensors.keys() >= set(rule.hf_names):
                values |= zip(
                    rule.names, rule.layout.from_hf([array(tensors[name]) for name in rule.hf_names]), strict=True
                )
        return {name.rpartition(".")[2]: value for name, value in values.items() if name.rpartition(".")[0] == module}

    def code(self, module: str) -> str:
        hf_path = next((path for path, (twin_path, _) in self.paths.items() if twin_path == module), None)
        return code_of(hf_path or MODEL, "", dict(self.model.named_modules()).get(hf_path))

    def _leave_out(self, twin_path: str) -> None:
        self.paths = {hf_path: told for hf_path, told in self.paths.items() if told[0] != twin_path}

    def _logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens, use_cache=False).logits.flatten(0, 1)

    def _renamed(self, event: Event) -> Event | None:
        """Returns an event by our names; None if our model has no such tensor."""
        if event.path in (LOGITS, LOSS):
            return event if event.side == "output" else None
        twin_path, tensors = self.paths.get(event.path, ("", {}))
        gradient, tensor = "gradient of ", event.tensor
        start = gradient if tensor.startswith(gradient) else ""
        name = tensors.get(tensor.removeprefix(start))
        return replace(event, path=twin_path, tensor=start + name) if name else None

    def _parameters(self, gradients: Mapping[str, np.ndarray]) -> Iterator[Event]:
        for rule in self.rules:
            if all(name in gradients for name in rule.hf_names):
                theirs = [gradients[name] for name in rule.hf_names]
                added = rule.layout.from_hf([np.zeros_like(gradient) for gradient in theirs])
                arrays = [value - a for value, a in zip(rule.layout.from_hf(theirs), added, strict=True)]
                for name, value in zip(rule.names, arrays, strict=True):
                    path, _, leaf = name.rpartition(".")
                    yield Event("backward", path, f"gradient of {leaf}", value)


def paths_of(
    rules: Sequence[Rule], n_layers: int, adding: Sequence[str] = ()
) -> dict[str, tuple[str, Mapping[str, str]]]:
    """Returns {their path: (our path, {their tensor: our tensor})}.

    Args:
      adding: parts of a block whose outputs differ from ours.
    """
    paths: dict[str, tuple[str, Mapping[str, str]]] = {}
    for i in range(n_layers):
        for part, tensors in CONTAINERS.items():
            twin_path = f"layers.{i}.{part}".rstrip(".")
            hf_path = _common(
                [name for rule in rules if rule.names[0].startswith(f"{twin_path}.") for name in rule.hf_names]
            )
            if not hf_path:  # the layer lacks the part
                continue
            shared = {"input": tensors["input"]} if part in adding else tensors
            paths.setdefault(hf_path, (twin_path, shared))
    for rule in rules:
        if len(rule.names) == len(rule.hf_names) == 1 and rule.layout in ALIKE and rule.names[0].endswith(".weight"):
            twin_path, hf_path = (names[0].removesuffix(".weight") for names in (rule.names, rule.hf_names))
            if not twin_path.endswith(APART):
                paths[hf_path] = twin_path, LAYER
    return paths


def _common(names: Sequence[str]) -> str:
    """Returns the longest path that all names are inside of."""
    return ".".join(os.path.commonprefix([name.split(".")[:-1] for name in names]))
