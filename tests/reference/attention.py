"""Softmax attention and its gradients from the formula, one query at a time, in NumPy float64."""

import numpy as np


def attention(q, k, v, dy, *, start, keys_start=0, scale, window=0, softcap=0.0, bias=None, sinks=None, documents=None):
    """Returns y and {input: gradient of sum(y dy)}; [batch, time, heads, width], bias [heads, distances].

    With `documents`, [batch, keys], a query sees the keys of its own number; queries and keys then stand together.
    """
    given = dict(q=q, k=k, v=v, bias=bias, sinks=sinks)
    grad = {name: np.zeros_like(x) for name, x in given.items() if x is not None}
    (batch, time, heads, _), repeat = q.shape, q.shape[2] // k.shape[2]
    y = np.zeros((batch, time, heads, v.shape[-1]))
    key = keys_start + np.arange(k.shape[1])
    for b, t, h in np.ndindex(batch, time, heads):
        query = start + t
        same = True if documents is None else documents[b] == documents[b, query - keys_start]
        seen = np.flatnonzero((key >= 0) & (key <= query) & ((window == 0) | (key > query - window)) & same)
        if not len(seen):
            continue
        at, distance = (b, seen, h // repeat), query - key[seen]
        s, slope = k[at] @ q[b, t, h] * scale, 1
        if softcap:
            s, slope = softcap * np.tanh(s / softcap), 1 / np.cosh(s / softcap) ** 2
        if bias is not None:
            s = s + bias[h, distance]
        largest = max(s.max(), sinks[h]) if sinks is not None else s.max()  # exp of large scores overflows
        sink = np.exp(sinks[h] - largest) if sinks is not None else 0
        w = np.exp(s - largest)
        w = w / (w.sum() + sink)
        y[b, t, h] = w @ v[at]
        dw = v[at] @ dy[b, t, h]
        ds = w * (dw - w @ dw)
        if bias is not None:
            grad["bias"][h, distance] += ds
        if sinks is not None:
            grad["sinks"][h] -= (1 - w.sum()) * (w @ dw)
        ds = ds * slope * scale
        grad["q"][b, t, h] = ds @ k[at]
        grad["k"][at] += np.outer(ds, q[b, t, h])
        grad["v"][at] += np.outer(w, dy[b, t, h])
    return y, grad
