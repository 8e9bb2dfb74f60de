"""What the optimizers share: groups of parameters, and the names of their state."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slm_core.model.parameter_groups import ParameterGroup

Params = Mapping[str, nn.Parameter]
Groups = Mapping[str, ParameterGroup]

PARTS = {"exp_avg": "m", "exp_avg_sq": "v"}
"""{PyTorch's name of a part of the state: ours}. Every other part keeps its name."""


class Optimizer(torch.optim.Optimizer):
    """An optimizer of ours: a kind names its `parts` and defines `update`, which may overwrite the gradients.

    `state` is {parameter: {part: tensor}}, of the parameters' shapes and dtype, and {"shared": {"count": updates}}.
    """

    parts: tuple[str, ...] = ()

    def __init__(self, params: Params, groups: Groups):
        super().__init__(param_groups(params, groups), {"lr": 0.0})
        self.own_groups = self.param_groups
        for p in params.values():
            self.state[p] = {part: torch.zeros_like(p) for part in self.parts}
        self.shared = {"count": torch.zeros((), dtype=torch.int32)}
        self.state["shared"] = self.shared  # pyrefly: ignore[unsupported-operation]  (torch types tensors as keys alone)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.shared["count"] += 1
        self.update()
        return loss

    def update(self) -> None:
        """Does one update, the count of which is already up."""
        raise NotImplementedError

    def join(self, other: torch.optim.Optimizer) -> None:
        """Lists the groups and the state of an optimizer of other parameters, which `update` drives, with its own."""
        self.param_groups = [*self.own_groups, *other.param_groups]
        self.state |= other.state

    def part(self, group: dict[str, Any], part: str) -> list[Tensor]:
        """Returns the state of one part, in the order of the group's parameters."""
        return [self.state[p][part] for p in group["params"]]


def param_groups(params: Params, groups: Groups) -> list[dict[str, Any]]:
    """Returns PyTorch's parameter groups: one for each learning rate multiplier and weight decay.

    PyTorch multiplies the decay by the group's learning rate. Ours goes with the schedule's alone.
    """
    found: dict[tuple[float, float], dict[str, Any]] = {}
    for name, p in params.items():
        multiplier, decay = groups[name].lr_multiplier, groups[name].decay
        group = {"params": [], "lr_multiplier": multiplier, "weight_decay": decay / multiplier}
        found.setdefault((multiplier, decay), group)["params"].append(p)
    return list(found.values()) or [{"params": [], "lr_multiplier": 1.0, "weight_decay": 0.0}]


def grads(group: dict[str, Any]) -> list[Tensor]:
    """Returns the gradients of a group's parameters."""
    return [p.grad for p in group["params"]]


def decay(group: dict[str, Any]) -> None:
    """p <- p (1 - lr weight_decay), for each parameter of a group."""
    if group["weight_decay"]:
        torch._foreach_mul_(group["params"], 1 - group["lr"] * group["weight_decay"])


def named_state(optimizer: torch.optim.Optimizer, params: Params) -> dict[str, list[Tensor]]:
    """Returns the live tensors of an optimizer's state by canonical name: "m/NAME" of a parameter, or "count".

    PyTorch counts updates in "step", one tensor per parameter. All of these are "count".
    """
    names: dict[Tensor, str] = {p: name for name, p in params.items()}
    found: dict[str, list[Tensor]] = {}
    for key, held in optimizer.state.items():
        own = names.get(key)
        for part, tensor in held.items():
            name = "count" if part == "step" else f"{PARTS.get(part, part)}/{own}" if own else part
            assert name == "count" or name not in found, f"two tensors of the optimizer's state are called {name}"
            found.setdefault(name, []).append(torch.as_tensor(tensor))
    return found


def create_state(optimizer: torch.optim.Optimizer, params: Params, state: Mapping[str, np.ndarray]) -> None:
    """Gives a state to an optimizer that makes its own only in its first update: the inverse of `named_state`.

    PyTorch's `load_state_dict` would change dtypes. Single numbers are on the CPU, unless the group is fused.
    """
    theirs = {"count": "step"} | {ours: part for part, ours in PARTS.items()}
    fused = {p for group in optimizer.param_groups for p in group["params"] if group.get("fused")}
    optimizer.state.clear()
    for entry, array in state.items():
        part, _, own = entry.partition("/")
        for p in [params[own]] if own else params.values():
            device = p.device if array.ndim or p in fused else "cpu"
            dtype = torch.float32 if part == "count" else None
            optimizer.state[p][theirs.get(part, part)] = torch.tensor(array, dtype=dtype, device=device)
