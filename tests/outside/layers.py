"""MLPs, norms around a block, mixtures and losses: layers and models of Hugging Face transformers."""

import numpy as np
import torch
from transformers import GptOssConfig, OpenAIGPTConfig, OpenAIGPTModel
from transformers.activations import ACT2FN
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.models.switch_transformers.modeling_switch_transformers import router_z_loss_func

from slm_core.config import Attention, Config, Data, Mlp, Model, Norm, Position
from tests.conformance.arrays import layer, named, numbers
from tests.conformance.test_moe import build, inputs, random_weights
from tests.outside.formula import Formula

FLOAT32 = "it computes in float32"


# --- one clipped expert

CLIPPED = Mlp(kind="clipped_swiglu", hidden=12, bias=True)
CLIPPED_WEIGHTS = named(
    gate_proj__weight=(8, 12), up_proj__weight=(8, 12), down_proj__weight=(12, 8), gate_proj__bias=(12,),
    up_proj__bias=(12,), down_proj__bias=(8,),
)  # fmt: skip
FAR = 2 * numbers((9, 8))[0]
"""Inputs so large that some are clipped."""


def _clipped(twin) -> np.ndarray:
    return twin.apply("MLP", "clipped_swiglu", (layer(mlp=CLIPPED),), CLIPPED_WEIGHTS, FAR[None])[0]


def _gpt_oss() -> torch.Tensor:
    """Its weights of gate and up take turns."""
    config = GptOssConfig(hidden_size=8, intermediate_size=12, num_local_experts=1, num_experts_per_tok=1)
    w, experts = {name: torch.from_numpy(value) for name, value in CLIPPED_WEIGHTS.items()}, GptOssExperts(config)
    turns = lambda part: torch.stack([w[f"gate_proj.{part}"], w[f"up_proj.{part}"]], dim=-1).flatten(-2)[None]  # noqa: E731
    experts.double().load_state_dict({
        "gate_up_proj": turns("weight"), "gate_up_proj_bias": turns("bias"),
        "down_proj": w["down_proj.weight"][None], "down_proj_bias": w["down_proj.bias"][None],
    })  # fmt: skip
    chosen = torch.zeros(9, 1, dtype=torch.long)
    return experts(torch.from_numpy(FAR), chosen, torch.ones(9, 1, dtype=torch.float64)).detach()


# --- an expert without a gate


def _experts(kind: str) -> Formula:
    """One expert of one: the router's weight is 1."""
    spec = build(experts=1, top_k=1, expert=kind, bias=True, balance_loss=0.0)
    weights, (x, _) = random_weights(spec), inputs(spec, (2, 9))

    def theirs() -> torch.Tensor:
        w = {name: torch.from_numpy(value) for name, value in weights.items()}
        hidden = ACT2FN[kind](torch.from_numpy(x) @ w["up_proj.weight"][0] + w["up_proj.bias"][0])
        return hidden @ w["down_proj.weight"][0] + w["down_proj.bias"][0]

    return Formula(
        f"mlp.expert={kind}",
        f"transformers, ACT2FN[{kind!r}]",
        lambda twin: twin.mixture(spec, weights, x, np.ones_like(x))[0],
        theirs,
    )


# --- norms behind each part: GPT-1

GPT1 = OpenAIGPTConfig(vocab_size=11, n_positions=9, n_embd=8, n_layer=2, n_head=2, afn="gelu")
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 9)).astype(np.int32)
PARTS = {
    "attn.c_attn": None,  # of queries, keys and values
    "attn.c_proj": "attention.o_proj",
    "ln_1": "attention_norm",
    "mlp.c_fc": "mlp.up_proj",
    "mlp.c_proj": "mlp.down_proj",
    "ln_2": "mlp_norm",
}


def _gpt1() -> OpenAIGPTModel:
    torch.manual_seed(0)
    model = OpenAIGPTModel(GPT1).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def _post(twin) -> np.ndarray:
    weights = {name: value.detach().numpy() for name, value in _gpt1().named_parameters()}
    ours = {"embed.weight": weights["tokens_embed.weight"], "position.weight": weights["positions_embed.weight"]}
    for i in range(2):
        for theirs, name in PARTS.items():
            for part in ("weight", "bias"):
                value = weights[f"h.{i}.{theirs}.{part}"]
                if name:
                    ours[f"layers.{i}.{name}.{part}"] = value
                else:
                    for letter, third in zip("qkv", np.split(value, 3, axis=-1), strict=True):
                        ours[f"layers.{i}.attention.{letter}_proj.{part}"] = third
    model = Model(
        d_model=8, n_layers=2, attention=Attention(n_heads=2, bias=True), position=Position(kind="learned"),
        norm=Norm(kind="layernorm", placement="post", bias=True), tie_embeddings=True,
        mlp=Mlp(kind="gelu", gelu="tanh", hidden=32, bias=True),
    )  # fmt: skip
    return twin.hidden(Config(model=model, data=Data(seq_len=9)), ours, TOKENS)


# --- auxiliary losses

LOGITS, TARGETS = numbers((6, 5))[0] * 3, np.array([0, 4, 2, 2, 1, 3])
ROUTED = build(experts=5, top_k=2, balance_loss=1.0)
ROUTED_WEIGHTS, (ROUTED_X, _) = random_weights(ROUTED), inputs(ROUTED, (2, 20))


def _router_logits() -> torch.Tensor:
    return torch.from_numpy(ROUTED_X @ ROUTED_WEIGHTS["router.weight"])


def _auxiliary(twin, **fields) -> float:
    spec = build(experts=5, top_k=2, **fields)
    return [twin.mixture(spec, ROUTED_WEIGHTS, ROUTED_X, np.zeros_like(ROUTED_X))[1]]


FORMULAS = [
    Formula("mlp.kind=clipped_swiglu", "transformers, GptOssExperts", _clipped, _gpt_oss),
    _experts("gelu"),
    _experts("relu"),
    _experts("relu2"),
    Formula(
        "norm.placement=post",
        "transformers, OpenAIGPTModel",
        _post,
        lambda: _gpt1()(torch.from_numpy(TOKENS).long()).last_hidden_state.detach(),
    ),
    Formula(
        "model.z_loss",
        "transformers, router_z_loss_func",
        lambda twin: np.diff(twin.losses(LOGITS, TARGETS, 1.0)) / len(TARGETS),
        lambda: router_z_loss_func(torch.from_numpy(LOGITS)[None])[None],
    ),
    Formula(
        "mlp.router_z_loss",
        "transformers, router_z_loss_func",
        lambda twin: _auxiliary(twin, balance_loss=0.0, router_z_loss=1.0),
        lambda: router_z_loss_func(_router_logits())[None],
    ),
    Formula(
        "mlp.balance_loss",
        "transformers, load_balancing_loss_func of Mixtral",
        # Theirs sums the shares of all choices, ours takes their mean.
        lambda twin: [2 * x for x in _auxiliary(twin, balance_loss=1.0)],
        lambda: load_balancing_loss_func((_router_logits().flatten(0, 1),), 5, 2)[None],
        tolerance=1e-6,
        why=FLOAT32,
    ),
]
