"""Shared by the optimizers: groups of parameters, and the names of their state."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_core.model.parameter_groups import ParameterGroup

Params = Mapping[str, nn.Parameter]
Groups = Mapping[str, ParameterGroup]

PARTS = {"exp_avg": "m", "exp_avg_sq": "v"}
"""{PyTorch's name of a part of the state: the canonical name}. Every other part keeps its name."""


class Optimizer(torch.optim.Optimizer):
    """Base of this project's optimizers: a subclass names the `parts` of its state and defines `update`.

    `update` may overwrite the gradients. `state` is {parameter: {part: tensor}}, of the parameters' shapes and dtype,
    and {"shared": {"count": updates}}.
    """

    parts: tuple[str, ...] = ()

    def __init__(self, params: Params, groups: Groups):
        super().__init__(param_groups(params, groups), {"lr": 0.0})
        self.updated_groups = self.param_groups
        for p in params.values():
            self.state[p] = {part: torch.zeros_like(p) for part in self.parts}
        self.shared = {"count": torch.zeros((), dtype=torch.int32)}
        self.state["shared"] = self.shared  # pyrefly: ignore[unsupported-operation]  (torch types tensors as keys alone)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Counts one update and does it. Returns the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.shared["count"] += 1
        self.update()
        return loss

    def update(self) -> None:
        """Does one update; the count already includes it."""
        raise NotImplementedError

    def join(self, other: torch.optim.Optimizer) -> None:
        """Adds the groups and the state of an optimizer of other parameters; `update` must call its `step`."""
        self.param_groups = [*self.updated_groups, *other.param_groups]
        self.state |= other.state

    def part(self, group: dict[str, Any], part: str) -> list[Tensor]:
        """Returns the state of one part, in the order of the group's parameters."""
        return [self.state[p][part] for p in group["params"]]


def param_groups(params: Params, groups: Groups) -> list[dict[str, Any]]:
    """Makes PyTorch's parameter groups: one for each learning rate multiplier and weight decay.

    PyTorch multiplies the decay by the group's learning rate. The specification multiplies it by the schedule's, so
    that the decay is divided by the multiplier here.
    """
    by_settings: dict[tuple[float, float], dict[str, Any]] = {}
    for name, p in params.items():
        multiplier, decay = groups[name].lr_multiplier, groups[name].decay
        group = {"params": [], "lr_multiplier": multiplier, "weight_decay": decay / multiplier}
        by_settings.setdefault((multiplier, decay), group)["params"].append(p)
    return list(by_settings.values()) or [{"params": [], "lr_multiplier": 1.0, "weight_decay": 0.0}]


def grads(group: dict[str, Any]) -> list[Tensor]:
    """Lists the gradients of a group's parameters."""
    return [p.grad for p in group["params"]]


def decay(group: dict[str, Any]) -> None:
    """Decays each parameter of a group: p <- p (1 - lr weight_decay)."""
    if group["weight_decay"]:
        torch._foreach_mul_(group["params"], 1 - group["lr"] * group["weight_decay"])


def named_state(optimizer: torch.optim.Optimizer, params: Params) -> dict[str, list[Tensor]]:
    """Lists the live tensors of an optimizer's state by canonical name: "m/NAME" of a parameter, or "count".

    PyTorch counts updates in "step", one tensor per parameter. All of these are "count".
    """
    names: dict[Tensor, str] = {p: name for name, p in params.items()}
    entries: dict[str, list[Tensor]] = {}
    for key, parts in optimizer.state.items():
        parameter = names.get(key)
        for part, tensor in parts.items():
            name = "count" if part == "step" else f"{PARTS.get(part, part)}/{parameter}" if parameter else part
            assert name == "count" or name not in entries, f"two tensors of the optimizer's state are called {name}"
            entries.setdefault(name, []).append(torch.as_tensor(tensor))
    return entries


def create_state(optimizer: torch.optim.Optimizer, params: Params, state: Mapping[str, np.ndarray]) -> None:
    """Gives an optimizer the state that `named_state` listed, if only its first update would make one.

    PyTorch's `load_state_dict` would change dtypes. Single numbers are on the CPU, unless the group is fused.
    """
    torch_names = {"count": "step"} | {name: part for part, name in PARTS.items()}
    fused = {p for group in optimizer.param_groups for p in group["params"] if group.get("fused")}
    optimizer.state.clear()
    for entry, array in state.items():
        part, _, parameter = entry.partition("/")
        for p in [params[parameter]] if parameter else params.values():
            device = p.device if array.ndim or p in fused else "cpu"
            dtype = torch.float32 if part == "count" else None
            optimizer.state[p][torch_names.get(part, part)] = torch.tensor(array, dtype=dtype, device=device)
