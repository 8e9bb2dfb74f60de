"""The planner: predicts the memory that a run will take at its peak, before anything is allocated.

`predict` counts the bytes that are alive at the worst moment of an update, part by part, from the config and from the
parameters that a twin declares. Each twin has its own arithmetic: PyTorch keeps what its operations saved
(`torch_step`), XLA what its compiler planned (`flax_step`). Recurrent mixers are measured (`mixers`). `search` asks it
which settings fit, and `resolve` sets the `auto` fields of a config to them.
"""

from dataclasses import replace

from slm_core.config import Config
from slm_core.planner import flax_step, torch_step
from slm_core.planner.declarations import Declare, Twin
from slm_core.planner.fallbacks import with_fallbacks
from slm_core.planner.prediction import PARTS, Prediction
from slm_core.planner.resident import resident_memory

__all__ = ["PARTS", "Prediction", "Twin", "assumptions", "predict"]

_STEPS = {"torch": torch_step.predict, "flax": flax_step.predict}


def predict(config: Config, vocab_size: int, twin: Twin) -> Prediction:
    """Predicts the memory of one update of a twin at its peak, on a CPU while a checkpoint is written beside it.

    Args:
      config: memory.remat "auto" counts as "none", memory.loss_chunk unset as 0, train.micro_batch_size 0 as the whole
        batch, precision.compute "auto" as the dtype of the parameters. run.device "cpu" is a CPU; all else is a GPU.
      vocab_size: rows of the embedding.
    """
    known, fallbacks = with_fallbacks(config)
    prediction = _STEPS[twin.framework](known, vocab_size, twin)
    if fallbacks:
        prediction = _with_own_parameters(prediction, known, config, vocab_size, twin.declare)
    if config.run.device != "cpu" or not saves_beside(config):
        return prediction
    state = resident_memory(config, vocab_size, twin.declare)
    return replace(prediction, snapshot=state.weights + state.optimizer)


def saves_beside(config: Config) -> bool:
    """Tells whether a run saves a checkpoint while updates go on. The last one is saved after them."""
    train = config.train
    every = [train.checkpoint_every] + [train.eval_every] * train.keep_best
    return config.run.async_saving and any(0 < each < train.steps for each in every)


def _with_own_parameters(
    prediction: Prediction, known: Config, config: Config, vocab_size: int, declare: Declare
) -> Prediction:
    """Replaces the parameters of the fallbacks in a prediction by those of the config's own kinds."""
    counted, declared = (resident_memory(each, vocab_size, declare) for each in (known, config))
    return replace(
        prediction,
        weights=prediction.weights + declared.weights - counted.weights,
        optimizer=prediction.optimizer + declared.optimizer - counted.optimizer,
        gradients=max(0, prediction.gradients + declared.gradients - counted.gradients) if prediction.gradients else 0,
    )


def assumptions(config: Config) -> str:
    """Names the kinds that `predict` counts as others, in brackets: " (model.norm.kind=new counted as layernorm)"."""
    _, fallbacks = with_fallbacks(config)
    text = ", ".join(f"{kind} counted as {fallback}" for kind, fallback in fallbacks.items())
    return text and f" ({text})"
