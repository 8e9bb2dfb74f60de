"""Low-rank adapters beside frozen matrices."""

from functools import reduce

from flax import nnx
from jax import Array
from jaxtyping import Float

from slm_core.config import Finetune
from slm_core.quantization.formats import ADAPTER, FORMATS
from slm_core.quantization.lora import Account, account, adapter, frozen
from slm_flax.layers.linear import Linear
from slm_flax.layers.moe import ExpertLinear
from slm_flax.lowbit import product
from slm_flax.numerics import wide
from slm_flax.params import canonical, declare


class FrozenLinear(Linear):
    """Linear layer with a frozen matrix and a low-rank adapter (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

        y = x W + (alpha / rank) (x A) B + b

    W is frozen, and may be stored in few bits (QLoRA; Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). Only A
    and B train.
    """

    def __init__(self, linear: Linear, held: str, rank: int, alpha: float):
        """Takes the place of `linear`. `rank` 0: no adapter."""
        shape, spec = linear.shape, linear.weight.get_metadata()["spec"]
        super().__init__(*shape, spec, bias=linear.bias is not None)
        self.held, self.parts = held, ()
        if held != "float":
            self.weight = None
            declared = FORMATS[held].declared(shape, spec)
            self.parts = tuple(declared)
            for leaf, part in declared.items():
                setattr(self, leaf, declare(*part))
        self.scaling = alpha / rank if rank else 0.0
        adapters = adapter(shape, rank) if rank else {}
        for leaf in ADAPTER:
            setattr(self, leaf, declare(*adapters[leaf]) if rank else None)

    def product(self, x: Float[Array, "rows in"]) -> Float[Array, "rows out"]:
        """Returns x W + (alpha / rank) (x A) B."""
        if self.held == "float":
            y = Linear.product(self, x)
        else:
            y = product(x, self.held, [getattr(self, leaf).get_value() for leaf in self.parts])
        if self.lora_a is None:
            return y
        inner = x @ self.lora_a.astype(x.dtype)
        inner = (inner.astype(wide(x.dtype)) * self.scaling).astype(x.dtype)  # JAX rounds the number, too
        return y + inner @ self.lora_b.astype(x.dtype)


def adapt(model: nnx.Module, finetune: Finetune) -> Account:
    """Gives the linear layers of a model that was declared the adapters that `finetune` asks for, and freezes the rest.

    Returns what became of each matrix.

    Raises:
      UserError: see `slm_core.quantization.lora.account`.
    """
    layers = linears(model)
    others = [canonical(path) for path, module in nnx.iter_modules(model) if isinstance(module, ExpertLinear)]
    found = account({path: linear.shape for path, linear in layers.items()}, finetune, others)
    for path, linear in layers.items():
        held = finetune.frozen if path in found.low else "float"
        rank = finetune.rank if path in found.adapted else 0
        *parents, leaf = path.split(".")
        owner = reduce(
            lambda module, part: module[int(part)] if part.isdigit() else getattr(module, part), parents, model
        )
        setattr(owner, leaf, FrozenLinear(linear, held, rank, finetune.alpha))
    for path, parameter in nnx.iter_graph(model):
        if isinstance(parameter, nnx.Param) and path[-1] not in ADAPTER:
            parameter.set_metadata(spec=frozen(parameter.get_metadata()["spec"]))
    return found


def linears(model: nnx.Module) -> dict[str, Linear]:
    """Returns {path: linear layer} of a model, in its own order."""
    return {canonical(path): module for path, module in nnx.iter_modules(model) if isinstance(module, Linear)}
