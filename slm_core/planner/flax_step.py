"""What XLA plans for one update of the Flax twin, in bytes.

XLA decides before it runs which arrays live when. Weights and optimizer state are there all the time; the rest depends
on the moment: the loss, with all that the layers keep (`flax_layers`), or the backward pass of a layer. The counts are
of XLA's own plans (the buffer assignment of jax 0.10, which `slm_flax.memory` sums up), for a CPU with run.device=cpu,
else for a GPU. In float16 a GPU keeps half; a CPU computes it in float32.
"""

from collections.abc import Sequence
from dataclasses import replace

from slm_core.config import Config, Finetune, Model
from slm_core.config.layers import layer_specs
from slm_core.model.layer_groups import group_size, repetition
from slm_core.planner import Prediction
from slm_core.planner.flax_layers import kept
from slm_core.planner.held import SLICE, held
from slm_core.planner.parameters import parameters

PRODUCTS = 4 * 2**20
"""What cuBLAS works in, on GPUs before compute capability 9.0."""
MANY = 4096
"""Tokens of a micro-batch from which XLA's CPU backend takes sums apart."""


def predict(config: Config, vocab_size: int) -> Prediction:
    """See `slm_core.planner.predict`."""
    step = Step(config, vocab_size)
    return max((step.at_loss(), step.at_layer(), step.at_update()), key=lambda moment: moment.total)


