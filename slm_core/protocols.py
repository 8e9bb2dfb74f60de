"""The interfaces between the loop and a twin. A twin has the numerics alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from slm_core.config import Config
    from slm_core.model.weights import Weights

IGNORE = -1
"""Stands where there is no token: it counts neither in the loss nor in the number of targets, and reads as token 0."""


def unscored(tokens: Any) -> Any:
    """Marks tokens that the model reads but that are not targets: n becomes -2 - n. A second call takes the mark off.

    Args:
      tokens: an id, or an array of ids of any library.
    """
    return IGNORE - 1 - tokens


FIRST = 2**30
"""Larger than every token id."""


def first_of_document(tokens: Any) -> Any:
    """Marks tokens with which a document begins inside a sequence: n becomes -2 - n - FIRST.

    The model reads them. They are not targets: the document before says nothing about them.

    Args:
      tokens: an id, or an array of ids of any library.
    """
    return unscored(tokens) - FIRST


def begins_document(tokens: Any) -> Any:
    """Tells which tokens `first_of_document` marked."""
    return tokens <= first_of_document(0)


def count_targets(tokens: np.ndarray) -> int:
    """Counts the targets of a batch, int32 [rows, length + 1]: the tokens that are neither IGNORE nor marked."""
    return int((tokens[:, 1:] >= 0).sum())


def targets_of_update(tokens: np.ndarray) -> int:
    """Counts the targets that an update's loss is the mean of: those of `count_targets`, or 1 if there are none."""
    return max(count_targets(tokens), 1)


class Evaluation(NamedTuple):
    """The sums of an evaluation over its targets."""

    nats: float  # -log p(target)
    tokens: int  # number of targets
    correct: int  # targets that have the largest logit; of equal logits, that of the lowest id


class Decoder(Protocol):
    """Decodes one sequence with a KV cache."""

    context: int  # tokens that fit the cache: prompt and continuation together

    def prefill(self, tokens: list[int]) -> np.ndarray:
        """Forgets everything, reads 1 to `context` tokens, and returns the logits of the next one, float [vocab]."""

    def step(self, token: int) -> np.ndarray:
        """Appends one token, and returns the logits of the next one, float [vocab]."""


class Evaluator(Protocol):
    """A model with given weights on a device, without an optimizer. Made by a twin's `Evaluator(config, vocab_size,
    weights)`."""

    framework: str  # "torch" or "flax"
    config: "Config"  # with what was open in it resolved on the device
    choices: dict[str, str]  # {field: value and why} of each of those

    def facts(self) -> dict[str, str]:
        """Returns {name: fact} for the start of a run: parameters, device, each choice, memory."""

    def eval_step(self, tokens: np.ndarray) -> Evaluation:
        """Computes the losses of a batch, and the number of targets that the model predicts, without dropout.

        Args:
          tokens: int32 [rows, length + 1]; column t + 1 is the target of column t. A target counts unless it is
            `IGNORE`, `unscored` or `first_of_document`.
        """

    def decoder(self) -> Decoder:
        """Makes a decoder with the current parameters and room for `data.seq_len` tokens."""

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory of the device so far (of the process, on a CPU), in bytes."""


class Scorer(Evaluator, Protocol):
    """An evaluator that also tells the probability of each token. Both twins' evaluators are; an engine is not."""

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes what the model thinks of each target, without dropout.

        Args:
          tokens: int32 [rows, length + 1], as for `eval_step`; length is at most `data.seq_len`.

        Returns:
          log p(target) in nats, [rows, length], and whether the target is the likeliest token, bool [rows, length].
          A target that is IGNORE has 0 and False.
        """


LOGITS = "logits"
"""The path of the product that makes the logits: it is a module only if the embeddings are not tied."""


class Inspection(NamedTuple):
    """What a forward pass of a batch has inside, float32 or wider.

    Args:
      weights: {path of a softmax attention, such as "layers.3.attention.attend": what each query gives to each key,
        [rows, heads, time, time]}. A row sums to 1, or with a sink to less. A layer without softmax attention has none.
      streams: {"layers.3": the residual stream after the layer, [rows, time, d_model]}.
    """

    weights: dict[str, np.ndarray]
    streams: dict[str, np.ndarray]


class Module(NamedTuple):
    """A module of a model, and what it costs in the forward pass of a batch.

    Args:
      path: "layers.3.attention.q_proj"; "" is the model, and `LOGITS` the product with the head.
      kind: its class; "" of `LOGITS` if the embeddings are tied.
      parameters: {name: shape} of its own parameters, without those of modules inside it.
      flops: operations of its matrix products, those of modules inside it included. A multiplication and an addition
        are 2. Scores are counted for all pairs of positions.
      output: shape of what it returns; of several values the first.
      output_bytes: the memory of that.
    """

    path: str
    kind: str
    parameters: dict[str, tuple[int, ...]]
    flops: int
    output: tuple[int, ...]
    output_bytes: int


class Inspector(Scorer, Protocol):
    """A scorer that also shows what is inside its model. Both twins' evaluators are."""

    def load(self, weights: "Weights") -> None:
        """Replaces the weights by others of the same names and shapes. Raises UserError if they do not fit."""

    def inspect(self, tokens: np.ndarray) -> Inspection:
        """Computes the attention weights and the streams of a batch, without dropout.

        Args:
          tokens: int32 [rows, time]; time is at most `data.seq_len`.
        """

    def lens(self, stream: np.ndarray) -> np.ndarray:
        """Computes the logit lens: log p of each next token, if the model ended where `stream` was taken.

        The stream goes through the final norm and the head (nostalgebraist 2020, "interpreting GPT: the logit lens").
        So the stream of the last layer gives what the model predicts.

        Args:
          stream: one of `Inspection.streams`, [rows, time, d_model].

        Returns:
          [rows, time, vocab], float32 or wider.
        """

    def modules(self, length: int) -> list[Module]:
        """Lists the modules that a forward pass of one sequence of `length` tokens calls, in the order of their calls.

        The products are the model's, not those of a kernel. The Flax twin's mixture of experts also counts the rows
        that fill up its blocks.
        """


