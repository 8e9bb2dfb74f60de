"""Adapters beside frozen matrices, and matrices in few bits."""

import numpy as np
import torch

from faults.fault import Apply, Fault, changed, edited, option
from slm_core.quantization.formats import BY_CODES, Parts, int8_parts
from slm_torch.quantization.formats import int8_matrix, nf4_matrix

LAYER = "layers.0.mlp.up_proj"
MATRIX = "slm_torch.quantization.formats:MATRIX"
FIRST = "layers.0.attention.q_proj"  # in the order in which layers run


def untrained(name: str) -> Apply:
    """Returns a fault of AdamW: a parameter is left out of its update."""

    def apply(engine, patch) -> None:
        for group in engine.optimizer.param_groups:
            patch.setitem(group, "params", [p for p in group["params"] if p is not engine.trained[name]])

    return apply


def to_128(matrix) -> Parts:
    scale = int8_parts(matrix)["scale"] * 127 / 128
    return {"codes": np.clip(np.rint(matrix / scale), -128, 127).astype(np.int8), "scale": scale}


def swapped(codes: torch.Tensor) -> torch.Tensor:
    return codes << 4 | codes >> 4


FAULTS = {
    "a parameter that stays as it is": Fault(
        untrained("final_norm.weight"), "kind=full", "dense", "update", "optimizer",
    ),
    "no adapter": Fault(
        edited(f"model.{LAYER}.product", "inner @ self.lora_b.to(x.dtype)", "0 * inner @ self.lora_b.to(x.dtype)"),
        "kind=lora", "lora", "logits", LAYER,
    ),
    "the input of an adapter cut off from the gradient": Fault(
        edited(f"model.{LAYER}.product", "x @ self.lora_a.to(x.dtype)", "x.detach() @ self.lora_a.to(x.dtype)"),
        "kind=lora", "lora", "gradients", LAYER,
    ),
    "an adapter of the targets that does not train": Fault(
        untrained(f"{LAYER}.lora_b"), "finetune.targets", "lora", "update", "optimizer",
    ),
    "divided by the root of the rank": Fault(
        changed(f"model.{LAYER}.scaling", lambda original: original * 3**0.5), "finetune.rank", "lora", "logits", LAYER,
    ),
    "alpha forgotten": Fault(
        changed(f"model.{LAYER}.scaling", lambda original: 1 / 3), "finetune.alpha", "lora", "logits", LAYER,
    ),
    "a frozen matrix decayed": Fault(
        edited("_update", "self.optimizer.step()",
               f"self.optimizer.step(); self.params['{LAYER}.weight'].mul_(1 - lr * 0.1)"),
        "frozen=float", "lora", "update", "optimizer",
    ),
    "a step of 1/128": Fault(
        option("slm_core.quantization.formats:BY_CODES", "int8", BY_CODES["int8"]._replace(quantise=to_128)),
        "frozen=int8", "int8", "initial_weights", "layers.0.attention.k_proj",
    ),
    "codes without a sign": Fault(
        option(MATRIX, "int8", lambda codes, scale: int8_matrix(codes.view(torch.uint8), scale)),
        "frozen=int8", "int8", "logits", FIRST,
    ),
    "no scale in the backward pass": Fault(
        edited("slm_torch.quantization.formats:_Product.backward", "MATRIX[ctx.stored_as](*parts)",
               "MATRIX[ctx.stored_as](parts[0], torch.ones_like(parts[1]))"),
        "frozen=int8", "int8", "gradients", "layers.0.mlp.down_proj",
    ),
    "the lower four bits first": Fault(
        option(MATRIX, "nf4", lambda codes, *scales: nf4_matrix(swapped(codes), *scales)),
        "frozen=nf4", "nf4", "logits", FIRST,
    ),
    "scales without their mean": Fault(
        option(MATRIX, "nf4", lambda codes, scale, offset, *rest: nf4_matrix(codes, scale, 0 * offset, *rest)),
        "frozen=nf4", "nf4", "logits", FIRST,
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
