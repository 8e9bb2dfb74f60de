"""Sections of the schema: attention and positions."""

from dataclasses import dataclass

from slm_core.config.bounds import SCALE, TOKENS, WIDTH
from slm_core.config.option import option


@dataclass(frozen=True)
class Attention:
    """The attention of every block.

    `kind` says how queries, keys and values come from the stream. `kernel` says how softmax attention over them is
    computed: kernels agree on the result, and differ in speed and memory.

    A query at t and a key at s give the score `scale` q_t . k_s, which `softcap` bounds. With a `window`, only the last
    `window` keys have scores. `qk_norm` comes before the position, `sinks` join the softmax, and `gate` multiplies the
    output before its projection.

    Widths that are unset follow from `n_heads` and `model.d_model`, as `slm_core.config.layers.resolve` computes them.
    Only `gqa` and `differential` read `n_kv_heads`; only `mla` reads `q_rank`, `kv_rank`, `rope_dim` and `v_dim`.
    """

    kind: str = option(
        "gqa",
        "attention mechanism",
        choices={
            "gqa": "grouped-query attention (Ainslie 2023)",
            "mla": "multi-head latent attention: low-rank keys and values, decoupled rotary part (DeepSeek-V2 2024)",
            "differential": "the difference of two softmax maps (Ye 2024)",
        },
    )
    kernel: str = option(
        "fused",
        "how softmax attention is computed",
        choices={
            "dot_product": "written out in tensor operations (Vaswani 2017)",
            "flash": "in tiles with an online softmax; memory linear in the context (Dao 2022)",
            "fused": "the framework's own kernel; options that it lacks are computed by flash",
        },
    )
    n_heads: int = option(4, "query heads", low=1, high=WIDTH)
    n_kv_heads: int | None = option(
        None,
        "key/value heads; unset: n_heads (multi-head); 1: multi-query",
        read_by={"kind": ("gqa", "differential")},
        low=1,
        high=WIDTH,
    )
    head_dim: int | None = option(
        None,
        "width of a head (mla: of its part without position); unset: d_model / n_heads (differential: half of that)",
        low=1,
        high=WIDTH,
    )
    q_rank: int | None = option(
        None, "width of the queries' latent; unset: queries come straight from the input", read_by={"kind": ("mla",)},
        low=1, high=WIDTH,
    )  # fmt: skip
    kv_rank: int | None = option(
        None, "width of the latent of keys and values; unset: 4 head_dim", read_by={"kind": ("mla",)}, low=1, high=WIDTH
    )
    rope_dim: int | None = option(
        None, "width of the rotary part of a head; unset: head_dim / 2", read_by={"kind": ("mla",)}, low=2, high=WIDTH
    )
    v_dim: int | None = option(
        None, "width of a value head; unset: head_dim", read_by={"kind": ("mla",)}, low=1, high=WIDTH
    )
    scale: float | None = option(
        None,
        "scores are multiplied by this; unset: 1 / sqrt(width of a query), 8 / width under muP, sqrt(width) with"
        " qk_norm=l2",
        above=0,
        high=SCALE,
    )
    qk_norm: str = option(
        "none",
        "normalisation of queries and keys before the position is applied",
        choices={
            "none": "no normalisation",
            "rmsnorm": "RMSNorm with a learned weight (Dehghani 2023)",
            "l2": "scaled to length 1, so that scores are cosines (Henry 2020)",
        },
    )
    qk_norm_over: str = option(
        "head",
        "what is normalised at once",
        read_by={"qk_norm": ("rmsnorm", "l2")},
        choices={"head": "each head by itself (Gemma 3, Qwen3)", "whole": "all heads together (OLMo 2)"},
    )
    window: int = option(
        0, "sliding window: tokens that a query sees, itself included; 0: all up to it", low=0, high=TOKENS
    )
    softcap: float = option(0.0, "cap * tanh(scores / cap) before the softmax (Gemma 2); 0: off", low=0, high=SCALE)
    sinks: bool = option(False, "a learned score per head that joins the softmax and attends to nothing (gpt-oss 2025)")
    gate: str = option(
        "none",
        "sigmoid gate on the attention output before its projection (Qiu 2025)",
        choices={"none": "no gate", "head": "one gate per head", "element": "one gate per element"},
    )
    value_residual: bool = option(False, "values are mixed with the first layer's, by two learned weights (Zhou 2024)")
    bias: bool = option(False, "biases in the attention projections")
    output_bias: bool | None = option(None, "bias in the output projection; unset: as bias")


