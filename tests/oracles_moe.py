"""A mixture of experts in NumPy float64, one token and one expert at a time."""

import numpy as np
import oracles

from slm_core.config import Mlp

ACTIVATIONS = {
    "gelu": lambda x: oracles.gelu(x, "erf"),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "swiglu": oracles.silu,
    "geglu": lambda x: oracles.gelu(x, "erf"),
}


def scores(mlp: Mlp, logits):
    """The router's scores of one token."""
    if mlp.router == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def chosen(mlp: Mlp, weights, token):
    """The experts of one token, the best first and of equals the lower first."""
    preference = scores(mlp, token @ weights["router.weight"]) + weights.get("balance", 0)
    return sorted(range(mlp.experts), key=lambda i: (-preference[i], i))[: mlp.top_k]


def expert(mlp: Mlp, weights, token, prefix="", index=...):
    """The MLP of one expert; of the shared one by the prefix of its names."""

    def linear(name, x):
        y = x @ weights[f"{prefix}{name}.weight"][index]
        return y + weights[f"{prefix}{name}.bias"][index] if mlp.bias else y

    activation = ACTIVATIONS[mlp.expert]
    if mlp.expert in ("gelu", "relu2"):
        return linear("down_proj", activation(linear("up_proj", token)))
    return linear("down_proj", activation(linear("gate_proj", token)) * linear("up_proj", token))


def layer(mlp: Mlp, weights, x):
    """The output, x being [batch, time, d_model]."""
    y = np.zeros_like(x)
    for where in np.ndindex(x.shape[:2]):
        token = x[where]
        s, picked = scores(mlp, token @ weights["router.weight"]), chosen(mlp, weights, token)
        total = sum(s[i] for i in picked) if mlp.renormalise else 1.0
        for i in picked:
            y[where] += mlp.routed_scale * s[i] / total * expert(mlp, weights, token, index=i)
        if mlp.shared_experts:
            y[where] += expert(mlp, weights, token, prefix="shared.")
    return y


def load(mlp: Mlp, weights, x):
    """How many choices fall on each expert, a token."""
    tokens = x.reshape(-1, x.shape[-1])
    counts = np.zeros(mlp.experts)
    for token in tokens:
        counts[chosen(mlp, weights, token)] += 1
    return counts / len(tokens)


def penalty(mlp: Mlp, weights, x):
    """What the layer adds to the loss a token."""
    logits = x.reshape(-1, x.shape[-1]) @ weights["router.weight"]
    probabilities = [scores(mlp, row) / scores(mlp, row).sum() for row in logits]
    share = load(mlp, weights, x) / mlp.top_k
    balanced = mlp.experts * np.sum(share * np.mean(probabilities, axis=0))
    squares = [np.log(np.exp(row).sum()) ** 2 for row in logits]
    return mlp.balance_loss * balanced + mlp.router_z_loss * np.mean(squares)
