"""Measures what a page shows of a run: its model on a prompt, and its heads at every checkpoint that was kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from slm_core.data.tokenizers import Tokenizer
from slm_core.protocols import Inspector, Module
from slm_core.runs.checkpoints import checkpoint_step
from slm_core.runs.saved import SavedRun
from slm_core.runs.weights import run_weights
from slm_core.runs.whole import whole_checkpoints
from slm_core.studies.inspection.induction import HeadScores, head_scores, repeated_tokens
from slm_core.studies.inspection.lens import LayerLens, layer_lens
from slm_core.studies.inspection.prompt import Prompt, word
from slm_core.training.metrics import read_metrics

Say = Callable[[str], None]
LONGEST = 1024
"""Tokens of the sequence whose cost is counted, at most: the scores of a long context would fill the memory."""


@dataclass(frozen=True)
class Inside:
    """What a page shows of a run.

    Args:
      run: its folder, for the reader.
      step: of the checkpoint that is shown.
      facts: {name: fact} of the model that computes.
      modules: of the forward pass of one sequence.
      length: its tokens.
      weight_bytes: memory of one number of a parameter.
      prompt: what the model read.
      maps: {path of a softmax attention: its weights on the prompt, [heads, time, time]}.
      lens: of each layer, on the prompt.
      words: {token: how it is written} of the tokens that a layer finds likeliest.
      rms: {layer: root mean square of the residual stream after it, on the prompt}.
      heads: {step: {path: the scores of its heads}} of each checkpoint, in order.
      details: the lines of details.jsonl.
    """

    run: str
    step: int
    facts: dict[str, str]
    modules: list[Module]
    length: int
    weight_bytes: int
    prompt: Prompt
    maps: dict[str, np.ndarray]
    lens: list[LayerLens]
    words: dict[int, str]
    rms: dict[str, float]
    heads: dict[int, dict[str, HeadScores]]
    details: list[dict[str, Any]]


def measure(saved: SavedRun, model: Inspector, prompt: Prompt, tokenizer: Tokenizer | None, say: Say) -> Inside:
    """Measures a run.

    Args:
      saved: at the checkpoint to show.
      model: with the weights of that checkpoint.
      prompt: what it reads.
      tokenizer: writes the tokens that it predicts; None: they are shown as numbers.
      say: is told what is being measured.

    Raises:
      UserError: a checkpoint is damaged.
    """
    length = min(saved.config.data.seq_len, LONGEST)
    say(f"reading a prompt of {len(prompt.tokens)} tokens")
    tokens, scored = np.array([prompt.tokens], np.int32), np.array(prompt.scored)
    inspection, facts, modules = model.inspect(tokens), model.facts(), model.modules(length)
    lens = [layer_lens(path, model.lens(x)[0], tokens[0], scored) for path, x in inspection.streams.items()]
    likeliest = sorted({int(token) for each in lens for token in each.likeliest})
    rms = {path: float(np.sqrt(np.square(x, dtype=np.float64).mean())) for path, x in inspection.streams.items()}
    return Inside(
        run=str(saved.folder),
        step=checkpoint_step(saved.checkpoint),
        facts=facts,
        modules=modules,
        length=length,
        weight_bytes=np.dtype(model.config.precision.params).itemsize,
        prompt=prompt,
        maps={path: weights[0] for path, weights in inspection.weights.items()},
        lens=lens,
        words={token: word(tokenizer, token) for token in likeliest},
        rms=rms,
        heads=heads_over_training(saved, model, say),
        details=read_metrics(saved.folder / "details.jsonl"),
    )


def heads_over_training(saved: SavedRun, model: Inspector, say: Say) -> dict[int, dict[str, HeadScores]]:
    """Measures the heads at every checkpoint of a run, oldest first. The model has the weights of the last one then."""
    tokens = repeated_tokens(saved.vocab_size, saved.config.data.seq_len)
    checkpoints = whole_checkpoints(saved.folder / "checkpoints", saved.identity)
    scores = {}
    for number, checkpoint in enumerate(checkpoints, 1):
        say(f"heads at checkpoint {number} of {len(checkpoints)}")
        model.load(run_weights(saved._replace(checkpoint=checkpoint)))
        weights = model.inspect(tokens).weights
        scores[checkpoint_step(checkpoint)] = {path: head_scores(each) for path, each in weights.items()}
    return scores
