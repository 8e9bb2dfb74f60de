"""Evaluates and decodes with a model whose weights are on one device."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from slm_core.config import Config
from slm_core.model.weights import Weights, checked
from slm_core.planner import Twin
from slm_core.planner.resolve import resolve_auto
from slm_core.protocols import IGNORE, Evaluation, Inspection, Module, count_targets
from slm_core.quantization.lora import starting
from slm_core.training.summary import parameter_facts
from slm_flax import params
from slm_flax.device import device_name, peak_memory_bytes, prepare_device, probe
from slm_flax.generate import Decoder, power_of_two
from slm_flax.inspection import inspected, lens, modules
from slm_flax.layers.dropout import DropoutKey
from slm_flax.loss import Losses, Scores, batch_losses, batch_scores, token_scores
from slm_flax.mixer_memory import mixer_memory
from slm_flax.model import Transformer, declared
from slm_flax.numerics import DTYPES
from slm_flax.params import Params


class Evaluator:
    """Evaluates a model, looks inside it, and makes decoders of it; see `slm_core.protocols.Inspector`."""

    framework = "flax"

    def __init__(self, config: Config, vocab_size: int, weights: Weights | None = None, trains: bool = False):
        """Places a model with its weights on the config's device.

        Args:
          config: its fields that are "auto" are resolved for the device.
          vocab_size: number of token ids.
          weights: read one at a time, in the model's order; None: the initial weights of config.seed.
          trains: whether an engine trains this model; memory is then planned for training.

        Raises:
          UserError: the machine lacks something that the config asks for, or the weights do not fit.
        """
        self.device = prepare_device(config)
        device = probe(self.device, config.run.threads)
        twin = Twin(self.framework, declared, mixer_memory)
        config, self.choices = resolve_auto(config, vocab_size, twin, device, trains)
        self.config, self.compute = config, config.precision.compute
        dtype = DTYPES[config.precision.params]
        self.model = Transformer(config, vocab_size, DTYPES[self.compute])
        if weights is None:
            values = params.initialise(self.model, config.seed, dtype)
        else:
            started = starting(weights, params.specs(self.model), config.seed)
            values = params.fill(self.model, started, dtype)
        self.params: Params = dict(sorted(values.items()))
        self.loss_sums = jax.jit(self._loss_sums)
        self.scores = jax.jit(self._scores)
        self.token_scores = jax.jit(self._token_scores)
        self.inspected = jax.jit(self._inspected)
        self.log_probs = jax.jit(self._log_probs)

    def facts(self) -> dict[str, str]:
        """Returns {name: fact} for the start of a run: parameters, device, choices, memory."""
        return {
            "framework": f"JAX {jax.__version__}",
            "device": device_name(self.device, self.config.run.threads),
            **parameter_facts(params.specs(self.model), self.model.adapter_plan, self.config),
            **{name.rpartition(".")[2]: choice for name, choice in self.choices.items()},
            "memory": f"{self.peak_memory_bytes() / 1e9:.2f} GB after building",
        }

    def eval_step(self, tokens: np.ndarray) -> Evaluation:
        """Computes the losses of a batch, and how many targets the model predicts, without dropout."""
        return self.measure(self.params, tokens)

    def measure(self, values: Params, tokens: np.ndarray) -> Evaluation:
        """Does what `eval_step` does, with other weights."""
        scores = self.scores(values, tokens)
        return Evaluation(float(scores.tokens), count_targets(tokens), int(scores.correct))

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes log p(target) of each target, and whether it is the likeliest token, without dropout."""
        rows, length = len(tokens), tokens.shape[1] - 1
        # Padding to powers of two compiles few shapes. It lies after the tokens, which cannot see it.
        more = power_of_two(rows) - rows, min(power_of_two(length), self.model.context) - length
        padded = np.pad(tokens, ((0, more[0]), (0, more[1])), constant_values=IGNORE)
        logs, greedy = self.token_scores(self.params, padded)
        return np.asarray(logs)[:rows, :length], np.asarray(greedy)[:rows, :length]

    def load(self, weights: Weights) -> None:
        """Replaces the weights; see `slm_core.protocols.Inspector`."""
        values = checked(weights, {name: value.shape for name, value in self.params.items()})
        self.params = dict(sorted(params.fill(self.model, values, DTYPES[self.config.precision.params]).items()))

    def inspect(self, tokens: np.ndarray) -> Inspection:
        """Computes the attention weights and the streams of a batch, without dropout."""
        weights, streams = jax.device_get(self.inspected(self.params, tokens))
        return Inspection(weights, streams)

    def lens(self, stream: np.ndarray) -> np.ndarray:
        """Computes the logit lens of a stream."""
        return np.asarray(self.log_probs(self.params, stream.astype(DTYPES[self.compute])))

    def modules(self, length: int) -> list[Module]:
        """Lists the modules that the forward pass of one sequence calls."""
        return modules(self.model, self.params, jnp.zeros((1, length), jnp.int32))

    def decoder(self) -> Decoder:
        """Makes a decoder with the current parameters."""
        return Decoder(self.model, self.params)

    def peak_memory_bytes(self) -> int:
        """Returns the peak memory of the device so far (of the process, on a CPU), in bytes."""
        return peak_memory_bytes(self.device)

    def parameters(self) -> Params:
        """Returns the parameters by canonical name, one array per layer."""
        return self.params

    def _loss_sums(self, values: Params, tokens: Array, key: DropoutKey | None) -> Losses:
        return batch_losses(self.model, values, tokens, key, self.config.memory.loss_chunk)

    def _scores(self, values: Params, tokens: Array) -> Scores:
        return batch_scores(self.model, values, tokens, self.config.memory.loss_chunk)

    def _token_scores(self, values: Params, tokens: Array) -> tuple[Array, Array]:
        return token_scores(self.model, values, tokens, self.config.memory.loss_chunk)

    def _inspected(self, values: Params, tokens: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        return inspected(self.model, values, tokens)

    def _log_probs(self, values: Params, stream: Array) -> Array:
        return lens(self.model, values, stream)
