"""Measures the attention kernels of both twins: time or memory of one call, forward and backward, by context."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from scripts.benchmarks import _calls
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

if TYPE_CHECKING:
    from slm_core.studies.attention import Case

DESCRIPTION = """Measures one causal attention call, forward and backward, in float32 on the CPU, for each kernel of
both twins and each context; each case in its own process. Prints median milliseconds of alternating turns or, with
--memory, the peak of memory above that of the process before; in brackets how many times less than dot_product."""

FLAGS = [
    Flag("contexts", str, "", "tokens, with commas; empty: 256,512,1024,2048,4096, or 1024 to 16384 with --memory"),
    Flag("kernels", str, "dot_product,flash,fused", "model.attention.kernel, with commas"),
    Flag("twins", str, "PyTorch,Flax", "with commas"),
    Flag("memory", bool, False, "measure memory instead of time"),
    Flag("batch", int, 1, "sequences"),
    Flag("heads", int, 6, "query heads"),
    Flag("kv-heads", int, 0, "key/value heads; 0: as many as query heads"),
    Flag("head-dim", int, 64, "width of a head"),
    Flag("window", int, 0, "sliding window, tokens; 0: all"),
    Flag("softcap", float, 0.0, "soft-cap of scores; 0: off"),
    Flag("rounds", int, 7, "turns of each case"),
    Flag("json", str, "", "file for all numbers, as JSON"),
]
TIME_CONTEXTS = "256,512,1024,2048,4096"


def torch_call(case: "Case", keep_freed: bool = True) -> Callable[[], object]:
    import torch

    from slm_torch.device import keep_freed_memory
    from slm_torch.layers import KERNEL

    if keep_freed:  # as in training
        keep_freed_memory()
    kernel = KERNEL[case.kernel]
    options = dict(start=0, scale=case.head_dim**-0.5, window=case.window, softcap=case.softcap)

    def prepared(context: int) -> Callable[[], object]:
        shapes = [(case.batch, context, heads, case.head_dim) for heads in (case.heads, case.kv_heads, case.kv_heads)]
        inputs = [torch.randn(shape).requires_grad_() for shape in shapes]
        dy = torch.randn(shapes[0])
        return lambda: torch.autograd.grad(kernel(*inputs, **options), inputs, dy)

    prepared(16)()  # starts threads and libraries
    return prepared(case.context)


def flax_call(case: "Case") -> Callable[[], object]:
    import jax

    from slm_flax.layers import KERNEL

    jax.config.update("jax_default_matmul_precision", "highest")
    options = dict(start=0, scale=case.head_dim**-0.5, window=case.window, softcap=case.softcap)
    kernel = functools.partial(KERNEL[case.kernel], **options)

    def forward_backward(q, k, v, dy):
        y, backward = jax.vjp(kernel, q, k, v)
        return y, backward(dy)

    heads = (case.heads, case.kv_heads, case.kv_heads, case.heads)
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(case.batch, case.context, h, case.head_dim) for h in heads]
    inputs = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    compiled = jax.jit(forward_backward).lower(*inputs).compile()
    return lambda: jax.block_until_ready(compiled(*inputs))


TWINS: dict[str, Callable[["Case"], Callable[[], object]]] = {"PyTorch": torch_call, "Flax": flax_call}


def cases(flags: dict) -> list:
    from slm_core.config.fields import field_table
    from slm_core.studies.attention import Case

    kernels = _calls.words(flags, "kernels", tuple(field_table()["model.attention.kernel"].option.choices))
    twins, contexts = _calls.words(flags, "twins", tuple(TWINS)), _calls.contexts(flags, TIME_CONTEXTS)
    lows = dict(batch=1, heads=1, kv_heads=0, head_dim=1, window=0, softcap=0, rounds=1)
    _calls.check_at_least(flags, lows)
    kv_heads = flags["kv_heads"] or flags["heads"]
    if flags["heads"] % kv_heads:
        raise UserError(f"--kv-heads={kv_heads} must divide --heads={flags['heads']}")
    shape = {name: flags[name] for name in ("batch", "heads", "head_dim", "window", "softcap")}
    return [
        Case(twin=twin, kernel=kernel, context=context, kv_heads=kv_heads, **shape)
        for context in contexts
        for twin in twins
        for kernel in kernels
    ]


def shown(results: list, of_memory: bool) -> str:
    from slm_core.studies.attention import table

    return table(results, "MB" if of_memory else "ms")


def run(invocation: Invocation) -> None:
    _calls.run(invocation.flags, cases(invocation.flags), TWINS, shown)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
