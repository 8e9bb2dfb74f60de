"""The PyTorch engine: model, loss, gradients, clipping, scaling and update on one device."""

import copy
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_core.config import Config, Precision
from slm_core.model.dropout import site_keys
from slm_core.model.parameter_groups import balance_steps, parameter_groups
from slm_core.model.weights import Weights, checked
from slm_core.protocols import Evaluation, targets_of_update
from slm_core.runs.states import describe_state, open_state_for, write_state
from slm_torch import params
from slm_torch.details import Pieces, activation_rms, norms
from slm_torch.evaluator import Evaluator
from slm_torch.generate import Decoder
from slm_torch.layers.dropout import DropoutKey
from slm_torch.loss import Losses, batch_losses
from slm_torch.model import Transformer
from slm_torch.optim import AVERAGED, make
from slm_torch.optim.base import create_state, named_state


def build(config: Config, vocab_size: int, weights: Weights | None = None) -> "Engine":
    """Builds the engine of a run; `Evaluator` describes the arguments and the errors."""
    return Engine(config, vocab_size, weights)


class Engine:
    """Trains the model of an evaluator; see `slm_core.protocols.Engine`."""

    framework = "torch"

    def __init__(self, config: Config, vocab_size: int, weights: Weights | None = None):
        self.evaluator = evaluator = Evaluator(config, vocab_size, weights, trains=True)
        self.config, self.choices = evaluator.config, evaluator.choices
        self.compute, self.device = evaluator.compute, evaluator.device
        self.model, self.params = evaluator.model, evaluator.params
        specs = {name: spec for name, (_, spec) in params.specs(self.model).items()}
        groups, self.balance_steps = parameter_groups(specs, self.config), balance_steps(specs)
        self.trained = {name: p for name, p in self.params.items() if name in groups}
        self.balanced = {name: p for name, p in self.params.items() if name in self.balance_steps}
        self.optimizer = make(self.config.optim, self.trained, groups)
        self.averages = AVERAGED.get(self.config.optim.kind)
        self.averaged: Transformer | None = None
        self.scaler = LossScaler(self.config.precision, active=self.compute == "float16")
        self.loss_sums = torch.compile(self._loss_sums) if self.config.run.compile else self._loss_sums

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> dict[str, Any]:
        """Does one update, and returns its metrics without waiting for them; see `slm_core.protocols.Engine`."""
        count = targets_of_update(tokens)
        micro = min(self.config.train.micro_batch_size, len(tokens))
        sites = torch.from_numpy(site_keys(self.config.seed, step, self.config.model.n_layers).view(np.int32))
        sites, batch = sites.to(self.device), torch.from_numpy(tokens).to(self.device, torch.int64)
        scale = self.scaler.scale
        losses = []
        for first in range(0, len(tokens), micro):
            sums = self.loss_sums(batch[first : first + micro], DropoutKey(sites, first))
            (sums.objective * (scale / count)).backward()
            losses.append(sums.tokens.detach())
        norm = self._update(lr, scale)
        finite = math.isfinite(norm)
        self.scaler.update(finite)
        return {"loss": sum(losses) / count, "grad_norm": norm, "loss_scale": scale, "skipped": float(not finite)}

    def _loss_sums(self, tokens: Tensor, key: DropoutKey | None) -> Losses:
        return batch_losses(self.model, tokens, key, self.config.memory.loss_chunk)

    @torch.no_grad()
    def _update(self, lr: float, scale: float) -> float:
        """Unscales and clips the gradients, and updates if they are finite. Returns their norm before clipping."""
        self.averaged = None
        grads = [p.grad for p in self.trained.values() if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))) / scale
        if math.isfinite(norm):
            factor = clip_factor(norm, self.config.optim.clip_norm) / scale
            if factor != 1:
                torch._foreach_mul_(grads, factor)
            for group in self.optimizer.param_groups:
                group["lr"] = lr * group.get("lr_multiplier", 1.0)
            self.optimizer.step()
            balance(self.balanced, self.balance_steps)
        for p in self.params.values():
            p.grad = None
        return norm

    def details(self, tokens: np.ndarray, step: int) -> dict[str, float]:
        """Measures weights, gradients and activations before an update; see `slm_core.protocols.Engine`."""
        count = targets_of_update(tokens)
        micro = min(self.config.train.micro_batch_size, len(tokens))
        sites = torch.from_numpy(site_keys(self.config.seed, step, self.config.model.n_layers).view(np.int32))
        sites, batch = sites.to(self.device), torch.from_numpy(tokens).to(self.device, torch.int64)
        pieces = [(batch[row : row + micro], DropoutKey(sites, row)) for row in range(0, len(tokens), micro)]
        gradients = norms("gradient_norm", self._gradients(pieces, count))
        for p in self.params.values():
            p.grad = None
        scaled = {name: norm / self.scaler.scale for name, norm in gradients.items()}
        return norms("weight_norm", self.trained) | scaled | activation_rms(self.model, pieces)

    def _gradients(self, pieces: Pieces, count: int) -> dict[str, Tensor]:
        """Computes the scaled gradients of the trained parameters, as `train_step` does. They stay in the model."""
        for piece, key in pieces:
            (self.loss_sums(piece, key).objective * (self.scaler.scale / count)).backward()
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in self.trained.items()}

    def fetch(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Waits for the metrics of a `train_step`."""
        return {name: float(value) for name, value in metrics.items()}

    def eval_step(self, tokens: np.ndarray) -> Evaluation:
        """Computes the losses of a batch, and how many targets the model predicts, without dropout."""
        return self.evaluator.measure(self.evaluated(), tokens)

    def decoder(self) -> Decoder:
        """Makes a decoder with the current parameters."""
        return Decoder(self.evaluated())

    def facts(self) -> dict[str, str]:
        """Returns {name: fact} for the start of a run: parameters, device, choices, memory."""
        return self.evaluator.facts()

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory of the device so far (of the process, on a CPU), in bytes."""
        return self.evaluator.peak_memory_bytes()

    def evaluated(self) -> Transformer:
        """Returns the model to evaluate and decode with.

        This is the trained model, or a copy with the optimizer's averages, which is kept until training goes on.
        """
        if self.averages is None:
            return self.model
        if self.averaged is not None:
            return self.averaged
        state = {name: tensors[0] for name, tensors in named_state(self.optimizer, self.trained).items()}
        averages = self.averages(self.config.optim, self.trained, state)
        copies = {id(p): p for p in self.params.values()}  # a parameter without an average is shared
        copies |= {id(self.params[name]): nn.Parameter(x, requires_grad=False) for name, x in averages.items()}
        self.averaged = averaged = copy.deepcopy(self.model, copies)
        return averaged

    def non_finite_parameter(self) -> str:
        """Returns the name of the first trained parameter with a value that is not finite; "" if there is none."""
        # The smallest and the largest value tell it in one pass, and take no memory. A NaN is both.
        ends = torch.stack([end for p in self.trained.values() for end in torch.aminmax(p.detach())])
        finite = torch.isfinite(ends).view(-1, 2).all(dim=1).tolist()
        return next((name for name, each in zip(self.trained, finite, strict=True) if not each), "")

    def save(self, folder: Path) -> None:
        """Writes parameters, optimizer and loss scaler into an existing folder."""
        write_state(folder, self.state_entries(), describe_state(self.config, self.framework))

    def restore(self, folder: Path) -> None:
        """Reads what `save` of either twin wrote."""
        self.import_state(open_state_for(folder, self.config))

    def export_state(self, into: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Returns everything by canonical name: "params/NAME", "optim/m/NAME", "scaler/scale" and so on."""
        return dict(self.state_entries(into))

    def state_entries(self, into: Mapping[str, np.ndarray] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the entries of `export_state`, each copied when its turn comes."""
        into = into or {}
        dtypes = {"optim/count": torch.int32}  # PyTorch counts in float32
        for name, tensors in self._tensors().items():
            yield name, params.host_copy(tensors[0], dtypes.get(name), into.get(name))
        yield "scaler/scale", np.array(self.scaler.scale, np.float32)
        yield "scaler/good_steps", np.array(self.scaler.good_steps, np.int32)

    def import_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes the state that `export_state` of either twin returned."""
        self.averaged = None
        if ":" in self.config.optim.kind:  # a user's optimizer, whose first update makes its state
            optim = {name.removeprefix("optim/"): state[name] for name in state if name.startswith("optim/")}
            create_state(self.optimizer, self.trained, optim)
        entries = self._tensors()
        shapes = {name: tuple(tensors[0].shape) for name, tensors in entries.items()}
        for name, array in checked(state, shapes | {"scaler/scale": (), "scaler/good_steps": ()}):
            for tensor in entries.get(name, ()):
                params.load({name: tensor}, {name: array})
        self.scaler.scale = float(state["scaler/scale"])
        self.scaler.good_steps = int(state["scaler/good_steps"])

    def _tensors(self) -> dict[str, list[Tensor]]:
        """Lists the live parameters and optimizer state, by the names of an exported state."""
        named: dict[str, list[Tensor]] = {f"params/{name}": [p] for name, p in self.params.items()}
        return named | {f"optim/{name}": state for name, state in named_state(self.optimizer, self.trained).items()}


def clip_factor(norm: float, limit: float) -> float:
    """Computes the factor that brings gradients of global norm `norm` down to at most `limit` (0: no limit).

    Paper: Pascanu et al. 2013, https://arxiv.org/abs/1211.5063.
    """
    return limit / norm if limit and norm > limit else 1.0


def balance(params: Mapping[str, nn.Parameter], steps: Mapping[str, float]) -> None:
    """Moves a mixture's routing biases, which no loss trains: b <- b - step sign(load).

    An expert with a load above the mean is then chosen less (Wang et al. 2024, https://arxiv.org/abs/2408.15664). Such
    a parameter has the role "balance". Its gradient is the load minus the mean load, over the whole batch.
    """
    for name, p in params.items():
        assert p.grad is not None
        p.sub_(p.grad.sign(), alpha=steps[name])


class LossScaler:
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740).

    The loss is multiplied by `scale` before the backward pass, and gradients are divided by it after. A non-finite
    gradient skips the update and multiplies the scale by `backoff`. `interval` finite updates in a row double it, up to
    `limit`. Without float16 the scale stays 1, and a non-finite update is skipped, too.

    The scale is a float32 number, as in a checkpoint.
    """

    def __init__(self, precision: Precision, active: bool):
        self.active = active
        self.scale = float(np.float32(precision.loss_scale_init)) if active else 1.0
        self.good_steps = 0
        self.interval = precision.loss_scale_growth_interval
        self.backoff = float(np.float32(precision.loss_scale_backoff))
        self.limit = float(np.float32(precision.loss_scale_max))

    def update(self, finite: bool) -> None:
        """Adjusts the scale after an update that was finite, or was not and was skipped."""
        if not self.active:
            return
        if not finite:
            self.scale, self.good_steps = max(float(np.float32(self.scale * self.backoff)), 1.0), 0
        elif self.good_steps + 1 < self.interval:
            self.good_steps += 1
        else:
            self.scale, self.good_steps = min(self.scale * 2, self.limit), 0
