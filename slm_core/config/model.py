"""Sections of the schema: norms, MLPs, and the model that they and attention make up."""

import dataclasses
from dataclasses import dataclass

from slm_core.config.attention import Attention, Position
from slm_core.config.bounds import EXPERTS, LAYERS, SCALE, WIDTH
from slm_core.config.mixer import Mixer
from slm_core.config.option import option


@dataclass(frozen=True)
class Norm:
    """The norms of every block, and the final norm.

        layernorm:  y = w (x - mean(x)) / sqrt(var(x) + eps) + b
        rmsnorm:    y = w x / sqrt(mean(x^2) + eps)
        dyt:        y = w tanh(alpha x) + b

    `weight` says how w is stored, or that there is none. b exists only with `bias`. A learned alpha starts at `alpha`.

    `placement` says where a block has its norms. It shapes whole blocks and the final norm, so `model.pattern` cannot
    set it. The other fields can differ per layer; the final norm takes the model's own.
    """

    kind: str = option(
        "rmsnorm",
        "normalisation of the residual stream",
        choices={
            "layernorm": "mean and variance (Ba 2016)",
            "rmsnorm": "root mean square (Zhang 2019)",
            "dyt": "Dynamic Tanh: tanh(alpha x), no statistics (Zhu 2025)",
        },
    )
    eps: float = option(
        1e-5, "added to the variance or mean square", read_by={"kind": ("layernorm", "rmsnorm")}, low=1e-30, high=1
    )
    weight: str = option(
        "scale",
        "learned scale of the normalised values",
        read_by={"kind": ("layernorm", "rmsnorm")},
        choices={
            "scale": "times w, which starts at 1",
            "one_plus": "times 1 + w, which starts at 0 (Gemma)",
            "none": "no weight (OLMo 2024)",
        },
    )
    bias: bool = option(False, "a bias beside the weight", read_by={"kind": ("layernorm", "dyt")})
    alpha: float = option(0.5, "initial value of the learned alpha", read_by={"kind": ("dyt",)}, above=0, high=SCALE)
    placement: str = option(
        "pre",
        "where the norms of a block are; all but post have a final norm",
        per_layer=False,  # it shapes a whole block and the final norm
        choices={
            "pre": "x + f(norm(x)) (Xiong 2020)",
            "post": "norm(x + f(x)) (Vaswani 2017)",
            "sandwich": "x + norm(f(norm(x))) (Ding 2021; Gemma 2)",
            "output": "x + norm(f(x)) (OLMo 2 2024)",
            "parallel": "x + attention(norm(x)) + mlp(norm'(x)) (GPT-NeoX 2022)",
            "parallel_shared": "x + attention(norm(x)) + mlp(norm(x)) (GPT-J 2021)",
        },
    )


GATED_MLPS = ("swiglu", "geglu", "clipped_swiglu")
"""The kinds of MLP that have a gate: three matrices instead of two."""
MLPS = ("gelu", "relu", "relu2", *GATED_MLPS, "moe")
"""All kinds of MLP but "none", which is no MLP."""


