"""Recurrences and their gradients from the formula, one position at a time, in NumPy float64."""

import numpy as np


def recurrence(
    q, k, v, dy, dlast, *, log_decay=None, erase=None, erase_write=None, state=None, documents=None, chunk=None
):
    """Returns y, the last state and {input: gradient of sum(y dy) + sum(last dlast)}; [batch, time, heads, width]."""
    given = dict(q=q, k=k, v=v, log_decay=log_decay, erase=erase, erase_write=erase_write, state=state)
    grad = {name: np.zeros_like(x) for name, x in given.items() if x is not None}
    (batch, time, heads, width), y = q.shape, np.zeros_like(v)
    last = np.zeros((batch, heads, width, v.shape[-1]))
    for b, h in np.ndindex(batch, heads):
        sequence = {name: x[b, h] if name == "state" else x[b, :, h] for name, x in given.items() if x is not None}
        resets = np.zeros(time, bool) if documents is None else np.diff(documents[b], prepend=documents[b, :1]) != 0
        y[b, :, h], last[b, h], found = _sequence(sequence, resets, dy[b, :, h], dlast[b, h])
        for name, x in found.items():
            grad[name][(b, h) if name == "state" else (b, slice(None), h)] = x
    return y, last, grad


def _sequence(x, resets, dy, dlast):
    time, width = x["q"].shape
    nothing = np.zeros_like(dlast)
    g = np.broadcast_to(x.get("log_decay", np.zeros((time, 1))), (time, width))
    e = x.get("erase", np.zeros((time, width)))
    b = x.get("erase_write", x["k"])
    state, y, decayed, states = x.get("state", nothing), np.zeros_like(dy), [], []
    for t in range(time):
        decayed.append(nothing if resets[t] else np.exp(g[t])[:, None] * state)
        read = e[t] @ decayed[t]
        state = decayed[t] - np.outer(b[t], read) + np.outer(x["k"][t], x["v"][t])
        states.append(state)
        y[t] = x["q"][t] @ state

    d = {name: np.zeros((time, width)) for name in ("q", "k", "log_decay", "erase", "erase_write")}
    d["v"], dstate = np.zeros_like(dy), dlast
    for t in reversed(range(time)):
        dstate = dstate + np.outer(x["q"][t], dy[t])
        d["q"][t] = states[t] @ dy[t]
        d["k"][t], d["v"][t] = dstate @ x["v"][t], x["k"][t] @ dstate
        d["erase_write"][t], dread = -dstate @ (e[t] @ decayed[t]), -b[t] @ dstate
        d["erase"][t] = decayed[t] @ dread
        ddecayed = dstate + np.outer(e[t], dread)
        d["log_decay"][t] = (ddecayed * decayed[t]).sum(1)
        dstate = nothing if resets[t] else np.exp(g[t])[:, None] * ddecayed
    if "erase_write" not in x:
        d["k"] += d["erase_write"]
    if x.get("log_decay", g).shape != g.shape:
        d["log_decay"] = d["log_decay"].sum(1, keepdims=True)
    return y, state, {name: value for name, value in (d | {"state": dstate}).items() if name in x}


def short_convolution(x, weight, dy, dtail, *, bias=None, tail=None, documents=None):
    """Returns y, the last inputs and {input: gradient of sum(y dy) + sum(last inputs dtail)}; [batch, time, width]."""
    (batch, time, _), before = x.shape, len(weight) - 1
    given = dict(x=x, weight=weight, bias=bias, tail=tail)
    grad = {name: np.zeros_like(value) for name, value in given.items() if value is not None}
    documents = np.zeros((batch, time), int) if documents is None else documents
    y, kept = np.zeros_like(x), np.zeros((batch, before, x.shape[2]))

    def source(b, t):
        """Returns the name, index and document of position t; those before 0 are the tail's."""
        if t >= 0:
            return "x", (b, t), documents[b, t]
        return "tail", (b, before + t), documents[b, 0]

    for b, t in np.ndindex(batch, time):
        for i, w in enumerate(weight):
            name, at, document = source(b, t - before + i)
            if document == documents[b, t] and name in grad:
                y[b, t] += w * given[name][at]
                grad[name][at] += w * dy[b, t]
                grad["weight"][i] += given[name][at] * dy[b, t]
        if bias is not None:
            y[b, t] += bias
            grad["bias"] += dy[b, t]
    for b, i in np.ndindex(batch, before):
        name, at, document = source(b, time - before + i)
        if document == documents[b, -1] and name in grad:
            kept[b, i] = given[name][at]
            grad[name][at] += dtail[b, i]
    return y, kept, grad


def scan(a, b, dy, dlast, *, state=None, documents=None):
    """Returns every h, the last h and {input: gradient of sum(h dy) + sum(last dlast)}; [batch, time, width]."""
    (batch, time, _), first = a.shape, np.zeros_like(dlast) if state is None else state
    documents = np.zeros((batch, time), int) if documents is None else documents
    kept = np.diff(documents, axis=1, prepend=documents[:, :1]) == 0
    h, da, db = np.zeros_like(a), np.zeros_like(a), np.zeros_like(a)
    last, dh = first, dlast
    for t in range(time):
        h[:, t] = last = kept[:, t, None] * a[:, t] * last + b[:, t]
    for t in reversed(range(time)):
        db[:, t] = dh = dh + dy[:, t]
        da[:, t] = kept[:, t, None] * dh * (h[:, t - 1] if t else first)
        dh = kept[:, t, None] * a[:, t] * dh
    return h, last, dict(a=da, b=db) | ({} if state is None else dict(state=dh))
