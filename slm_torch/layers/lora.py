"""Low-rank adapters beside frozen matrices."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config import Finetune
from slm_core.quantization.formats import ADAPTER, FORMATS
from slm_core.quantization.lora import Account, account, adapter, frozen
from slm_torch.layers.linear import Linear
from slm_torch.layers.moe import ExpertLinear
from slm_torch.lowbit import TABLES, product
from slm_torch.params import declare


class FrozenLinear(Linear):
    """Linear layer with a frozen matrix and a low-rank adapter (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

        y = x W + (alpha / rank) (x A) B + b

    W is frozen, and may be stored in few bits (QLoRA; Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). Only A
    and B train.
    """

    def __init__(self, linear: Linear, held: str, rank: int, alpha: float):
        """Takes the place of `linear`. `rank` 0: no adapter."""
        shape, spec = linear.shape, linear.weight.spec
        super().__init__(*shape, spec, bias=linear.bias is not None)
        self.held, self.parts = held, ()
        if held != "float":
            self.weight = None
            declared = FORMATS[held].declared(shape, spec)
            self.parts = (*declared, *TABLES[held])
            for leaf, part in declared.items():
                setattr(self, leaf, declare(*part))
            for leaf, table in TABLES[held].items():
                self.register_buffer(leaf, torch.from_numpy(table), persistent=False)
        self.scaling = alpha / rank if rank else 0.0
        adapters = adapter(shape, rank) if rank else {}
        for leaf in ADAPTER:
            setattr(self, leaf, declare(*adapters[leaf]) if rank else None)

    def product(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Returns x W + (alpha / rank) (x A) B."""
        if self.held == "float":
            y = Linear.product(self, x)
        else:
            y = product(x, self.held, [getattr(self, leaf) for leaf in self.parts])
        if self.lora_a is None:
            return y
        inner = x @ self.lora_a.to(x.dtype)
        inner = inner * self.scaling  # in 16 bits, too, PyTorch multiplies by the number as float32
        return y + inner @ self.lora_b.to(x.dtype)


def adapt(model: nn.Module, finetune: Finetune) -> Account:
    """Gives the linear layers of a model that was declared the adapters that `finetune` asks for, and freezes the rest.

    Returns what became of each matrix.

    Raises:
      UserError: see `slm_core.quantization.lora.account`.
    """
    layers = linears(model)
    others = [path for path, module in model.named_modules() if isinstance(module, ExpertLinear)]
    found = account({path: linear.shape for path, linear in layers.items()}, finetune, others)
    for path, linear in layers.items():
        held = finetune.frozen if path in found.low else "float"
        rank = finetune.rank if path in found.adapted else 0
        model.set_submodule(path, FrozenLinear(linear, held, rank, finetune.alpha))
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] not in ADAPTER:
            parameter.spec = frozen(parameter.spec)
            parameter.requires_grad_(False)
    return found


def linears(model: nn.Module) -> dict[str, Linear]:
    """Returns {path: linear layer} of a model, in its own order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Linear)}
