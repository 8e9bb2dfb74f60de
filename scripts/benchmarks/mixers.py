"""Measures the recurrences of linear mixers beside flash attention, in both twins: time or memory of one call."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from scripts.benchmarks import _calls
from scripts.benchmarks._rounds import spread
from slm_core.cli.command_line import Flag, Invocation, main

if TYPE_CHECKING:
    from slm_core.studies.attention import Case, Result

DESCRIPTION = """Measures one causal call, forward and backward, in float32 on the CPU, of flash attention and of each
mixer's recurrence, in both twins; each in its own process. They take turns. Prints each one's time as a share of flash
attention's: the median and the range of the rounds. With --memory: the peak of memory above that of the process
before."""

MIXERS = {
    "linear": ("", ""),
    "retnet": ("head", ""),
    "gla": ("channel", ""),
    "delta": ("", "shared"),
    "gated_delta": ("head", "shared"),
    "kimi_delta": ("channel", "shared"),
    "rwkv7": ("channel", "own"),
    "min_gru": ("scan", ""),
}
"""{mixer: (what decays, what is erased)}. RetNet's recurrence is Mamba-2's, too."""

FLAGS = [
    Flag("contexts", str, "", "tokens, with commas; empty: 4096, or 1024 to 16384 with --memory"),
    Flag("mixers", str, ",".join(MIXERS), "with commas"),
    Flag("twins", str, "PyTorch,Flax", "with commas"),
    Flag("memory", bool, False, "measure memory instead of time"),
    Flag("batch", int, 1, "sequences"),
    Flag("heads", int, 8, "heads"),
    Flag("head-dim", int, 64, "width of a head"),
    Flag("rounds", int, 7, "turns of each"),
    Flag("json", str, "", "file for all numbers, as JSON"),
]
TIME_CONTEXTS = "4096"


def inputs(case: "Case") -> dict:
    """Makes the inputs of a mixer's recurrence, or of flash attention."""
    import numpy as np

    rng = np.random.default_rng(0)

    def normal(width: int):
        return rng.standard_normal((case.batch, case.context, case.heads, width)).astype(np.float32)

    decay, erase = MIXERS.get(case.kernel, ("", ""))
    if decay == "scan":
        shape = (case.batch, case.context, case.heads * case.head_dim)
        return {"a": rng.random(shape, np.float32), "b": rng.standard_normal(shape, np.float32)}
    made = {name: normal(case.head_dim) for name in "qkv"}
    if decay:
        made["log_decay"] = -0.1 * np.abs(normal(1 if decay == "head" else case.head_dim))
    if erase:
        made["erase"] = made["k"] / np.linalg.norm(made["k"], axis=-1, keepdims=True)
        made["k"] = made["erase"] / 2
    if erase == "own":
        made["erase_write"] = made["k"].copy()
    return made


def torch_call(case: "Case", keep_freed: bool = True) -> Callable[[], object]:
    import torch

    from slm_torch.device import keep_freed_memory
    from slm_torch.layers.flash import flash
    from slm_torch.layers.recurrence import recurrence
    from slm_torch.layers.scan import scan

    if keep_freed:  # as in training
        keep_freed_memory()
    function = _function(case, flash, recurrence, scan)

    def prepared(case: "Case") -> Callable[[], object]:
        given = {name: torch.from_numpy(x).requires_grad_() for name, x in inputs(case).items()}
        dy = torch.ones_like(next(iter(given.values())))
        return lambda: torch.autograd.grad(function(given), list(given.values()), dy)

    prepared(dataclasses.replace(case, context=16))()  # starts threads and libraries
    return prepared(case)


def flax_call(case: "Case") -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    from slm_flax.layers.flash import flash
    from slm_flax.layers.recurrence import recurrence
    from slm_flax.layers.scan import scan

    jax.config.update("jax_default_matmul_precision", "highest")
    function = _function(case, flash, recurrence, scan)

    def forward_backward(given, dy):
        y, backward = jax.vjp(function, given)
        return y, backward(dy)

    given = {name: jnp.asarray(x) for name, x in inputs(case).items()}
    dy = jnp.ones_like(next(iter(given.values())))
    compiled = jax.jit(forward_backward).lower(given, dy).compile()
    return lambda: jax.block_until_ready(compiled(given, dy))


def _function(case: "Case", flash: Callable, recurrence: Callable, scan: Callable) -> Callable:
    if case.kernel == "flash":
        return lambda given: flash(**given, start=0, scale=case.head_dim**-0.5)
    mixer = scan if MIXERS[case.kernel][0] == "scan" else recurrence
    return lambda given: mixer(**given)[0]


TWINS: dict[str, Callable[["Case"], Callable[[], object]]] = {"PyTorch": torch_call, "Flax": flax_call}


def cases(flags: dict) -> list:
    from slm_core.studies.attention import Case

    mixers, twins = _calls.words(flags, "mixers", tuple(MIXERS)), _calls.words(flags, "twins", tuple(TWINS))
    contexts = _calls.contexts(flags, TIME_CONTEXTS)
    _calls.check_at_least(flags, dict(batch=1, heads=1, head_dim=1, rounds=1))
    shape = {name: flags[name] for name in ("batch", "heads", "head_dim")}
    return [
        Case(twin=twin, kernel=mixer, context=context, kv_heads=flags["heads"], window=0, softcap=0.0, **shape)
        for context in contexts
        for twin in twins
        for mixer in ("flash", *mixers)
    ]


def ratios(results: list["Result"]) -> str:
    """Writes a table of times as shares of flash attention's time in the same round."""
    from slm_core.studies.tables import markdown_table

    flash = {(r.case.context, r.case.twin): r.values for r in results if r.case.kernel == "flash"}
    rows = []
    for result in results:
        case = result.case
        base = flash[case.context, case.twin]
        shares = [mine / other for mine, other in zip(result.values, base, strict=True)]
        rows.append([f"{case.context:,}", case.twin, case.kernel, spread(shares)])
    return markdown_table(["context", "twin", "mixer", "time, of flash attention's"], rows)


def shown(results: list, of_memory: bool) -> str:
    from slm_core.studies.attention import table

    return table(results, "MB", reference="flash") if of_memory else ratios(results)


def run(invocation: Invocation) -> None:
    _calls.run(invocation.flags, cases(invocation.flags), TWINS, shown)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
