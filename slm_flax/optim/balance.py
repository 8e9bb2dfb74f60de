"""A mixture's routing bias, which no loss trains (Wang et al. 2024, https://arxiv.org/abs/2408.15664).

b <- b - step sign(load): an expert busier than the mean is chosen less. The gradient of such a parameter is that load
minus its mean, over the whole batch.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from slm_flax.params import Params


def balance(params: Params, grads: Params, steps: Mapping[str, float]) -> Params:
    """Returns the parameters of role "balance" one step against the sign of their gradient."""
    return {name: params[name] - step * jnp.sign(grads[name]) for name, step in steps.items()}
