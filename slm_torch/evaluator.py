"""A model with its weights on one device, to evaluate and decode with: what training builds on."""

import numpy as np
import torch
from torch import Tensor

from slm_core.config import Config
from slm_core.model.weights import Weights
from slm_core.planner import Twin
from slm_core.planner.resolve import resolve_auto
from slm_core.protocols import IGNORE
from slm_core.quantization.lora import starting
from slm_core.training.summary import parameter_facts
from slm_torch import params
from slm_torch.device import device_name, peak_memory_bytes, prepare_device, probe
from slm_torch.generate import Decoder
from slm_torch.layers.dropout import DropoutKey
from slm_torch.loss import Losses, loss_sums
from slm_torch.model import Transformer, declared
from slm_torch.numerics import DTYPES


class Evaluator:
    """See `slm_core.protocols.Evaluator`."""

    framework = "torch"
    trains = False

    def __init__(self, config: Config, vocab_size: int, weights: Weights | None = None):
        """`weights`: read one at a time, in the model's order; None: the initial ones of config.seed.

        Raises:
          UserError: the machine lacks what the config asks for (see `resolve_auto`), or the weights do not fit.
        """
        self.device = prepare_device(config)
        device = probe(self.device)
        twin = Twin(self.framework, declared)
        config, self.choices = resolve_auto(config, vocab_size, twin, device, self.trains)
        self.config, self.compute = config, config.precision.compute
        dtype = DTYPES[config.precision.params]
        model = Transformer(config, vocab_size, DTYPES[self.compute])
        if weights is None:
            self.model = params.initialise(model, config.seed, dtype, self.device)
        else:
            values = starting(weights, params.specs(model), config.seed)
            self.model = params.fill(model, values, dtype, self.device)
        self.params = dict(sorted(self.model.named_parameters()))

    def facts(self) -> dict[str, str]:
        return {
            "framework": f"PyTorch {torch.__version__}",
            "device": device_name(self.device),
            **parameter_facts(params.specs(self.model), self.model.adapter_plan, self.config),
            **{name.rpartition(".")[2]: choice for name, choice in self.choices.items()},
            "memory": f"{self.peak_memory_bytes() / 1e9:.2f} GB after building",
        }

    @torch.inference_mode()
    def eval_step(self, tokens: np.ndarray) -> tuple[float, int]:
        sums = self._loss_sums(self._to_device(tokens), None, self.evaluated())
        return float(sums.tokens), int((tokens[:, 1:] != IGNORE).sum())

    def decoder(self) -> Decoder:
        return Decoder(self.evaluated())

    def peak_memory_bytes(self) -> int:
        return peak_memory_bytes(self.device)

    def evaluated(self) -> Transformer:
        """Returns the model to evaluate and decode with."""
        return self.model

    def _to_device(self, tokens: np.ndarray) -> Tensor:
        return torch.from_numpy(tokens).to(self.device, torch.int64)

    def _loss_sums(self, tokens: Tensor, key: DropoutKey | None, model: Transformer | None = None) -> Losses:
        model = self.model if model is None else model
        inputs = tokens[:, :-1].clamp(min=0)  # IGNORE has no embedding: it reads as token 0
        hidden, penalty = model(inputs, key=key)
        return loss_sums(model, hidden, penalty, tokens[:, 1:], self.config.memory.loss_chunk)
