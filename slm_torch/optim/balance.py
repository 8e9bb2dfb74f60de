"""A mixture's routing bias, which no loss trains (Wang et al. 2024, https://arxiv.org/abs/2408.15664).

b <- b - step sign(load): an expert busier than the mean is chosen less. The gradient of such a parameter is that load
minus its mean, over the whole batch.
"""

from collections.abc import Mapping

from torch import nn


def balance(params: Mapping[str, nn.Parameter], steps: Mapping[str, float]) -> None:
    """Moves parameters of role "balance" one step against the sign of their gradient."""
    for name, p in params.items():
        p.sub_(p.grad.sign(), alpha=steps[name])
