"""A mixture of experts in NumPy float64, one token and one expert at a time."""

import numpy as np
from scipy.special import logsumexp

from slm_core.config import Mlp
from tests.reference import layers as formulas

DENSE = {
    "gelu": lambda x: formulas.gelu(x, "erf"),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
}
GATED = {
    "swiglu": lambda gate, up: formulas.silu(gate) * up,
    "geglu": lambda gate, up: formulas.gelu(gate, "erf") * up,
    "clipped_swiglu": formulas.clipped_swiglu,
}


def logits(weights, x):
    """Computes the router's logits of x [..., d_model]."""
    return x @ weights["router.weight"] + weights.get("router.bias", 0)


def scores(mlp: Mlp, weights, token):
    """Computes the router's scores of one token."""
    raw = logits(weights, token)
    if mlp.router == "sigmoid":
        return 1 / (1 + np.exp(-raw))
    exponentials = np.exp(raw - raw.max())
    return exponentials / exponentials.sum()


def chosen(mlp: Mlp, weights, token):
    """Chooses the experts of one token, best first. Of equal scores the lower expert wins; groups work alike."""
    preference = scores(mlp, weights, token) + weights.get("balance", 0)
    groups = np.split(np.arange(mlp.experts), mlp.groups)
    worth = [sum(sorted(preference[group])[-2:]) for group in groups]
    best = sorted(range(mlp.groups), key=lambda i: (-worth[i], i))[: mlp.top_groups]
    allowed = [i for group in best for i in groups[group]]
    return sorted(allowed, key=lambda i: (-preference[i], i))[: mlp.top_k]


def expert(mlp: Mlp, weights, token, prefix="", index=...):
    """Computes the MLP of one expert; `prefix` selects the shared one."""

    def linear(name, x):
        y = x @ weights[f"{prefix}{name}.weight"][index]
        return y + weights[f"{prefix}{name}.bias"][index] if mlp.bias else y

    up = linear("up_proj", token)
    if mlp.expert in DENSE:
        return linear("down_proj", DENSE[mlp.expert](up))
    return linear("down_proj", GATED[mlp.expert](linear("gate_proj", token), up))


def layer(mlp: Mlp, weights, x):
    """Computes the layer's output for x [batch, time, d_model]."""
    y = np.zeros_like(x)
    for where in np.ndindex(x.shape[:2]):
        token = x[where]
        s, picked = scores(mlp, weights, token), chosen(mlp, weights, token)
        total = sum(s[i] for i in picked) if mlp.renormalise else 1.0
        for i in picked:
            y[where] += mlp.routed_scale * s[i] / total * expert(mlp, weights, token, index=i)
        if mlp.shared_experts:
            gate = 1 / (1 + np.exp(-token @ weights["shared_gate.weight"])) if mlp.shared_gate else 1.0
            y[where] += gate * expert(mlp, weights, token, prefix="shared.")
    return y


def load(mlp: Mlp, weights, x):
    """Counts the choices that fall on each expert, per token."""
    tokens = x.reshape(-1, x.shape[-1])
    counts = np.zeros(mlp.experts)
    for token in tokens:
        counts[chosen(mlp, weights, token)] += 1
    return counts / len(tokens)


def auxiliary_loss(mlp: Mlp, weights, x):
    """Computes what the layer adds to the loss, per token."""
    tokens = x.reshape(-1, x.shape[-1])
    probabilities = [scores(mlp, weights, token) / scores(mlp, weights, token).sum() for token in tokens]
    share = load(mlp, weights, x) / mlp.top_k
    balanced = mlp.experts * np.sum(share * np.mean(probabilities, axis=0))
    squares = [logsumexp(logits(weights, token)) ** 2 for token in tokens]
    return mlp.balance_loss * balanced + mlp.router_z_loss * np.mean(squares)