class Step:
    """The sizes that the moments of an update are made of, in bytes."""

    def __init__(self, config: Config, vocab_size: int):
        model, train = config.model, config.train
        self.config, self.vocab = config, vocab_size
        self.cpu = config.run.device == "cpu"
        self.held = held(config, vocab_size)
        self.wide = self.held.wide
        self.compute = self.wide if self.cpu else self.held.compute  # XLA's CPU backend computes float16 in float32
        micro = min(train.micro_batch_size or train.batch_size, train.batch_size)
        self.accumulates = micro < train.batch_size
        self.tokens = micro * config.data.seq_len
        models = layer_specs(model)
        start, self.period, repeats = self._stack(models)
        self.looped = range(start, start + self.period * repeats)
        # A GPU's compiler computes again what is in no loop, too.
        self.again = self.looped if self.cpu or config.memory.remat == "none" else range(len(models))
        # XLA takes a sum apart from what it sums outside of loops, and of many rows: measured are 2048 and 4096.
        self.apart = self.cpu and (not (self.accumulates or self.looped) or self.tokens >= MANY)
        self.layers = [kept(layer, config.data.seq_len, self.cpu, self.apart) for layer in models]
        self.stream = self.tokens * model.d_model * self.compute

    def _stack(self, models: Sequence[Model]) -> tuple[int, int, int]:
        """Returns (start, period, repeats) of the layers that run in a loop, as `slm_flax.stack` finds them."""
        if self.config.memory.remat == "none":
            return 0, 0, 0
        return repetition([(model, model.attention.value_residual and i > 0) for i, model in enumerate(models)])

    def at_loss(self) -> Prediction:
        """The logits, beside all that the layers keep, the embedding, the final norm's input and its result."""
        return self._moment(self.layers_keep() + 3 * self.stream, self.logits(), self.spare())

    def at_layer(self) -> Prediction:
        """The backward pass of the last layer, beside the head's gradient and what the other layers keep."""
        if self.again:
            return self._moment(self.layers_keep(), self.head(), self.layer_again())
        scores = max(layer.whole for layer in self.layers) * self.tokens * self.compute
        return self._moment(self.layers_keep() + 3 * self.stream, self.head(), self.spare() + scores)

    def at_update(self) -> Prediction:
        """The optimizer, which works on one array after the other: of those outside of the loop a copy stays behind.

        With moments in 8 bits that is the gradient, which becomes the direction, its codes, and a decoded slice.
        """
        work = self.spare()
        if self.config.optim.kind == "adamw8bit":
            work = (2 if self.cpu else 1) * self.outside() + 7 * SLICE * self.wide
        return replace(self._moment(0, 0, work), gradients=self.held.gradients)

    def _moment(self, activations: float, logits: float, workspace: float) -> Prediction:
        # A loop over layers adds up the gradients of its stacks.
        gradients = self.held.gradients if self.accumulates or self.looped else 0
        workspace += 0 if self.cpu else PRODUCTS
        return Prediction(
            self.held.weights, gradients, self.held.optimizer, round(activations), round(logits), round(workspace)
        )

    def layers_keep(self) -> float:
        """Returns what the forward pass through the layers keeps."""
        remat, value, count = self.config.memory.remat, self.tokens * self.compute, len(self.again)
        single = sum(layer.all for i, layer in enumerate(self.layers) if i not in self.again) * value
        products = sum(self.layers[i].products for i in self.again or range(len(self.layers))) * value
        # The adapters' results are kept by themselves, beside those of the frozen matrices; on a GPU only in loops.
        adapted = products if self.config.finetune.kind == "lora" and (self.cpu or self.again) else 0
        if not self.again:
            return single + adapted + self.casts()
        if remat == "full":
            size = group_size(len(self.layers))
            return single + (-(-count // size) + size) * self.stream
        return single + count * self.stream + (products + adapted if remat == "attention" else 0)

    def casts(self) -> float:
        """Returns what layers keep in two dtypes where they compute in a narrow one: matrices, and what norms read."""
        if self.compute == self.wide:
            return 0
        matrices = sum(p.size for p in self.held.trained.values() if p.role == "matrix") * self.compute
        return matrices + 3 * len(self.layers) * self.stream

    def layer_again(self) -> float:
        """Returns what one layer needs that is computed again: that, its gradient, its weights out of the stack. A CPU
        computes all layers of the loop's body at once.

        Scores come once more, as their gradients: the arrays that the MLP left are too small for them.
        """
        remat, grouped = self.config.memory.remat, 0
        # What is kept of products is not computed again; but a GPU's loop takes it out of the stack first. Adapters'
        # products are added to those of the frozen matrices, on a GPU to half of them in place.
        adapted = (1 if self.cpu else 0.5) if self.config.finetune.kind == "lora" else 0
        more = adapted - (remat == "attention" and self.cpu)
        values = [layer.all + layer.whole + more * layer.products for layer in self.layers]
        together = sum(values[i] for i in self.looped[: self.period]) if self.cpu else max(values)
        if remat == "full":  # a group adds up its own gradients first
            grouped = group_size(len(self.layers))
        weights = (max(self.period, 1) + grouped) * self.layer_weights()
        return together * self.tokens * self.compute + self.stream + weights

    def layer_weights(self) -> int:
        """Returns the matrices of the largest layer, in full where they are held in few bits."""
        plain = parameters(replace(self.config, finetune=Finetune()), self.vocab)
        sizes = [0] * len(self.layers)
        for name, parameter in plain.items():
            if name.startswith("layers."):
                sizes[int(name.split(".")[1])] += parameter.size
        return max(sizes) * self.wide

    def head(self) -> int:
        """Returns the gradient of the matrix that makes logits; 0 where it is frozen."""
        name = "embed.weight" if self.config.model.tie_embeddings else "head.weight"
        return self.held.sizes[name] if name in self.held.trained else 0

    def logits(self) -> float:
        """Returns what the loss needs: logits, their exponentials and gradients; in chunks, or the head's gradient.

        Where layers are no loop, the zeros that a chunk's gradient starts from stay as well.
        """
        chunk = self.config.memory.loss_chunk or 0
        if not chunk:  # inside of loops two, and a third of some models (of 8192 tokens, by Llama's, not by GPT-2's)
            copies = 2 if self.accumulates or self.looped or not self.cpu else 3
            return copies * self.tokens * self.vocab * self.wide
        zeros = not self.looped and chunk < self.tokens
        pieces = (2 + zeros) * min(chunk, self.tokens) * self.vocab * self.wide
        return max(self.head(), pieces) + (0 if self.looped else self.head())

    def spare(self) -> int:
        """Returns what XLA's CPU backend needs to move each moment elsewhere before it writes the new one."""
        return self.outside() if self.cpu else 0

    def outside(self) -> int:
        """Returns one array of each shape of the trained parameters outside of the loop."""
        names = (name for name in self.held.trained if not self._in_loop(name))
        return sum({self.held.shapes[name].shape: self.held.sizes[name] for name in names}.values())

    def _in_loop(self, name: str) -> bool:
        return name.startswith("layers.") and int(name.split(".")[1]) in self.looped