@dataclass(frozen=True)
class Position:
    """Gives the model the order of tokens.

    `rope`, `alibi` and `t5` act on queries, keys or scores in every layer, so `model.pattern` can set them per layer.
    `learned` and `sinusoidal` act once, on the embedding. The other fields belong to one kind: `theta`, `fraction` and
    `scaling` to `rope`, `buckets` and `max_distance` to `t5`.

    `scaling` stretches rotation to a context `scaling_factor` times `original_context`. `yarn` reads the two `beta`
    fields, `attention_factor` and `truncate`; `llama3` reads the two `freq_factor` fields.
    """

    kind: str = option(
        "rope",
        "how the model knows the order of tokens",
        choices={
            "rope": "rotary embedding of queries and keys (Su 2021)",
            "alibi": "scores fall linearly with distance, by a slope per head (Press 2022)",
            "t5": "a learned score per head and bucket of distances (Raffel 2020)",
            "learned": "a learned vector per position, added to the embedding (Radford 2018)",
            "sinusoidal": "fixed sines and cosines, added to the embedding (Vaswani 2017)",
            "none": "no position: only the causal mask orders tokens (Kazemnejad 2023)",
        },
        whole_model=("learned", "sinusoidal"),  # they act on the embedding
    )
    theta: float = option(
        10_000.0,
        "base of the geometric series of wavelengths",
        read_by={"kind": ("rope", "sinusoidal")},
        low=1 / SCALE,
        high=1e12,
    )
    fraction: float = option(
        1.0, "share of a head's width that is rotated (GPT-NeoX: 0.25)", read_by={"kind": ("rope",)}, above=0, high=1
    )
    scaling: str = option(
        "none",
        "how rotation is stretched to a context that is longer than the trained one",
        read_by={"kind": ("rope",)},
        choices={
            "none": "as trained",
            "linear": "positions divided by scaling_factor (Chen 2023)",
            "ntk": "a larger theta: low frequencies stretch, high ones stay (bloc97 2023)",
            "yarn": "by parts, with a softmax temperature (Peng 2023)",
            "llama3": "by parts, smoothly between two wavelengths (Llama 3.1 2024)",
        },
    )
    scaling_factor: float = option(
        1.0,
        "context extension factor",
        read_by={"scaling": ("linear", "ntk", "yarn", "llama3")},
        low=1 / SCALE,
        high=SCALE,
    )
    original_context: int | None = option(
        None, "trained context, tokens; unset: data.seq_len / scaling_factor", read_by={"scaling": ("yarn", "llama3")},
        low=1, high=TOKENS,
    )  # fmt: skip
    beta_fast: float = option(
        32.0,
        "dimensions that turn more often than this in original_context keep their frequency",
        read_by={"scaling": ("yarn",)},
        low=1 / SCALE,
        high=SCALE,
    )
    beta_slow: float = option(
        1.0,
        "dimensions that turn less often than this have their frequency divided by scaling_factor",
        read_by={"scaling": ("yarn",)},
        low=1 / SCALE,
        high=SCALE,
    )
    attention_factor: float | None = option(
        None, "rotated queries and keys are multiplied by this; unset: 0.1 ln(scaling_factor) + 1",
        read_by={"scaling": ("yarn",)}, low=1 / SCALE, high=SCALE,
    )  # fmt: skip
    truncate: bool = option(
        True, "the two limits, as dimensions, are rounded outwards (gpt-oss: false)", read_by={"scaling": ("yarn",)}
    )
    low_freq_factor: float = option(
        1.0,
        "frequencies with a wavelength over original_context / this are divided by scaling_factor",
        read_by={"scaling": ("llama3",)},
        low=1 / SCALE,
        high=SCALE,
    )
    high_freq_factor: float = option(
        4.0,
        "frequencies with a wavelength under original_context / this stay",
        read_by={"scaling": ("llama3",)},
        low=1 / SCALE,
        high=SCALE,
    )
    buckets: int = option(
        32, "buckets of distances, each with a score per head", read_by={"kind": ("t5",)}, low=2, high=WIDTH
    )
    max_distance: int = option(
        128, "distances from here on share the last bucket", read_by={"kind": ("t5",)}, low=2, high=TOKENS
    )
