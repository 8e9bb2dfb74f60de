"""The optimizers of the papers in NumPy float64, one parameter at a time.

Each takes (optim, group, p, gradients, learning rates) and returns the parameter to evaluate after the last update.
"""

import numpy as np


def adamw(optim, group, p, grads, rates):
    """Loshchilov and Hutter's algorithm 2, its decay scaled by the learning rate."""
    (b1, b2), m, v = optim.betas, 0.0, 0.0
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        unbiased_m, unbiased_v = m / (1 - b1**t), v / (1 - b2**t)
        p = p - lr * group.lr_multiplier * unbiased_m / (np.sqrt(unbiased_v) + optim.eps) - lr * group.decay * p
    return p


def adamw8bit(optim, group, p, grads, rates):
    """AdamW whose moments are rounded between updates, each block of each to the entry of a table that is nearest."""
    tables = []
    for signed in (True, False):
        entries = [0.0, 1.0]
        for i in range(7):
            n = 2**i if signed else 2 ** (i + 1)
            middles = [10.0 ** (i - 6) * (0.1 + 0.9 * (k + 0.5) / n) for k in range(n)]
            entries += middles + ([-x for x in middles] if signed else [])
        tables.append(np.sort(entries).astype(np.float32).astype(float))

    def rounded(x, table):
        flat, blocks = x.reshape(-1), []
        for first in range(0, flat.size, optim.quantised_block):
            block = flat[first : first + optim.quantised_block]
            scale = np.abs(block).max() or 1.0
            blocks.append(scale * table[np.abs(block[:, None] / scale - table).argmin(1)])
        return np.concatenate(blocks).reshape(x.shape)

    (b1, b2), m, v, quantised = optim.betas, 0.0, 0.0, p.size >= optim.quantised_from
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        unbiased_m, unbiased_v = m / (1 - b1**t), v / (1 - b2**t)
        p = p - lr * group.lr_multiplier * unbiased_m / (np.sqrt(unbiased_v) + optim.eps) - lr * group.decay * p
        m, v = (rounded(m, tables[0]), rounded(v, tables[1])) if quantised else (m, v)
    return p


def sgd(optim, group, p, grads, rates):
    """The momentum is a sum over all gradients so far, each decayed by its age."""
    for t, lr in enumerate(rates):
        m = sum(optim.momentum ** (t - i) * grads[i] for i in range(t + 1))
        step = grads[t] + optim.momentum * m if optim.nesterov else m
        p = p - lr * (group.lr_multiplier * step + group.decay * p)
    return p


def lion(optim, group, p, grads, rates):
    """Chen et al.'s algorithm 2."""
    (b1, b2), m = optim.betas, np.zeros_like(p)
    for g, lr in zip(grads, rates, strict=True):
        p = p - lr * (group.lr_multiplier * np.sign(b1 * m + (1 - b1) * g) + group.decay * p)
        m = b2 * m + (1 - b2) * g
    return p


def muon(optim, group, p, grads, rates):
    """Jordan's update by the singular values: the iteration is an odd polynomial of each."""
    if group.role != "matrix" or p.ndim < 2:
        return adamw(optim, group, p, grads, rates)
    if p.ndim == 3:
        return np.stack([muon(optim, group, p[i], [g[i] for g in grads], rates) for i in range(len(p))])
    mu, (d_in, d_out), m = optim.momentum, p.shape, np.zeros_like(p)
    scales = {"rms": 0.2 * np.sqrt(max(d_in, d_out)), "spectral": np.sqrt(max(1, d_out / d_in))}
    for g, lr in zip(grads, rates, strict=True):
        m = mu * m + (1 - mu) * g
        u, s, vh = np.linalg.svd(mu * m + (1 - mu) * g if optim.nesterov else m, full_matrices=False)
        s = s / (np.sqrt(np.sum(s**2)) + 1e-7)
        for _ in range(optim.newton_schulz_steps):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        step = group.lr_multiplier * scales[optim.muon_scale] * (u * s) @ vh
        p = p - lr * (step + group.decay * p)
    return p


def adafactor(optim, group, p, grads, rates):
    """Shazeer and Stern's algorithm 4 (matrices, by sums) or 5 (vectors); the rate is given, not relative to t."""
    row, col, second, vector = 0.0, 0.0, 0.0, p.ndim < 2
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        b2, square = 1 - t**-optim.decay_power, g**2 + 1e-30
        second = b2 * second + (1 - b2) * square
        row, col = b2 * row + (1 - b2) * square.sum(-1), (
            col if vector else b2 * col + (1 - b2) * square.sum(-2)
        )  # fmt: skip
        v = second if vector else np.einsum("...i,...j->...ij", row, col) / row.sum(-1)[..., None, None]
        u = g / np.sqrt(v)
        u = u / max(1, np.sqrt(np.mean(u**2)) / optim.clip_rms)
        size = max(optim.min_rms, np.sqrt(np.mean(p**2)))
        p = p - lr * (group.lr_multiplier * size * u + group.decay * p)
    return p


def schedule_free(optim, group, p, grads, rates):
    """Defazio et al.'s algorithm 1 with its three sequences written out; returns x."""
    (b1, b2), v, x, z = optim.betas, 0.0, p, p
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True), start=1):
        y = (1 - b1) * z + b1 * x
        v = b2 * v + (1 - b2) * g**2
        adam = g / (np.sqrt(v / (1 - b2**t)) + optim.eps)
        z = z - lr * (group.lr_multiplier * adam + group.decay * y)
        c = lr**2 / sum(earlier**2 for earlier in rates[:t])
        x = (1 - c) * x + c * z
    return x
