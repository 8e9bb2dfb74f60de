"""The papers' formulas in NumPy float64 and plain loops: what tests of either twin compare with."""

import math

import numpy as np


def attention(q, k, v, *, start, scale, window, softcap):
    """Softmax attention one query at a time; [batch, time, heads, head_dim], keys and values with their own heads."""
    batch, time, heads, _ = q.shape
    repeat = heads // k.shape[2]
    y = np.zeros_like(q)
    for b in range(batch):
        for t in range(time):
            last = start + t
            first = max(0, last - window + 1) if window else 0
            for h in range(heads):
                scores = k[b, first : last + 1, h // repeat] @ q[b, t, h] * scale
                if softcap:
                    scores = softcap * np.tanh(scores / softcap)
                weights = np.exp(scores - scores.max())
                y[b, t, h] = weights / weights.sum() @ v[b, first : last + 1, h // repeat]
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


def gelu(x, kind):
    if kind == "erf":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def layernorm(x, weight, bias, eps):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def rmsnorm(x, weight, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def adamw(p, grads, rates, betas, eps, decay):
    """Loshchilov and Hutter's algorithm 2 with decay scaled by the learning rate; returns p after every gradient."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        unbiased_m, unbiased_v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
        p = p - lr * (unbiased_m / (np.sqrt(unbiased_v) + eps) + decay * p)
    return p


def token_losses(logits, targets):
    """-log softmax(logits)[target], 0 where the target is below 0."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.array([-log_p[i, t] if t >= 0 else 0.0 for i, t in enumerate(targets)])