class Engine(Evaluator, Protocol):
    """One twin, built: model, optimizer and loss scaler on a device. Made by a twin's `build(config,
    vocab_size, weights)`."""

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> Any:
        """Does one update and returns its metrics still on the device, without waiting for them.

        Args:
          tokens: int32 [batch_size, seq_len + 1], as for `eval_step`.
          lr: the learning rate of this update.
          step: updates completed before this one. Dropout depends on it.
        """

    def details(self, tokens: np.ndarray, step: int) -> dict[str, float]:
        """Measures what the update of these tokens starts from, at the price of a forward and a backward pass.

        It changes nothing, and waits for the device. Call it before `train_step`, with the same arguments.

        Args:
          tokens: the batch of the update, as for `train_step`.
          step: updates completed before this one. Dropout depends on it.

        Returns:
          {"weight_norm/NAME": L2 norm of a trained parameter, "gradient_norm/NAME": that of its gradient before
          clipping and without the loss scale, "activation_rms/PATH": root mean square of what a module returns, over
          the whole batch}. NAME is canonical. PATH is "layers.3.attention" and "layers.3.mlp", before dropout and
          before a norm of the output, and "layers.3": the residual stream after the layer.
        """

    def fetch(self, metrics: Any) -> dict[str, float]:
        """Waits for the metrics of a `train_step`: loss, grad_norm, loss_scale, skipped (1.0 if it was not applied)."""

    def non_finite_parameter(self) -> str:
        """Returns the name of the first trained parameter with a value that is not finite; "" if there is none."""

    def save(self, folder: Path) -> None:
        """Writes parameters, optimizer and scaler state into an empty folder, in the form of `slm_core.runs.states`."""

    def restore(self, folder: Path) -> None:
        """Reads what `save` of either twin wrote. Raises UserError if the folder does not fit the model."""

    def export_state(self, into: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Copies everything to the host, by canonical name: "params/NAME", "optim/m/NAME", "optim/v/NAME",
        "optim/count", "scaler/scale", "scaler/good_steps". Equal in names and shapes across the twins. Later updates
        leave the copy as it is.

        Args:
          into: an earlier copy that nobody needs any more. Its memory may be written over: memory that is new costs
            more than the copy itself.
        """

    def import_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes the state that `export_state` of either twin returned."""
