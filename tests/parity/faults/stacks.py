"""Repeated layers, which only the Flax twin runs in a loop: faults in that loop."""

from functools import partial

from faults.fault import Fault, edited

LOOP = "slm_flax.remat:_loop"
FlaxFault = partial(Fault, pair="stacks", module="model", twin="flax")

FAULTS = {
    "layers counted from their group's first": FlaxFault(
        edited(LOOP, "stack.period * repeat", "stack.period * number"), "dropout site", check="update",
    ),
    "the first layer's constants for all": FlaxFault(
        edited("slm_flax.stack:_parts", "at(jnp.stack(values), repeat)", "values[0]"), "differential", check="logits",
    ),
    "the first group's parameters for all": FlaxFault(
        edited(LOOP, "dynamic_slice_in_dim(x, first, count)", "dynamic_slice_in_dim(x, 0, count)"),
        "remat=full", check="logits",
    ),
    "the last group, which is smaller, dropped": FlaxFault(
        edited(LOOP, "jax.checkpoint(partial(group, count=rest))(stream, size * groups) if rest else stream",
               "jax.checkpoint(partial(group, count=rest))(stream, size * groups) if False else stream"),
        "remat=full", check="logits",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
