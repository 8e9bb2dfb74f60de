"""Positions, and how they are stretched."""

import dataclasses
from typing import Any

import torch

from faults.fault import Apply, Fault, changed, edited, replace
from slm_core.config.layers import layer_specs
from slm_core.model.positions import rotation, t5_buckets


def turned(layer: int, **options: Any) -> Apply:
    """Returns a fault: a layer's angles are those of other options of `model.position`."""

    def apply(engine, patch) -> None:
        model = layer_specs(engine.config.model)[layer]
        model = dataclasses.replace(model, position=dataclasses.replace(model.position, **options))
        rope = engine.model.layers[layer].attention.position
        tables = rotation(model, engine.config.data.seq_len)
        for name, table in zip(("cos", "sin"), tables, strict=True):
            replace(patch, rope, name, torch.from_numpy(table))

    return apply


def buckets(number: int, max_distance: int) -> Apply:
    """Returns a fault: the buckets of other numbers."""

    def apply(engine, patch) -> None:
        bias = engine.model.layers[2].attention.attend.bias
        bucket = torch.from_numpy(t5_buckets(number, max_distance, engine.config.data.seq_len))
        replace(patch, bias, "bucket", bucket.clamp(max=len(bias.weight) - 1))

    return apply


YARN = ("rotations", "logits", "layers.0.attention.position")
SINES = "model.position.table"

FAULTS = {
    "interleaved pairs": Fault(
        edited("slm_torch.layers.rope:turned", "x.to(cos.dtype).chunk(2, dim=-1)",
               "(x.to(cos.dtype)[..., 0::2], x.to(cos.dtype)[..., 1::2])"),
        "rope", "dense", "logits", "layers.0.attention.position",
    ),
    "turned the other way": Fault(
        changed("model.layers.0.attention.position.sin", lambda sin: -sin),
        "rope", "dense", "logits", "layers.0.attention.position",
    ),
    "the keys not turned": Fault(
        edited("model.layers.0.attention.forward", "self.position(k, start, documents)", "k"),
        "rope", "dense", "logits", "layers.0.attention",
    ),
    "another theta": Fault(
        turned(0, theta=10_001.0), "position.theta", "dense", "logits", "layers.0.attention.position",
    ),
    "the last features turn": Fault(
        edited("model.layers.3.attention.position.forward",
               "[*turned(x[..., : self.rotary], cos, sin), x[..., self.rotary :]]",
               "[*turned(x[..., self.rotary :], cos, sin), x[..., : self.rotary]]"),
        "position.fraction", "zoo", "logits", "layers.3.attention.position",
    ),
    "positions not divided": Fault(
        turned(3, scaling="none", scaling_factor=1.0), "scaling=linear", "zoo", "logits", "layers.3.attention.position",
    ),
    "positions divided twice": Fault(
        turned(3, scaling_factor=16.0), "position.scaling_factor", "zoo", "logits", "layers.3.attention.position",
    ),
    "theta times the factor": Fault(
        turned(1, scaling="none", scaling_factor=1.0, theta=40_000.0),
        "scaling=ntk", "zoo", "logits", "layers.1.attention.position",
    ),
    "frequencies divided, not mixed": Fault(
        turned(2, scaling="linear"), "scaling=llama3", "zoo", "logits", "layers.2.attention.position",
    ),
    "the paper's bound of low frequencies": Fault(
        turned(2, low_freq_factor=1.0), "position.low_freq_factor", "zoo", "logits", "layers.2.attention.position",
    ),
    "the paper's bound of high frequencies": Fault(
        turned(2, high_freq_factor=4.0), "position.high_freq_factor", "zoo", "logits", "layers.2.attention.position",
    ),
    "frequencies divided, temperature kept": Fault(turned(0, scaling="linear"), "scaling=yarn", *YARN),
    "temperature by the formula": Fault(turned(0, attention_factor=None), "position.attention_factor", *YARN),
    "the scaled context as the original": Fault(turned(0, original_context=48), "position.original_context", *YARN),
    "the paper's beta_fast": Fault(turned(0, beta_fast=32.0), "position.beta_fast", *YARN),
    "the paper's beta_slow": Fault(turned(0, beta_slow=0.9), "position.beta_slow", *YARN),
    "bounds rounded": Fault(turned(0, truncate=True), "position.truncate", *YARN),
    "no temperature": Fault(
        turned(1, attention_factor=1.0),
        "position.attention_factor", "catalogue", "logits", "layers.1.attention.position",
    ),
    "slopes of the next head": Fault(
        changed("model.layers.0.attention.attend_2.bias.table", lambda table: table.roll(1, dims=0)),
        "alibi", "catalogue", "logits", "layers.0.attention.attend_2.bias",
    ),
    "farther keys preferred": Fault(
        changed("model.layers.4.attention.attend.bias.table", lambda table: -table),
        "alibi", "zoo", "logits", "layers.4.attention.attend.bias",
    ),
    "bucket off by one": Fault(
        changed("model.layers.2.attention.attend.bias.bucket", lambda bucket: (bucket + 1).clamp(max=5)),
        "t5", "catalogue", "logits", "layers.2.attention.attend.bias",
    ),
    "half as many exact buckets": Fault(
        buckets(4, 10), "position.buckets", "catalogue", "logits", "layers.2.attention.attend.bias"
    ),
    "buckets up to less than half the distance": Fault(
        buckets(6, 4), "position.max_distance", "catalogue", "logits", "layers.2.attention.attend.bias",
    ),
    "learned positions in the reverse order": Fault(
        edited("model.position.forward", "at_positions(self.weight, start, x.shape[1], documents)",
               "at_positions(self.weight.flip(0), start, x.shape[1], documents)"),
        "learned", "catalogue", "logits", "position",
    ),
    "learned positions from 0 in each call": Fault(
        edited("model.position.forward", "at_positions(self.weight, start, x.shape[1], documents)",
               "self.weight[: x.shape[1]]"),
        "learned", "catalogue", "decoding", "position",
    ),
    "sines and cosines in halves": Fault(
        changed(SINES, lambda table: torch.cat([table[:, 0::2], table[:, 1::2]], dim=1)),
        "sinusoidal", "zoo", "logits", "position",
    ),
    "scaled by the position": Fault(
        edited("model.layers.5.attention.position.forward", "return x",
               "return x * (1 + x.new_ones(x.shape[1]).cumsum(0)[:, None, None] / 100)"),
        "none", "zoo", "logits", "layers.5.attention.position",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
