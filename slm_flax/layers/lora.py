"""Low-rank adapters beside frozen matrices."""

from functools import reduce
from typing import Any

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Finetune
from slm_core.quantization.formats import ADAPTER, FORMATS
from slm_core.quantization.lora import AdapterPlan, adapter, frozen, plan_adapters
from slm_flax.layers.linear import Linear
from slm_flax.layers.moe import ExpertLinear
from slm_flax.numerics import wide
from slm_flax.params import canonical, declare
from slm_flax.quantization.formats import product


class FrozenLinear(Linear):
    """Linear layer with a frozen matrix and a low-rank adapter (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

        y = x W + (alpha / rank) (x A) B + b

    W is frozen, and may be quantised (QLoRA; Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). Only A and B
    train. Without an adapter, A and B are None.
    """

    lora_a: nnx.Param | None
    lora_b: nnx.Param | None

    def __init__(self, linear: Linear, stored_as: str, rank: int, alpha: float):
        """Declares the layer that replaces `linear`.

        Args:
          linear: the layer as it was declared.
          stored_as: "float", or a key of `slm_core.quantization.formats.FORMATS`.
          rank: inner width of the adapter; 0: no adapter.
          alpha: the adapter's output is multiplied by alpha / rank.
        """
        shape, spec = linear.shape, linear.weight.get_metadata()["spec"]
        super().__init__(*shape, spec, bias=linear.bias is not None)
        self.stored_as, self.parts = stored_as, ()
        if stored_as != "float":
            del self.weight
            declared = FORMATS[stored_as].declared(shape, spec)
            self.parts = tuple(declared)
            for leaf, part in declared.items():
                setattr(self, leaf, declare(*part))
        self.scaling = alpha / rank if rank else 0.0
        adapters = adapter(shape, rank) if rank else {}
        for leaf in ADAPTER:
            setattr(self, leaf, declare(*adapters[leaf]) if rank else None)

    def product(self, x: Float[Array, "rows in"]) -> Float[Array, "rows out"]:
        """Computes x W + (alpha / rank) (x A) B."""
        if self.stored_as == "float":
            y = Linear.product(self, x)
        else:
            y = product(x, self.stored_as, [getattr(self, leaf).get_value() for leaf in self.parts])
        if self.lora_a is None or self.lora_b is None:
            return y
        inner = x @ self.lora_a.astype(x.dtype)
        inner = (inner.astype(wide(x.dtype)) * self.scaling).astype(x.dtype)  # JAX would round the number, too
        return y + inner @ self.lora_b.astype(x.dtype)


def adapt(model: nnx.Module, finetune: Finetune) -> AdapterPlan:
    """Adds the adapters that `finetune` asks for to a declared model, and freezes all other parameters.

    Returns:
      The plan that was carried out.

    Raises:
      UserError: see `slm_core.quantization.lora.plan_adapters`.
    """
    layers = linears(model)
    experts = [canonical(path) for path, module in nnx.iter_modules(model) if isinstance(module, ExpertLinear)]
    plan = plan_adapters({path: linear.shape for path, linear in layers.items()}, finetune, experts)
    for path, linear in layers.items():
        stored_as = finetune.frozen if path in plan.quantised else "float"
        rank = finetune.rank if path in plan.adapted else 0
        *parents, leaf = path.split(".")
        setattr(reduce(_child, parents, model), leaf, FrozenLinear(linear, stored_as, rank, finetune.alpha))
    for path, parameter in nnx.iter_graph(model):
        if isinstance(parameter, nnx.Param) and path[-1] not in ADAPTER:
            parameter.set_metadata(spec=frozen(parameter.get_metadata()["spec"]))
    return plan


def _child(module: Any, part: str) -> Any:
    """Returns the child of a module by its part of a path: a name, or a number in a list."""
    return module[int(part)] if part.isdigit() else getattr(module, part)


def linears(model: nnx.Module) -> dict[str, Linear]:
    """Lists {path: linear layer} of a model, in the model's order."""
    return {canonical(path): module for path, module in nnx.iter_modules(model) if isinstance(module, Linear)}
