"""The PyTorch engine: model, loss, gradients, clipping, scaling and update on one device."""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_core.config import Config
from slm_core.model.dropout import site_keys
from slm_core.model.parameter_groups import balance_steps, parameter_groups
from slm_core.model.weights import Weights, checked
from slm_core.protocols import IGNORE
from slm_torch import checkpoint, params
from slm_torch.evaluator import Evaluator
from slm_torch.layers.dropout import DropoutKey
from slm_torch.model import Transformer
from slm_torch.optim import AVERAGED, make
from slm_torch.optim.balance import balance
from slm_torch.optim.base import create_state, named_state, set_lr
from slm_torch.optim.clipping import clip_factor
from slm_torch.scaler import LossScaler


def build(config: Config, vocab_size: int, weights: Weights | None = None) -> "Engine":
    """Returns the engine of a run; see `Evaluator` for `weights` and what it raises."""
    return Engine(config, vocab_size, weights)


class Engine(Evaluator):
    """See `slm_core.protocols.Engine`."""

    trains = True

    def __init__(self, config: Config, vocab_size: int, weights: Weights | None = None):
        super().__init__(config, vocab_size, weights)
        specs = {name: spec for name, (_, spec) in params.specs(self.model).items()}
        groups, self.balance_steps = parameter_groups(specs, config), balance_steps(specs)
        self.trained = {name: p for name, p in self.params.items() if name in groups}
        self.balanced = {name: p for name, p in self.params.items() if name in self.balance_steps}
        self.optimizer = make(config.optim, self.trained, groups)
        self.averages = AVERAGED.get(config.optim.kind)
        self.averaged: Transformer | None = None
        self.scaler = LossScaler(config.precision, active=self.compute == "float16")
        self.loss_sums = torch.compile(self._loss_sums) if config.run.compile else self._loss_sums

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> dict[str, Any]:
        count = int((tokens[:, 1:] != IGNORE).sum())
        micro = min(self.config.train.micro_batch_size, len(tokens))
        sites = torch.from_numpy(site_keys(self.config.seed, step, self.config.model.n_layers).view(np.int32))
        sites = sites.to(self.device)
        scale = self.scaler.scale
        losses = []
        for first in range(0, len(tokens), micro):
            sums = self.loss_sums(self._to_device(tokens[first : first + micro]), DropoutKey(sites, first))
            (sums.objective * (scale / count)).backward()
            losses.append(sums.tokens.detach())
        norm = self._update(lr, scale)
        finite = math.isfinite(norm)
        self.scaler.update(finite)
        return {"loss": sum(losses) / count, "grad_norm": norm, "loss_scale": scale, "skipped": float(not finite)}

    def fetch(self, metrics: dict[str, Any]) -> dict[str, float]:
        return {name: float(value) for name, value in metrics.items()}

    def save(self, folder: Path) -> None:
        checkpoint.save(folder, self.export_state())

    def restore(self, folder: Path) -> None:
        self.import_state(checkpoint.open_state(folder))

    def export_state(self) -> dict[str, np.ndarray]:
        scaler = {
            "scaler/scale": np.array(self.scaler.scale, np.float32),
            "scaler/good_steps": np.array(self.scaler.good_steps, np.int32),
        }
        dtypes = {"optim/count": torch.int32}  # PyTorch counts in float32
        return scaler | {
            name: held[0].detach().to("cpu", dtypes.get(name), copy=True).numpy()
            for name, held in self._tensors().items()
        }

    def import_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.averaged = None
        if ":" in self.config.optim.kind:  # a user's, which makes its state only in its first update
            optim = {name.removeprefix("optim/"): state[name] for name in state if name.startswith("optim/")}
            create_state(self.optimizer, self.trained, optim)
        tensors = self._tensors()
        shapes = {name: tuple(held[0].shape) for name, held in tensors.items()}
        for name, array in checked(state, shapes | {"scaler/scale": (), "scaler/good_steps": ()}):
            for tensor in tensors.get(name, ()):
                params.load({name: tensor}, {name: array})
        self.scaler.scale = float(state["scaler/scale"])
        self.scaler.good_steps = int(state["scaler/good_steps"])

    def _tensors(self) -> dict[str, list[Tensor]]:
        """Returns the live parameters and optimizer state, by the names of an exported state."""
        named = {f"params/{name}": [p] for name, p in self.params.items()}
        return named | {f"optim/{name}": held for name, held in named_state(self.optimizer, self.trained).items()}

    def evaluated(self) -> Transformer:
        """Returns the model to evaluate and decode with: the trained one, or a copy that holds the optimizer's averages
        until training goes on.
        """
        if self.averages is None:
            return self.model
        if self.averaged is None:
            state = {name: held[0] for name, held in named_state(self.optimizer, self.trained).items()}
            averages = self.averages(self.config.optim, self.trained, state)
            held = {id(p): p for p in self.params.values()}  # what has no average is the same
            held |= {id(self.params[name]): nn.Parameter(x, requires_grad=False) for name, x in averages.items()}
            self.averaged = copy.deepcopy(self.model, held)
        return self.averaged

    @torch.no_grad()
    def _update(self, lr: float, scale: float) -> float:
        """Unscales and clips the gradients, updates if they are finite. Returns their norm before clipping."""
        self.averaged = None
        grads = [p.grad for p in self.trained.values()]
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))) / scale
        if math.isfinite(norm):
            factor = clip_factor(norm, self.config.optim.clip_norm) / scale
            if factor != 1:
                torch._foreach_mul_(grads, factor)
            set_lr(self.optimizer, lr)
            self.optimizer.step()
            balance(self.balanced, self.balance_steps)
        for p in self.params.values():
            p.grad = None
        return norm
