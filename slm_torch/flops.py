"""Counts the floating-point operations of one update on the traced model, without numbers and without a device."""

import numpy as np
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_torch.memory import without_values
from slm_torch.trainer import Engine

_PLAIN = {
    "model.attention.kernel": "dot_product", "memory.remat": "none", "memory.loss_chunk": 0, "memory.limit_gb": 0.0,
    "precision.compute": "float32", "run.device": "cpu",
}  # fmt: skip
"""Changes how a model is computed, not what it is. PyTorch's counter does not see a CPU's fused kernel."""


def update_flops(config: Config, vocab_size: int) -> float:
    """Counts the operations of one update: matrix products of the forward pass, the backward pass and the optimizer.

    A multiplication and an addition are 2 operations. Element-wise work is not counted. The count is the model's, not
    that of a kernel or a memory setting: scores are counted for all pairs of positions, even if a causal mask or a
    window hides them, and nothing is counted twice because it is recomputed.

    Raises:
      UserError: the machine lacks something that the config asks for.
    """
    config = with_values(config, _PLAIN | {"train.micro_batch_size": config.train.batch_size})
    tokens = np.zeros((config.train.batch_size, config.data.seq_len + 1), np.uint16)
    with FakeTensorMode(allow_non_fake_inputs=True), without_values(gpu=False):
        engine = Engine(config, vocab_size)
        with FlopCounterMode(display=False) as counter:
            engine.train_step(tokens, lr=1e-3, step=0)
    return float(counter.get_total_flops())
