"""The formulas of the papers in NumPy float64 and plain loops."""

import math

import numpy as np


def attention(q, k, v, *, start, keys_start=0, scale, window=0, softcap=0.0, bias=None, sinks=None):
    """Softmax attention one query at a time; [batch, time, heads, head_dim], keys and values with their own heads."""
    batch, time, heads, _ = q.shape
    repeat = heads // k.shape[2]
    y = np.zeros((batch, time, heads, v.shape[-1]))
    for b in range(batch):
        for t in range(time):
            last = start + t
            first = max(0, keys_start, last - window + 1 if window else 0)
            seen = np.arange(first, last + 1)
            for h in range(heads):
                keys, values = k[b, seen - keys_start, h // repeat], v[b, seen - keys_start, h // repeat]
                scores = keys @ q[b, t, h] * scale
                if softcap:
                    scores = softcap * np.tanh(scores / softcap)
                if bias is not None:
                    scores = scores + bias[h, last - seen]
                weights = np.exp(scores)
                y[b, t, h] = weights @ values / (weights.sum() + (0 if sinks is None else np.exp(sinks[h])))
    return y


def rope(x, start, *, theta, fraction, factor):
    """Rotation by complex numbers, feature i with feature i + rotary / 2; x is [batch, time, heads, head_dim]."""
    rotary = round(fraction * x.shape[-1])
    half = rotary // 2
    position = (start + np.arange(x.shape[1])) / factor
    turn = np.exp(1j * position[:, None] * theta ** (-2 * np.arange(half) / rotary))[:, None]
    z = (x[..., :half] + 1j * x[..., half:rotary]) * turn
    return np.concatenate([z.real, z.imag, x[..., rotary:]], axis=-1)


def sinusoidal(context, width, theta):
    """The table of Vaswani et al., one number at a time."""
    table = np.zeros((context, width))
    for t in range(context):
        for i in range(0, width, 2):
            table[t, i : i + 2] = math.sin(t / theta ** (i / width)), math.cos(t / theta ** (i / width))
    return table


def latent_attention(x, w, *, heads, angles, eps):
    """Multi-head latent attention over [batch, time, d_model]; `w` by canonical name, `angles` [time, rope_dim / 2]."""

    def turn(y):
        half = y.shape[-1] // 2
        z = (y[..., :half] + 1j * y[..., half:]) * np.exp(1j * angles)[:, None]
        return np.concatenate([z.real, z.imag], axis=-1)

    def split(y):
        return y.reshape(*y.shape[:-1], heads, -1)

    rope_dim = 2 * angles.shape[1]
    latent = rmsnorm(x @ w["kv_down_proj.weight"], w["kv_latent_norm.weight"], eps)
    q = split(rmsnorm(x @ w["q_down_proj.weight"], w["q_latent_norm.weight"], eps) @ w["q_up_proj.weight"])
    q = np.concatenate([q[..., :-rope_dim], turn(q[..., -rope_dim:])], axis=-1)
    k = split(latent @ w["k_up_proj.weight"])
    shared = turn((x @ w["k_rope_proj.weight"])[:, :, None])
    k = np.concatenate([k, np.repeat(shared, heads, axis=2)], axis=-1)
    y = attention(q, k, split(latent @ w["v_up_proj.weight"]), start=0, scale=q.shape[-1] ** -0.5)
    return y.reshape(*x.shape[:2], -1) @ w["o_proj.weight"]


def differential_attention(x, w, *, heads, kv_heads, layer, eps):
    """Differential attention without positions over [batch, time, d_model], one pair of maps at a time."""
    init = 0.8 - 0.6 * math.exp(-0.3 * layer)
    first, second = (math.exp(w[f"lambda_q{i}"] @ w[f"lambda_k{i}"]) for i in (1, 2))
    q = (x @ w["q_proj.weight"]).reshape(*x.shape[:2], 2, heads, -1)
    k = (x @ w["k_proj.weight"]).reshape(*x.shape[:2], 2, kv_heads, -1)
    v = (x @ w["v_proj.weight"]).reshape(*x.shape[:2], kv_heads, -1)
    maps = [attention(q[:, :, i], k[:, :, i], v, start=0, scale=q.shape[-1] ** -0.5) for i in (0, 1)]
    y = rmsnorm(maps[0] - (first - second + init) * maps[1], w["head_norm.weight"], eps) * (1 - init)
    return y.reshape(*x.shape[:2], -1) @ w["o_proj.weight"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x, kind):
    if kind == "erf":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def clipped_swiglu(gate, up):
    g, u = np.minimum(gate, 7), np.clip(up, -7, 7)
    return g * sigmoid(1.702 * g) * (1 + u)


def layernorm(x, weight, bias, eps):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def rmsnorm(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def dyt(x, alpha, weight, bias):
    return np.tanh(alpha * x) * weight + bias


def token_losses(logits, targets):
    """-log softmax(logits)[target], 0 if the target is below 0."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.array([-log_p[i, t] if t >= 0 else 0.0 for i, t in enumerate(targets)])
