"""What XLA plans for one update of the Flax twin, in bytes.

XLA decides before it runs which arrays live when. Weights and optimizer state are there all the time; the rest depends
on the moment: the loss, with all that the layers keep (`flax_layers`), or the backward pass of a layer. The counts are
of XLA's own plans for a CPU (the buffer assignment of jax 0.10, which `slm_flax.memory` sums up). A GPU's compiler
fuses more, and so keeps no more; in float16 it keeps half, where a CPU computes in float32.
"""

from dataclasses import replace

from slm_core.budget import Prediction
from slm_core.budget.flax_layers import Kept, kept
from slm_core.budget.optimizer_state import optimizer_state
from slm_core.budget.parameters import parameters
from slm_core.config import Config, Finetune
from slm_core.pattern import group_size, layer_models

SLICE = 2**20
"""Of `slm_flax.optim.adamw8bit`."""
MANY = 4096
"""Tokens of a micro-batch from which XLA's CPU backend takes sums apart."""
BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


def predict(config: Config, vocab_size: int) -> Prediction:
    """See `slm_core.budget.predict`."""
    step = Step(config, vocab_size)
    return max((step.at_loss(), step.at_layer(), step.at_update()), key=lambda moment: moment.total)


class Step:
    """The sizes that the moments of an update are made of, in bytes."""

    def __init__(self, config: Config, vocab_size: int):
        model, train = config.model, config.train
        self.config, self.vocab = config, vocab_size
        self.cpu = config.run.device == "cpu"
        stored = BYTES[config.precision.params]
        compute = BYTES[config.precision.params if config.precision.compute == "auto" else config.precision.compute]
        self.wide = max(4, compute)
        self.compute = self.wide if self.cpu else compute  # XLA's CPU backend computes float16 in float32
        micro = min(train.micro_batch_size or train.batch_size, train.batch_size)
        self.accumulates = micro < train.batch_size
        self.tokens = micro * config.data.seq_len
        self.loops = config.memory.remat not in ("none", "auto") and model.n_layers > 1
        # XLA takes a sum apart from what it sums outside of loops, and of many rows: measured are 2048 and 4096.
        self.apart = not (self.accumulates or self.loops) or self.tokens >= MANY
        shapes = parameters(config, vocab_size)
        self.sizes = {name: p.size * (BYTES[p.dtype] if p.dtype else stored) for name, p in shapes.items()}
        self.trained = {name: p for name, p in shapes.items() if p.role not in ("frozen", "balance")}
        self.weights = sum(self.sizes.values())
        self.gradients = sum(self.sizes[name] for name, p in shapes.items() if p.role != "frozen")
        self.optimizer = sum(size for _, size in optimizer_state(config.optim, self.trained, stored))
        self.layers = [kept(layer, config.data.seq_len, self.cpu, self.apart) for layer in layer_models(model)]
        self.stream = self.tokens * model.d_model * self.compute

    def at_loss(self) -> Prediction:
        """The logits, beside all that the layers keep, the embedding, the final norm's input and its result."""
        return self._moment(self.layers_keep() + 3 * self.stream, self.logits(), self.spare())

    def at_layer(self) -> Prediction:
        """The backward pass of the last layer, beside the head's gradient and what the other layers keep."""
        if self.loops:
            return self._moment(self.layers_keep(), self.head(), self.layer_again())
        scores = max(score_gradients(layer) for layer in self.layers) * self.tokens * self.compute
        return self._moment(self.layers_keep() + 3 * self.stream, self.head(), self.spare() + scores)

    def at_update(self) -> Prediction:
        """The optimizer, which works on one array after the other: of those outside of the loop a copy stays behind.

        With moments in 8 bits that is the parameter, its gradient and its codes, and of a slice what it is decoded to.
        """
        quantised = self.config.optim.kind == "adamw8bit"
        work = 3 * self.spare() + 7 * SLICE * self.wide if quantised else self.spare()
        return replace(self._moment(0, 0, work), gradients=self.gradients)

    def _moment(self, activations: float, logits: float, workspace: float) -> Prediction:
        # A loop over layers adds up the gradients of its stacks.
        gradients = self.gradients if self.accumulates or self.loops else 0
        return Prediction(self.weights, gradients, self.optimizer, round(activations), round(logits), round(workspace))

    def layers_keep(self) -> float:
        """Returns what the forward pass through the layers keeps."""
        remat, value, count = self.config.memory.remat, self.tokens * self.compute, len(self.layers)
        products = sum(layer.products for layer in self.layers) * value
        # The adapters' results are kept by themselves, beside those of the frozen matrices.
        adapted = products if self.config.finetune.kind == "lora" else 0
        if not self.loops:
            return sum(layer.all for layer in self.layers) * value + adapted
        if remat == "full":
            return (-(-count // group_size(count)) + group_size(count)) * self.stream
        return count * self.stream + (products + adapted if remat == "attention" else 0)

    def layer_again(self) -> float:
        """Returns what one layer of a loop needs: what it computes again, its gradient, its weights out of the stack.

        Scores come once more, as their gradients: the arrays that the MLP left are too small for them.
        """
        remat, products = self.config.memory.remat, max(layer.products for layer in self.layers)
        values = max(layer.all + score_gradients(layer) for layer in self.layers)
        values += products * ((self.config.finetune.kind == "lora") - (remat == "attention"))
        grouped = group_size(len(self.layers)) if remat == "full" else 0  # a group adds up its own gradients first
        return values * self.tokens * self.compute + self.stream + (1 + grouped) * self.layer_weights()

    def layer_weights(self) -> int:
        """Returns the matrices of one layer, in full where they are held in few bits."""
        plain = replace(self.config, finetune=Finetune())
        shapes = parameters(plain, self.vocab)
        return sum(p.size for name, p in shapes.items() if name.startswith("layers.0.")) * self.wide

    def head(self) -> int:
        """Returns the gradient of the matrix that makes logits; 0 where it is frozen."""
        name = "embed.weight" if self.config.model.tie_embeddings else "head.weight"
        return self.sizes[name] if name in self.trained else 0

    def logits(self) -> float:
        """Returns what the loss needs: logits, their exponentials and gradients; in chunks, or the head's gradient.

        Where layers are no loop, the zeros that a chunk's gradient starts from stay as well.
        """
        chunk = self.config.memory.loss_chunk or 0
        if not chunk:  # inside of loops two, and a third of some models (of 8192 tokens, by Llama's, not by GPT-2's)
            copies = 2 if self.accumulates or self.loops else 3
            return copies * self.tokens * self.vocab * self.wide
        zeros = not self.loops and chunk < self.tokens
        pieces = (2 + zeros) * min(chunk, self.tokens) * self.vocab * self.wide
        return max(self.head(), pieces) + (0 if self.loops else self.head())

    def spare(self) -> int:
        """Returns one array of each shape of the trained parameters outside of the loop.

        XLA's CPU backend moves each moment to another place before it writes the new one, one after the other.
        """
        outside = {p.shape: self.sizes[name] for name, p in self.trained.items() if not self._looped(name)}
        return sum(outside.values())

    def _looped(self, name: str) -> bool:
        return self.loops and name.startswith("layers.")


def score_gradients(layer: Kept) -> float:
    """Returns the scores of a token once: a third of what the plain kernel keeps."""
    return layer.scores / 3 if layer.whole else 0
