"""Predicts what XLA plans for one update of the Flax twin, in bytes.

XLA decides before it runs which arrays live when. Weights and optimizer state are there all the time. The rest depends
on the moment: the loss, with all that the layers keep (`flax_layers`), the backward pass of a layer, or the optimizer.
The plan is XLA's buffer assignment, which `slm_flax.memory` sums up: for a CPU if run.device=cpu, else for a GPU. In
float16 a GPU keeps half. A CPU computes float16 in float32.
"""

from dataclasses import replace

from slm_core.config import Config
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.model.layer_groups import Repetition, group_size, repetition
from slm_core.planner.declarations import Twin, layer_index, without_adapters
from slm_core.planner.flax_layers import kept, measured
from slm_core.planner.mixers import measured_mixers
from slm_core.planner.prediction import Prediction
from slm_core.planner.resident import SLICE, resident_memory
from slm_core.planner.xla_constants import COMPILERS


def predict(config: Config, vocab_size: int, twin: Twin) -> Prediction:
    """Predicts the memory of an update; see `slm_core.planner.predict`."""
    step = Step(config, vocab_size, twin)
    return max((step.at_loss(), step.at_layer(), step.at_update()), key=lambda moment: moment.total)


class Step:
    """The sizes that the moments of an update are made of, in bytes."""

    def __init__(self, config: Config, vocab_size: int, twin: Twin):
        train, device = config.train, "cpu" if config.run.device == "cpu" else "gpu"
        self.config, self.vocab, self.cpu = config, vocab_size, device == "cpu"
        self.compiler = COMPILERS[device]
        self.resident = resident_memory(config, vocab_size, twin.declare)
        self.base_parameters = without_adapters(config, vocab_size, twin.declare)
        self.wide = self.resident.wide
        self.compute = self.wide if self.cpu else self.resident.compute  # XLA's CPU backend computes float16 in float32
        micro = min(train.micro_batch_size or train.batch_size, train.batch_size)
        self.accumulates = micro < train.batch_size
        self.tokens = micro * config.data.seq_len
        layers = layer_specs(config.model)
        start, self.period, repeats = self._stack(layers)
        self.looped = range(start, start + self.period * repeats)
        # A GPU's compiler also computes again the layers that are in no loop.
        self.again = self.looped if self.cpu or config.memory.remat == "none" else range(len(layers))
        # XLA computes a sum apart from its terms outside of loops, and of many rows.
        many = self.compiler.sums_apart_from
        apart = many is not None and (not (self.accumulates or self.looped) or self.tokens >= many)
        mixers = measured_mixers(config, vocab_size, twin, micro)
        self.layers = [
            measured(layer, mixers[i], device, self.tokens * self.compute)
            if i in mixers
            else kept(layer, config.data.seq_len, device, apart)
            for i, layer in enumerate(layers)
        ]
        self.stream = self.tokens * config.model.d_model * self.compute

    def _stack(self, layers: tuple[LayerSpec, ...]) -> Repetition:
        """Finds the layers that run in a loop, as `slm_flax.stack` does."""
        if self.config.memory.remat == "none":
            return Repetition()
        return repetition([(layer, layer.attention.value_residual and i > 0) for i, layer in enumerate(layers)])

    def at_loss(self) -> Prediction:
        """Predicts the moment of the loss: the logits, beside all that the layers keep and copies of the stream."""
        return self._moment(self.layers_keep() + self.streams(), self.logits(), self.moved())

    def at_layer(self) -> Prediction:
        """Predicts the backward pass of the last layer, beside the head's gradient and what the other layers keep."""
        if self.again:
            return self._moment(self.layers_keep(), self.head(), self.layer_again())
        scores = max(layer.again for layer in self.layers) * self.tokens * self.compute
        return self._moment(self.layers_keep() + self.streams(), self.head(), self.moved() + scores)

    def at_update(self) -> Prediction:
        """Predicts the moment of the optimizer, which works on one array after the other.

        A copy of each array outside of the loop stays behind. With moments in 8 bits it is the gradient, in whose place
        the direction stands, and its codes; one slice is there in full precision.
        """
        work = self.moved()
        if self.config.optim.kind == "adamw8bit":
            work = self.compiler.moved_8bit * self.outside() + self.compiler.slices_8bit * SLICE * self.wide
        return replace(self._moment(0, 0, work), gradients=self.resident.gradients)

    def _moment(self, activations: float, logits: float, workspace: float) -> Prediction:
        # A loop over layers adds up the gradients of its stacks.
        gradients = self.resident.gradients if self.accumulates or self.looped else 0
        workspace += self.compiler.workspace
        return Prediction(
            self.resident.weights, gradients, self.resident.optimizer,
            round(activations), round(logits), round(workspace),
        )  # fmt: skip

    def streams(self) -> float:
        """Counts the bytes of the copies of the stream at the moment of the loss."""
        return self.compiler.streams_at_loss * self.stream

    def layers_keep(self) -> float:
        """Counts the bytes that the forward pass of all layers keeps."""
        remat, value, count = self.config.memory.remat, self.tokens * self.compute, len(self.again)
        single = sum(layer.all for i, layer in enumerate(self.layers) if i not in self.again) * value
        products = sum(self.layers[i].products for i in self.again or range(len(self.layers))) * value
        # The adapters' results are kept beside those of the frozen matrices; on a GPU only in loops.
        adapted = products if self.config.finetune.kind == "lora" and (self.cpu or self.again) else 0
        if not self.again:
            return single + adapted + self.casts()
        if remat == "full":
            size = group_size(len(self.layers))
            return single + (-(-count // size) + size) * self.stream
        return single + count * self.stream + (products + adapted if remat == "attention" else 0)

    def casts(self) -> float:
        """Counts the bytes of second copies in a narrow dtype: of matrices, and of the inputs of norms."""
        if self.compute == self.wide:
            return 0
        matrices = sum(p.size for p in self.resident.trained.values() if p.role == "matrix") * self.compute
        return matrices + self.compiler.narrow_streams * len(self.layers) * self.stream

    def layer_again(self) -> float:
        """Counts the bytes for one layer that is computed again: its values, gradient and weights out of the stack.

        A CPU computes all layers of the loop's body at once. Scores come once more, as their gradients: the arrays that
        the MLP has freed are too small for them.
        """
        remat = self.config.memory.remat
        # The kept results of products are not computed again; but a GPU's loop takes them out of the stack first.
        adapted = self.compiler.adapted if self.config.finetune.kind == "lora" else 0
        more = adapted - (remat == "attention" and self.cpu)
        values = [layer.all + layer.again + more * layer.products for layer in self.layers]
        together = sum(values[i] for i in self.looped[: self.period]) if self.cpu else max(values)
        grouped = group_size(len(self.layers)) if remat == "full" else 0  # a group adds up its own gradients first
        weights = (max(self.period, 1) + grouped) * self.layer_weights()
        return together * self.tokens * self.compute + self.stream + weights

    def layer_weights(self) -> int:
        """Returns the bytes of the largest layer's parameters, in full precision even if they are quantised."""
        sizes = [0] * len(self.layers)
        for name, parameter in self.base_parameters.items():
            if (index := layer_index(name)) is not None:
                sizes[index] += parameter.size
        return max(sizes) * self.wide

    def head(self) -> int:
        """Counts the bytes of the gradient of the matrix that makes logits; 0 if it is frozen."""
        name = "embed.weight" if self.config.model.tie_embeddings else "head.weight"
        return self.resident.sizes[name] if name in self.resident.trained else 0

    def logits(self) -> float:
        """Counts the bytes for the loss: copies of all logits; in chunks, of one chunk's, or the head's gradient.

        If the layers run in no loop, the zeros that a chunk's gradient starts from stay as well.
        """
        chunk = self.config.memory.loss_chunk or 0
        if not chunk:  # in loops some models take a third copy (Llama of 8192 tokens, but not GPT-2)
            in_loop = self.accumulates or self.looped
            copies = self.compiler.logits_in_loop if in_loop else self.compiler.logits
            return copies * self.tokens * self.vocab * self.wide
        zeros = not self.looped and chunk < self.tokens
        pieces = (self.compiler.logits_in_loop + zeros) * min(chunk, self.tokens) * self.vocab * self.wide
        return max(self.head(), pieces) + (0 if self.looped else self.head())

    def moved(self) -> float:
        """Counts the bytes that XLA needs to move each moment elsewhere before it writes the new one."""
        return self.compiler.moved * self.outside()

    def outside(self) -> int:
        """Returns the bytes of one array of each shape that trained parameters outside of the loop have."""
        names = (name for name in self.resident.trained if layer_index(name) not in self.looped)
        return sum({self.resident.trained[name].shape: self.resident.sizes[name] for name in names}.values())
