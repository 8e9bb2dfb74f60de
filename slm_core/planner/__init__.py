"""The planner: how much memory a run will take at its peak, said before anything is allocated.

`predict` counts the bytes that are alive at the worst moment of an update, part by part, from the config alone. Each
twin has its own arithmetic (`torch_step`, `flax_step`), because PyTorch keeps what its operations saved and XLA what
its compiler planned. `search` asks it which settings fit.
"""

import dataclasses
from dataclasses import dataclass

from slm_core.config import Config

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "workspace")


@dataclass(frozen=True)
class Prediction:
    """Bytes at the peak of an update.

    Args:
      weights: parameters, as they are stored.
      gradients: of the parameters that are trained.
      optimizer: its state.
      activations: what the forward pass keeps for the backward pass, the layers together.
      logits: of the loss: logits and what is made of them.
      workspace: what one operation or one layer needs while it works.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


def predict(config: Config, vocab_size: int, framework: str) -> Prediction:
    """Returns the memory of one update of a twin at its peak.

    Args:
      config: its memory.remat "auto" counts as "none", memory.loss_chunk unset as 0, train.micro_batch_size 0 as the
        whole batch, precision.compute "auto" as the dtype of the parameters; run.device "cpu" is a CPU, all else a GPU.
      vocab_size: rows of the embedding.
      framework: "torch" or "flax".
    """
    from slm_core.planner import flax_step, torch_step
    from slm_core.planner.stand_ins import counted

    config, _ = counted(config)
    return {"torch": torch_step, "flax": flax_step}[framework].predict(config, vocab_size)


def guesses(config: Config) -> str:
    """Returns what `predict` counts as something else, because it has no arithmetic for it: " (... counted as ...)"."""
    from slm_core.planner.stand_ins import counted

    found = ", ".join(f"{field} counted as {stand_in}" for field, stand_in in counted(config)[1].items())
    return found and f" ({found})"
