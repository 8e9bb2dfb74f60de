"""Positions: rotation, slopes, buckets and sines of other libraries."""

import numpy as np
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from slm_core.config import Attention, Model, Position
from slm_core.config.layers import resolve
from slm_core.model.positions import alibi_slopes, frequencies, rotation, t5_buckets
from tests.conformance.arrays import layer
from tests.outside.formula import Formula

CONTEXT, WIDTH, THETA = 256, 64, 5e5
FLOAT32 = "it computes in float32"
THEIR_NAMES = {"scaling_factor": "factor", "original_context": "original_max_position_embeddings"}
"""{field of ours: the same of theirs}, where the names differ."""


def _ours(twin, position: Position) -> np.ndarray:
    spec = resolve(Model(d_model=128, attention=Attention(n_heads=2, head_dim=WIDTH), position=position))
    return np.stack(
        [np.log(frequencies(spec, CONTEXT)), *rotation(spec, CONTEXT)[0][:3], *rotation(spec, CONTEXT)[1][:3]]
    )


def _tables(frequency: torch.Tensor, factor: float) -> np.ndarray:
    """Returns logarithms, in which an error of the slowest pair is as large as one of the fastest, and some rows."""
    frequency = frequency.double().numpy()
    angles = np.outer(np.arange(3), frequency)
    return np.concatenate([[np.log(frequency)], factor * np.cos(angles), factor * np.sin(angles)])


def _config(rope_type: str, **fields) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=128, num_attention_heads=2, head_dim=WIDTH, max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": rope_type, "rope_theta": THETA} | fields,
    )  # fmt: skip


def _theirs(rope_type: str, **fields) -> np.ndarray:
    rotary = LlamaRotaryEmbedding(_config(rope_type, **fields))
    return _tables(rotary.inv_freq, rotary.attention_scaling)


def _rope(about: str, **fields) -> Formula:
    """Compares one scaling, whose fields are named as in our schema."""
    scaling = about.partition(",")[0]
    position = Position(theta=THETA, scaling=scaling, **fields)
    theirs = {THEIR_NAMES.get(name, name): value for name, value in fields.items()}
    return Formula(
        f"position.scaling={about}",
        "transformers, LlamaRotaryEmbedding",
        lambda _: _ours(_, position),
        lambda: _theirs("default" if scaling == "none" else scaling, **theirs),
        shared=True,
        tolerance=1e-6,
        why=FLOAT32,
    )


def _dynamic_ntk() -> np.ndarray:
    """Transformers' NTK follows the length: a text of s times the context is stretched by s."""
    config = _config("dynamic", factor=1.0)
    return _tables(*ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=4 * CONTEXT))


def _sinusoids() -> np.ndarray:
    table = torch.zeros(9, 8, dtype=torch.float64)
    create_sinusoidal_embeddings(9, 8, table)
    return table.numpy()


FORMULAS = [
    _rope("none"),
    _rope("linear", scaling_factor=4.0),
    Formula(
        "position.scaling=ntk",
        "transformers, dynamic NTK",
        lambda _: _ours(_, Position(theta=THETA, scaling="ntk", scaling_factor=4.0)),
        _dynamic_ntk,
        shared=True,
        tolerance=1e-6,
        why=FLOAT32,
    ),
    _rope("yarn", scaling_factor=4.0, original_context=64),
    _rope(
        "yarn, every field",
        scaling_factor=8.0,
        original_context=32,
        beta_fast=4.0,
        beta_slow=0.5,
        attention_factor=1.5,
        truncate=False,
    ),
    _rope(
        "yarn, a ramp that ends outside the head",
        scaling_factor=4.0,
        original_context=4096,
        beta_fast=900.0,
        beta_slow=1e-9,
    ),
    _rope(
        "yarn, a ramp without length",
        scaling_factor=1.5,
        original_context=64,
        beta_fast=2.0,
        beta_slow=2.0,
        truncate=False,
    ),
    _rope("llama3", scaling_factor=8.0, original_context=32, low_freq_factor=1.5, high_freq_factor=3.0),
    *(
        Formula(
            f"position.kind=alibi, {heads} head{'s' * (heads > 1)}",
            "transformers, BLOOM",
            lambda _, heads=heads: np.outer(alibi_slopes(heads), np.arange(9)),
            lambda heads=heads: build_alibi_tensor(torch.ones(1, 9), heads, torch.float64).reshape(heads, 9),
            shared=True,
            tolerance=1e-6,
            why=FLOAT32,
        )
        for heads in (1, 6, 8, 12)
    ),
    Formula(
        "position.kind=alibi, counted from the last key",
        "transformers, MPT",
        # Softmax does not see what is added to a whole row: MPT counts from the last key.
        lambda _: np.outer(alibi_slopes(8), np.arange(9) - 8),
        lambda: build_mpt_alibi_tensor(8, 9).double().reshape(8, 9),
        shared=True,
        tolerance=1e-6,
        why=FLOAT32,
    ),
    *(
        Formula(
            f"position.kind=t5, {buckets} buckets to {furthest}",
            "transformers, T5Attention",
            lambda _, buckets=buckets, furthest=furthest: t5_buckets(buckets, furthest, 300),
            lambda buckets=buckets, furthest=furthest: T5Attention._relative_position_bucket(
                -torch.arange(300), False, buckets, furthest
            ),
            shared=True,
        )
        for buckets, furthest in ((32, 128), (8, 20))
    ),
    Formula(
        "position.kind=sinusoidal",
        "transformers, DistilBERT",
        lambda twin: twin.apply(
            "POSITION", "sinusoidal", (layer(position=Position(kind="sinusoidal")), 9), {}, np.zeros((1, 9, 8)), 0
        )[0],
        _sinusoids,
        tolerance=1e-6,
        why=FLOAT32,
    ),
]
