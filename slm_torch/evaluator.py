"""Evaluates and decodes with a model whose weights are on one device."""

import numpy as np
import torch
from torch import Tensor

from slm_core.config import Config
from slm_core.model.weights import Weights, checked
from slm_core.planner import Twin
from slm_core.planner.resolve import resolve_auto
from slm_core.protocols import Evaluation, Inspection, Module, count_targets
from slm_core.quantization.lora import starting
from slm_core.training.summary import parameter_facts
from slm_torch import params
from slm_torch.device import device_name, peak_memory_bytes, prepare_device, probe
from slm_torch.generate import Decoder
from slm_torch.inspection import inspected, lens, modules
from slm_torch.layers.dropout import DropoutKey
from slm_torch.loss import Losses, batch_losses, batch_scores, token_scores
from slm_torch.mixer_memory import mixer_memory
from slm_torch.model import Transformer, declared
from slm_torch.numerics import DTYPES


class Evaluator:
    """Evaluates a model, looks inside it, and makes decoders of it; see `slm_core.protocols.Inspector`."""

    framework = "torch"

    def __init__(self, config: Config, vocab_size: int, weights: Weights | None = None, trains: bool = False):
        """Places a model with its weights on the config's device.

        Args:
          config: its fields that are "auto" are resolved for the device.
          vocab_size: number of token ids.
          weights: read one at a time, in the model's order; None: the initial weights of config.seed.
          trains: whether an engine trains this model; memory is then planned for training.

        Raises:
          UserError: the machine lacks something that the config asks for, or the weights do not fit.
        """
        self.device = prepare_device(config)
        device = probe(self.device)
        twin = Twin(self.framework, declared, mixer_memory)
        config, self.choices = resolve_auto(config, vocab_size, twin, device, trains)
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
        """Returns {name: fact} for the start of a run: parameters, device, choices, memory."""
        return {
            "framework": f"PyTorch {torch.__version__}",
            "device": device_name(self.device),
            **parameter_facts(params.specs(self.model), self.model.adapter_plan, self.config),
            **{name.rpartition(".")[2]: choice for name, choice in self.choices.items()},
            "memory": f"{self.peak_memory_bytes() / 1e9:.2f} GB after building",
        }

    def eval_step(self, tokens: np.ndarray) -> Evaluation:
        """Computes the losses of a batch, and how many targets the model predicts, without dropout."""
        return self.measure(self.model, tokens)

    @torch.inference_mode()
    def measure(self, model: Transformer, tokens: np.ndarray) -> Evaluation:
        """Does what `eval_step` does, with a model of other weights."""
        batch = torch.from_numpy(tokens).to(self.device, torch.int64)
        scores = batch_scores(model, batch, self.config.memory.loss_chunk)
        return Evaluation(float(scores.tokens), count_targets(tokens), int(scores.correct))

    @torch.inference_mode()
    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes log p(target) of each target, and whether it is the likeliest token, without dropout."""
        placed = torch.from_numpy(tokens).to(self.device, torch.int64)
        logs, greedy = token_scores(self.model, placed, self.config.memory.loss_chunk)
        return logs.cpu().numpy(), greedy.cpu().numpy()

    def load(self, weights: Weights) -> None:
        """Replaces the weights; see `slm_core.protocols.Inspector`."""
        for name, value in checked(weights, {name: tuple(p.shape) for name, p in self.params.items()}):
            params.load({name: self.params[name]}, {name: value})

    @torch.inference_mode()
    def inspect(self, tokens: np.ndarray) -> Inspection:
        """Computes the attention weights and the streams of a batch, without dropout."""
        weights, streams = inspected(self.model, torch.from_numpy(tokens).to(self.device, torch.int64))
        return Inspection(*({path: x.cpu().numpy() for path, x in each.items()} for each in (weights, streams)))

    @torch.inference_mode()
    def lens(self, stream: np.ndarray) -> np.ndarray:
        """Computes the logit lens of a stream."""
        placed = torch.from_numpy(stream).to(self.device, DTYPES[self.compute])
        return lens(self.model, placed).cpu().numpy()

    @torch.inference_mode()
    def modules(self, length: int) -> list[Module]:
        """Lists the modules that the forward pass of one sequence calls."""
        return modules(self.model, torch.zeros(1, length, dtype=torch.int64, device=self.device))

    def decoder(self) -> Decoder:
        """Makes a decoder with the current parameters."""
        return Decoder(self.model)

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory of the device so far (of the process, on a CPU), in bytes."""
        return peak_memory_bytes(self.device)

    def loss_sums(self, tokens: Tensor, key: DropoutKey | None) -> Losses:
        """Computes the losses of a batch on the device; `key` turns dropout on."""
        return batch_losses(self.model, tokens, key, self.config.memory.loss_chunk)
