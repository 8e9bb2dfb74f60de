"""What `slm_core` decides for both twins: initial values, muP, tables of few bits, sampling, dropout."""

import numpy as np
import peft
import scipy
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from slm_core.config import Config, Model, Optim
from slm_core.config.layers import resolve
from slm_core.inference.sampling import probabilities
from slm_core.model.initialization import initial_value, residual_matrix
from slm_core.model.mup import hidden_std, logit_factor, lr_multiplier
from slm_core.quantization.blockwise import signed_code, unsigned_code
from slm_core.quantization.formats import NF4, int8_matrix, int8_parts
from tests.conformance.arrays import numbers
from tests.outside.formula import Formula

LOGITS = 3 * np.random.default_rng(0).standard_normal(50)
MATRIX = np.random.default_rng(0).standard_normal((40, 6))


def _sampling(about: str, theirs: list, **ours) -> Formula:
    def distribution() -> torch.Tensor:
        scores = torch.from_numpy(LOGITS)[None]
        for warper in theirs:
            scores = warper(None, scores)
        return scores.softmax(-1)[0]

    names = ", ".join(type(warper).__name__ for warper in theirs)
    return Formula(about, f"transformers, {names}", lambda _: probabilities(LOGITS, **ours), distribution, shared=True)


def _normal_quantiles() -> np.ndarray:
    """QLoRA's text: quantiles of the normal distribution, 8 below 0 and 9 from it, with the authors' outermost one."""
    quantile = scipy.stats.norm.ppf
    above, below = quantile(np.linspace(0.9677083, 0.5, 9)[:-1]), -quantile(np.linspace(0.9677083, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([above, [0], below]))
    return values / values.max()


def _dynamic_table(signed: bool) -> np.ndarray:
    """Dettmers et al. 2021, figure 2: the leading zeros give the decade, the rest is the fraction between 0.1 and 1."""
    values = [0.0, 1.0]
    for exponent in range(7):
        fractions = 2 ** (exponent + (0 if signed else 1))
        ends = np.linspace(0.1, 1, fractions + 1)
        middles = 10.0 ** (exponent - 6) * (ends[1:] + ends[:-1]) / 2
        values += [*middles, *(-middles if signed else ())]
    return np.sort(values)


def _int8() -> np.ndarray:
    """PyTorch's own quantisation of each column by its largest value, without a zero point."""
    columns = torch.from_numpy(MATRIX)
    scales = columns.abs().amax(0) / 127
    return torch.quantize_per_channel(columns.float(), scales, torch.zeros(6), 1, torch.qint8).dequantize()


def _residual_std(_) -> list[float]:
    spec = residual_matrix(resolve(Model(d_model=64, n_layers=18, depth_scaled_init=True)))
    return [initial_value("w", (400, 400), spec, 0).std()]


def _gpt2_std() -> list[float]:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=400, n_layer=18, n_head=4, vocab_size=5, n_positions=4))
    return [model.transformer.h[3].attn.c_proj.weight.std().item()]


ADAPTED, ADAPTER = numbers((9, 8), (8, 6), (8, 8), (8, 6)), 3.0
"""The input, W, A and B of an adapter, and its alpha."""


def _adapted(twin) -> np.ndarray:
    x, *matrices = ADAPTED
    weights = dict(zip(("weight", "lora_a", "lora_b"), map(np.float32, matrices), strict=True))
    return twin.adapted(x, weights, ADAPTER, "float32")[0]


def _peft() -> torch.Tensor:
    x, w, a, b = (torch.from_numpy(value) for value in ADAPTED)
    base = torch.nn.Linear(8, 6, bias=False).double()
    config = peft.LoraConfig(r=8, lora_alpha=ADAPTER)
    layer = peft.tuners.lora.layer.Linear(base, "ours", config, r=8, lora_alpha=ADAPTER).double()
    with torch.no_grad():
        for module, value in ((base, w), (layer.lora_A["ours"], a), (layer.lora_B["ours"], b)):
            module.weight.copy_(value.T)
    return layer(x).detach()


WIDER = Config(model=Model(d_model=512, mup_base_width=128, init_std=0.02))
"""Four times as wide as the base: the paper's n is 4 here."""


def _mup(_) -> list[float]:
    def rate(role: str, optim: str) -> float:
        config = Config(model=WIDER.model, optim=Optim(kind=optim))
        return lr_multiplier(role, config)

    roles = ("matrix", "embedding", "bias")
    rates = [rate(role, optim) for optim in ("adamw", "sgd") for role in roles]
    return [hidden_std(WIDER.model) ** 2 / 0.02**2, logit_factor(WIDER.model), *rates]


_MUP = [1 / 4, 1 / 4, 1 / 4, 1, 1, 1, 4, 4]
"""Yang et al. 2022, table 8: variance of hidden weights 1 / n, output multiplier 1 / n; Adam's rate of hidden weights
1 / n, of input weights and biases 1; SGD's 1, n, n."""

FORMULAS = [
    _sampling("sampling, temperature", [TemperatureLogitsWarper(0.7)], temperature=0.7),
    _sampling("sampling, top_k", [TemperatureLogitsWarper(0.7), TopKLogitsWarper(7)], temperature=0.7, top_k=7),
    _sampling("sampling, top_p", [TemperatureLogitsWarper(0.7), TopPLogitsWarper(0.8)], temperature=0.7, top_p=0.8),
    _sampling(
        "sampling, both",
        [TemperatureLogitsWarper(1.5), TopKLogitsWarper(20), TopPLogitsWarper(0.7)],
        temperature=1.5,
        top_k=20,
        top_p=0.7,
    ),
    Formula(
        "finetune.frozen=nf4, its values",
        "scipy.stats.norm, by the paper's text",
        lambda _: NF4,
        _normal_quantiles,
        shared=True,
        tolerance=1e-6,
        why="the authors round the outermost probability",
    ),
    Formula(
        "finetune.frozen=int8",
        "torch.quantize_per_channel",
        lambda _: int8_matrix(**int8_parts(MATRIX)),
        _int8,
        shared=True,
        tolerance=1e-6,
        why="it computes in float32",
    ),
    *(
        Formula(
            f"optim.kind=adamw8bit, its table of {name} values",
            "Dettmers et al. 2021, figure 2",
            lambda _, code=code: code(),
            lambda signed=signed: _dynamic_table(signed),
            shared=True,
            tolerance=1e-7,
            why="the table is float32",
        )
        for name, code, signed in (("signed", signed_code, True), ("positive", unsigned_code, False))
    ),
    Formula(
        "model.depth_scaled_init",
        "transformers, GPT2LMHeadModel",
        _residual_std,
        _gpt2_std,
        shared=True,
        tolerance=0.02,
        why="standard deviations of 160,000 random numbers",
    ),
    Formula("finetune.kind=lora", "peft, Linear", _adapted, _peft, tolerance=1e-6, why="ours is compared in float32"),
    Formula("model.mup_base_width", "Yang et al. 2022, table 8", _mup, lambda: _MUP, shared=True),
]
