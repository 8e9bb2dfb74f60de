"""Lion, the sign of an interpolated momentum."""

import optax

from slm_core.config import Optim
from slm_flax.optim.base import Groups, Transformation, by_group


def lion(optim: Optim, groups: Groups) -> Transformation:
    """Makes Lion, which steps by the sign of an interpolated momentum, from `optax.scale_by_lion`.

    Paper: Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2.

    u = sign(b1 m + (1 - b1) g);  p <- p (1 - lr decay);  p <- p - lr lr_multiplier u;  m <- b2 m + (1 - b2) g

    State: "m/NAME", of the parameter's shape; "count".
    """
    return optax.chain(optax.scale_by_lion(*optim.betas), by_group(groups))