@dataclass(frozen=True)
class Mlp:
    """The feed-forward layer of every block, if it has one.

    `kind` is a dense MLP of inner width `hidden`, or `moe`: `experts` MLPs of kind `expert` and width `hidden`, of
    which a router sends each token to `top_k`. Only `moe` reads the fields from `expert` on.

    The router scores experts as `router` says, and chooses from the best `top_groups` of `groups`. Chosen scores are
    divided by their sum (`renormalise`), and the sum of outputs is multiplied by `routed_scale`. `shared_experts` see
    every token; `shared_gate` weighs what they return. The load is balanced by a loss (`balance_loss`), by a bias on
    the scores (`balance_bias`), or by both.
    """

    kind: str = option(
        "swiglu",
        "feed-forward layer",
        choices={
            "gelu": "down(gelu(up(x))) (Hendrycks 2016)",
            "relu": "down(relu(up(x))) (Vaswani 2017)",
            "relu2": "down(relu(up(x))^2) (So 2021)",
            "swiglu": "down(silu(gate(x)) * up(x)) (Shazeer 2020)",
            "geglu": "down(gelu(gate(x)) * up(x)) (Shazeer 2020)",
            "clipped_swiglu": "swiglu with a steeper sigmoid, clipped inputs and 1 + up(x) (gpt-oss 2025)",
            "moe": "mixture of experts: dropless top-k routing (Shazeer 2017)",
            "none": "no MLP and no norm of it: a block is its mixer alone (Mamba 2023)",
        },
    )
    gelu: str = option(
        "erf",
        "which GELU",
        read_by={"kind": ("gelu", "geglu")},
        choices={"erf": "exact, by the error function", "tanh": "GPT-2's tanh approximation"},
    )
    hidden: int | None = option(
        None,
        "inner width (moe: of one expert); unset: 4 d_model, in gated kinds 8/3 d_model rounded up to a multiple of 32;"
        " in moe that of its expert kind / experts that a token visits, rounded up to a multiple of 8",
        read_by={"kind": MLPS},
        low=1,
        high=4 * WIDTH,
    )
    bias: bool = option(False, "biases in its linear layers (not in the router)", read_by={"kind": MLPS})
    expert: str = option(
        "swiglu",
        "what an expert computes",
        read_by={"kind": ("moe",)},
        choices={
            "gelu": "as mlp.kind=gelu, exact",
            "relu": "as mlp.kind=relu",
            "relu2": "as mlp.kind=relu2",
            "swiglu": "as mlp.kind=swiglu",
            "geglu": "as mlp.kind=geglu, exact",
            "clipped_swiglu": "as mlp.kind=clipped_swiglu",
        },
    )
    experts: int = option(8, "routed experts", read_by={"kind": ("moe",)}, low=1, high=EXPERTS)
    top_k: int = option(2, "routed experts that a token visits", read_by={"kind": ("moe",)}, low=1, high=EXPERTS)
    shared_experts: int = option(
        0, "experts that every token visits, computed as one of that many times the width (DeepSeekMoE 2024)",
        read_by={"kind": ("moe",)}, low=0, high=EXPERTS,
    )  # fmt: skip
    shared_gate: bool = option(
        False,
        "the output of the shared experts is multiplied by sigmoid(x w), one number per token (Qwen2-MoE 2024)",
        read_by={"kind": ("moe",)},
    )
    router: str = option(
        "softmax",
        "scores of the experts",
        read_by={"kind": ("moe",)},
        choices={"softmax": "softmax over all experts", "sigmoid": "sigmoid of each by itself (DeepSeek-V3 2024)"},
    )
    router_bias: bool = option(False, "a bias in the router (gpt-oss 2025)", read_by={"kind": ("moe",)})
    groups: int = option(
        1,
        "groups of experts, of which a token visits top_groups (DeepSeek-V3 2024)",
        read_by={"kind": ("moe",)},
        low=1,
        high=EXPERTS,
    )
    top_groups: int = option(
        1, "groups that a token may visit: those with the largest sum of their two best scores",
        read_by={"kind": ("moe",)}, low=1, high=EXPERTS,
    )  # fmt: skip
    renormalise: bool = option(True, "the top_k scores are divided by their sum", read_by={"kind": ("moe",)})
    routed_scale: float = option(
        1.0, "the routed experts' sum is multiplied by this", read_by={"kind": ("moe",)}, above=0, high=SCALE
    )
    balance_loss: float = option(
        0.01,
        "coefficient of the load-balancing loss (Fedus 2021); 0: off",
        read_by={"kind": ("moe",)},
        low=0,
        high=SCALE,
    )
    balance_bias: float = option(
        0.0, "step of the routing bias that balances without a loss (Wang 2024: 0.001); 0: off",
        read_by={"kind": ("moe",)}, low=0, high=SCALE,
    )  # fmt: skip
    router_z_loss: float = option(
        0.0,
        "coefficient of the router's mean logsumexp^2 (Zoph 2022: 0.001); 0: off",
        read_by={"kind": ("moe",)},
        low=0,
        high=SCALE,
    )


@dataclass(frozen=True)
class Model:
    """The network that is trained.

    A token embedding, `n_layers` blocks of a mixer and an MLP around a residual stream of width `d_model`, a final norm
    and an output head. The mixer is attention unless `mixer` says otherwise. The sections `mixer`, `attention`,
    `position`, `norm` and `mlp` describe every block; `pattern` changes their fields from layer to layer, and
    `slm_core.config.layers.layer_specs` resolves both to one `LayerSpec` per layer.

    The fields of this class itself are those of the whole network: sizes, multipliers, dropout, initial weights. With
    `mup_base_width`, learning rates and initial weights that suit that width also suit `d_model`.
    """

    d_model: int = option(128, "width of the residual stream", low=1, high=WIDTH)
    n_layers: int = option(5, "blocks", low=1, high=LAYERS)
    tie_embeddings: bool = option(True, "the output head reuses the embedding matrix")
    head_bias: bool = option(False, "a bias on the logits, after their multiplier and before the soft-cap (GPT-J 2021)")
    dropout: float = option(
        0.0, "probability of zeroing an element after the embedding, attention and the MLP", low=0, below=1
    )
    embed_scale: float = option(1.0, "multiplies the token embedding (Gemma: sqrt(d_model))", above=0, high=SCALE)
    embed_norm: bool = option(False, "a norm of norm.kind on the scaled token embedding (BLOOM 2022)")
    residual_multiplier: float = option(
        1.0, "multiplies what attention and MLP add to the stream (Granite)", above=0, high=SCALE
    )
    logit_multiplier: float = option(1.0, "multiplies the logits, before the soft-cap (Granite)", above=0, high=SCALE)
    logit_softcap: float = option(0.0, "cap * tanh(logits / cap) (Gemma 2); 0: off", low=0, high=SCALE)
    z_loss: float = option(
        0.0, "coefficient of the mean logsumexp(logits)^2 in training (PaLM: 1e-4); 0: off", low=0, high=SCALE
    )
    init_std: float = option(0.02, "standard deviation of initial matrices and embeddings", above=0, high=SCALE)
    depth_scaled_init: bool = option(
        True,
        "projections into the residual stream start at init_std / sqrt(2 n_layers); without MLPs, / sqrt(n_layers)",
    )
    mup_base_width: int = option(
        0,
        "width whose learning rates and initial weights carry over to any d_model (muP, Yang 2022); 0: off",
        low=0,
        high=WIDTH,
    )
    pattern: str = option(
        "",
        "overrides of model fields per layer, tiled over the stack: '5*attention.window=256 | .' (configs/README.md)",
    )
    mixer: Mixer = dataclasses.field(default_factory=Mixer)
    attention: Attention = dataclasses.field(default_factory=Attention)
    position: Position = dataclasses.field(default_factory=Position)
    norm: Norm = dataclasses.field(default_factory=Norm)
    mlp: Mlp = dataclasses.field(default_factory=Mlp)
