"""Low-rank adapters beside frozen matrices."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Finetune
from slm_core.quantization.formats import ADAPTER, FORMATS
from slm_core.quantization.lora import AdapterPlan, adapter, frozen, plan_adapters
from slm_torch.layers.linear import Linear
from slm_torch.layers.moe import ExpertLinear
from slm_torch.params import declare, set_spec, spec_of
from slm_torch.quantization.formats import TABLES, product


class FrozenLinear(Linear):
    """Linear layer with a frozen matrix and a low-rank adapter (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

        y = x W + (alpha / rank) (x A) B + b

    W is frozen, and may be quantised (QLoRA; Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). Only A and B
    train. Without an adapter, A and B are None.
    """

    lora_a: nn.Parameter | None
    lora_b: nn.Parameter | None

    def __init__(self, linear: Linear, stored_as: str, rank: int, alpha: float):
        """Declares the layer that replaces `linear`.

        Args:
          linear: the layer as it was declared.
          stored_as: "float", or a key of `slm_core.quantization.formats.FORMATS`.
          rank: inner width of the adapter; 0: no adapter.
          alpha: the adapter's output is multiplied by alpha / rank.
        """
        shape, spec = linear.shape, spec_of(linear.weight)
        super().__init__(*shape, spec, bias=linear.bias is not None)
        self.stored_as, self.parts = stored_as, ()
        if stored_as != "float":
            del self.weight
            declared = FORMATS[stored_as].declared(shape, spec)
            self.parts = (*declared, *TABLES[stored_as])
            for leaf, part in declared.items():
                setattr(self, leaf, declare(*part))
            for leaf, table in TABLES[stored_as].items():
                self.register_buffer(leaf, torch.from_numpy(table), persistent=False)
        self.scaling = alpha / rank if rank else 0.0
        adapters = adapter(shape, rank) if rank else {}
        for leaf in ADAPTER:
            setattr(self, leaf, declare(*adapters[leaf]) if rank else None)

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Computes x W + (alpha / rank) (x A) B."""
        if self.stored_as == "float":
            y = Linear.product(self, x)
        else:
            y = product(x, self.stored_as, [getattr(self, leaf) for leaf in self.parts])
        if self.lora_a is None or self.lora_b is None:
            return y
        inner = x @ self.lora_a.to(x.dtype)
        inner = inner * self.scaling  # PyTorch does not round the number to 16 bits
        return y + inner @ self.lora_b.to(x.dtype)


def adapt(model: nn.Module, finetune: Finetune) -> AdapterPlan:
    """Adds the adapters that `finetune` asks for to a declared model, and freezes all other parameters.

    Returns:
      The plan that was carried out.

    Raises:
      UserError: see `slm_core.quantization.lora.plan_adapters`.
    """
    layers = linears(model)
    experts = [path for path, module in model.named_modules() if isinstance(module, ExpertLinear)]
    plan = plan_adapters({path: linear.shape for path, linear in layers.items()}, finetune, experts)
    for path, linear in layers.items():
        stored_as = finetune.frozen if path in plan.quantised else "float"
        rank = finetune.rank if path in plan.adapted else 0
        model.set_submodule(path, FrozenLinear(linear, stored_as, rank, finetune.alpha))
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] not in ADAPTER:
            set_spec(parameter, frozen(spec_of(parameter)))
            parameter.requires_grad_(False)
    return plan


def linears(model: nn.Module) -> dict[str, Linear]:
    """Lists {path: linear layer} of a model, in the model's order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Linear)}
