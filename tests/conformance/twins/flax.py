"""The Flax twin as the conformance suite calls it: NumPy arrays go in and come out. `torch.py` has the same names."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from slm_core.config import Config
from slm_core.model.initialization import Spec
from slm_flax import layers, optim, params
from slm_flax.evaluator import Evaluator
from slm_flax.layers.dropout import keep_mask as dropout_mask
from slm_flax.layers.linear import Linear
from slm_flax.layers.lora import FrozenLinear
from slm_flax.layers.moe import MixtureOfExperts
from slm_flax.layers.placement import PLACEMENT
from slm_flax.layers.recurrence import recurrence
from slm_flax.layers.scan import scan
from slm_flax.layers.short_convolution import short_convolution
from slm_flax.loss import loss_sums, read, sums
from slm_flax.loss import scores as scores_of_tokens
from slm_flax.loss import token_losses as losses_of_tokens
from slm_flax.model import Transformer, position_at
from slm_flax.numerics import DTYPES
from slm_flax.optim import OPTIMIZERS, scheduled
from slm_flax.optim.muon import SCALES as MUON_SCALES
from slm_flax.optim.muon import orthogonal as orthogonal_by_muon
from slm_flax.quantization.blockwise import Quantiser
from slm_flax.quantization.formats import MATRIX
from slm_flax.quantization.formats import product as product_with
from slm_flax.trainer import LossScaler, build
from slm_flax.trainer import clip_factor as factor

__all__ = ["Evaluator", "MUON_SCALES", "OPTIMIZERS", "PLACEMENT", "build"]

NAME = "flax"
FLOAT64 = jnp.dtype("float64")
Module = nnx.Module
RECURRENCES = dict(recurrence=recurrence, short_convolution=short_convolution, scan=scan)


def prepare() -> None:
    """Lets JAX compute in float64. An engine sets this anew, for itself."""
    jax.config.update("jax_enable_x64", True)


def array(value):
    """Returns a JAX array of a NumPy array; anything else as it is."""
    return jnp.asarray(value) if isinstance(value, np.ndarray) else value


# --- layers


def apply(registry, kind, arguments, weights, *inputs):
    """Builds a component with its arguments, gives it weights {name: array} and calls it on the inputs."""
    y = _filled(getattr(layers, registry)[kind](*arguments), weights)(*map(array, inputs))
    return np.asarray(y[0] if registry == "MLP" else y)  # beside its output, an MLP has an auxiliary loss


def attention(layer, index, weights, x, first_values):
    """Returns the output and the values of the attention layer number `index`."""
    position = partial(position_at, layer=layer, context=9)
    module = layers.ATTENTION[layer.attention.kind](layer, index, layers.KERNEL["dot_product"], position)
    outputs = _filled(module, weights)(array(x), 0, None, array(first_values))
    return [np.asarray(y) for y in outputs]


def hidden(config, weights, tokens):
    """Returns the hidden state of a whole model."""
    model = Transformer(config, len(weights["embed.weight"]), FLOAT64)
    return np.asarray(_filled(model, weights)(array(tokens))[0])


def logits(config, weights, hidden):
    """Returns the logits of a hidden state."""
    model = Transformer(config, len(weights["embed.weight"]), FLOAT64)
    return np.asarray(_filled(model, weights).logits(array(hidden)))


def keep_mask(key, shape, first_row, rate):
    return np.asarray(dropout_mask(jnp.uint32(key), shape, jnp.uint32(first_row), rate))


def _filled(module, weights):
    return params.bind(module, {name: array(value) for name, value in weights.items()})


# --- losses


def token_losses(logits, targets):
    return np.asarray(losses_of_tokens(array(logits), array(targets)))


def losses(logits, targets, z_loss):
    """Returns the sum that is reported and the sum that is minimised."""
    return [float(value) for value in sums(array(logits), array(targets), z_loss)]


def scores(logits, targets):
    """Returns the sum of the losses, and the number of targets that have the largest logit."""
    told = scores_of_tokens(array(logits), array(targets))
    return float(told.tokens), int(told.correct)


def loss_and_gradients(config, vocab, hidden, targets, chunk):
    """Returns both losses of a hidden state, and the gradients of what is minimised in it and in the head."""
    model = Transformer(Config(model=config), vocab, FLOAT64)
    values = params.initialise(model, 0, FLOAT64)

    def both(hidden, head):
        bound = params.bind(model, values | {"head.weight": head})
        losses = loss_sums(bound, hidden, 0.5, array(targets), chunk)
        return losses.objective, losses.tokens

    of_both = jax.value_and_grad(both, (0, 1), has_aux=True)
    (objective, tokens), gradients = of_both(array(hidden), values["head.weight"])
    return [np.asarray(x) for x in (tokens, objective, *gradients)]


def passing(engine):
    """Returns a function of tokens, int32 [rows, columns], that computes their logits, loss and {name: gradient}."""

    @jax.jit
    def forward_backward(values, tokens):
        model = params.bind(engine.model, values)
        logits = model.logits(read(model, tokens[:, :-1], None)[0])
        return logits, jax.value_and_grad(lambda values: engine.loss_sums(values, tokens, None).objective)(values)

    def run(tokens):
        logits, (loss, gradients) = forward_backward(engine.state["params"], tokens)
        gradients = {name: np.asarray(value) for name, value in engine.stack.unstacked(gradients).items()}
        return np.asarray(logits), np.asarray(loss), gradients

    return run


# --- attention kernels


def kernel(name, q, k, v, **options):
    options = {key: array(value) for key, value in options.items()}
    return np.asarray(layers.KERNEL[name](array(q), array(k), array(v), **options))


def kernel_in(dtype, name, inputs, **options):
    """Returns the output for inputs of a dtype, as float32, and the output's dtype."""
    function = jax.jit(lambda inputs: layers.KERNEL[name](**inputs, **options))
    y = function({n: jnp.asarray(x, DTYPES[dtype]) for n, x in inputs.items()})
    return np.float32(y), str(y.dtype)


def kernel_gradients(name, inputs, dy, compiled=False, checkpointed=False, **options):
    """Returns the output and {input: gradient of sum(output * dy)}.

    Compiling costs a second per case: without it, loops run as Python's. Compiled, positions are not known beforehand.
    """
    static = {n: options.pop(n) for n in ("scale", "window", "softcap") if n in options}
    function = partial(layers.KERNEL[name], **static)
    function = jax.checkpoint(function) if checkpointed else function

    def forward_backward(inputs, dy, places):
        y, backward = jax.vjp(lambda inputs: function(**inputs, **places), inputs)
        return y, backward(dy)[0]

    inputs, dy = jax.tree.map(jnp.asarray, (inputs, dy))
    options = {key: array(value) for key, value in options.items()}
    with jax.disable_jit(not compiled):
        y, gradients = jax.jit(forward_backward)(inputs, dy, options)
    return np.asarray(y), {n: np.asarray(g) for n, g in gradients.items()}


# --- recurrences


def recurrent(name, inputs, dy, dlast, dtype="float64", **options):
    """Returns y, the last state and {input: gradient of sum(y dy) + sum(last state dlast)}.

    The state is float32 or wider; all other inputs have `dtype`.
    """
    stored = jnp.promote_types(DTYPES[dtype], jnp.float32)
    arrays = {n: jnp.asarray(x, stored if n == "state" else DTYPES[dtype]) for n, x in inputs.items()}
    chunk = {"chunk": options.pop("chunk")} if "chunk" in options else {}
    options = {n: array(x) for n, x in options.items()}
    results = _recurrent(name, tuple(chunk.items()), arrays, jnp.asarray(dy), jnp.asarray(dlast), options)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), results)


@partial(jax.jit, static_argnums=(0, 1))
def _recurrent(name, static, inputs, dy, dlast, options):
    function = partial(RECURRENCES[name], **dict(static), **options)
    (y, last), backward = jax.vjp(lambda inputs: function(**inputs), inputs)
    return y, last, backward((dy.astype(y.dtype), dlast.astype(last.dtype)))[0]


def recurrent_dtypes(name, inputs, dtype):
    """Returns the dtypes of the outputs and of the last state for inputs of a dtype."""
    arrays = {n: jnp.asarray(x, DTYPES[dtype]) for n, x in inputs.items()}
    return [str(x.dtype) for x in jax.eval_shape(lambda inputs: RECURRENCES[name](**inputs), arrays)]


# --- mixtures of experts


def mixture(layer, weights, x, dy, dtype="float64"):
    """Returns the output, the auxiliary loss and {name: gradient of sum(output * dy) + the loss}, with that of "x"."""
    assert weights.keys() == params.specs(MixtureOfExperts(layer)).keys()
    stored = jnp.dtype("float64" if dtype == "float64" else "float32")
    weights = {name: jnp.asarray(value, stored) for name, value in weights.items()}
    results = _mixture_gradients(layer, weights, jnp.asarray(x, DTYPES[dtype]), jnp.asarray(dy, DTYPES[dtype]))
    return jax.tree.map(lambda array: np.asarray(array, np.float64), results)


@partial(jax.jit, static_argnums=0)
def _mixture_gradients(layer, weights, x, dy):
    stored = weights["router.weight"].dtype

    def objective(weights, x):
        module = params.bind(MixtureOfExperts(layer), weights)
        y, auxiliary_loss = module(x)
        assert y.dtype == x.dtype and auxiliary_loss.dtype == stored
        return (y * dy).sum().astype(stored) + auxiliary_loss, (y, auxiliary_loss)

    (_, (y, auxiliary_loss)), (dw, dx) = jax.value_and_grad(objective, (0, 1), has_aux=True)(weights, x)
    return y, auxiliary_loss, dw | {"x": dx}


# --- quantization and adapters


def quantised(x, block, code):
    """Returns the codes, the scales and the values that they stand for."""
    return [np.asarray(array) for array in _compiled_quantiser(block, code.tobytes())(jnp.asarray(x))]


@lru_cache
def _compiled_quantiser(block, code):
    quantiser = Quantiser(np.frombuffer(code, np.float32), block)

    @jax.jit
    def both(x):
        codes, scales = quantiser.quantise(x)
        return codes, scales, quantiser.dequantise(codes, scales)

    return both


def matrix(stored_as, parts):
    return np.asarray(jax.jit(MATRIX[stored_as])(**stored(stored_as, parts)))


def product(x, stored_as, parts, cotangent):
    """Returns x W and the gradient in x."""
    parts = list(stored(stored_as, parts).values())

    @jax.jit
    def both(x, cotangent):
        y, backward = jax.vjp(lambda x: product_with(x, stored_as, parts), x)
        return y, *backward(cotangent)

    y, gradient = both(x, cotangent)
    return np.asarray(y), np.asarray(gradient)


def stored(stored_as, parts):
    """Returns the arrays that a quantised matrix is stored in, by name. JAX has its tables in the program."""
    return {leaf: jnp.asarray(part) for leaf, part in parts.items()}


def adapted(x, weights, alpha, dtype):
    """Returns the output of a layer with an adapter whose rank is the width of x, and the gradient of its sum."""
    x = jnp.asarray(x, DTYPES[dtype])
    linear = Linear(*weights["weight"].shape, Spec("matrix", std=1.0), bias=False)
    layer = FrozenLinear(linear, "float", x.shape[-1], alpha)
    layer = params.bind(layer, params.fill(layer, weights.items(), np.dtype("float32")))
    y, backward = jax.vjp(jax.jit(lambda x: layer(x)), x)
    return [np.asarray(value, np.float32) for value in (y, *backward(jnp.ones_like(y)))]


# --- optimizers and the loss scaler


def optimized(config, groups, values, grads, lrs):
    """Returns the parameters to evaluate after an update with each of the gradients and learning rates."""
    optimizer, tensors = optim.make(config, groups), parameters(values)
    state, update = optimizer.init(tensors), jax.jit(optimizer.update)
    for grad, lr in zip(grads, lrs, strict=True):
        dtype = next(iter(tensors.values())).dtype
        tensors, state = update(parameters(grad), state, tensors, jnp.asarray(lr, dtype))
    if config.kind in optim.AVERAGED:
        tensors = optim.AVERAGED[config.kind](config, tensors, state)
    return {name: np.asarray(value) for name, value in tensors.items()}


def parameters(values):
    return {name: jnp.asarray(value) for name, value in values.items()}


def library_optimizer(config, groups):
    """Returns an optimizer of optax that no twin has."""
    return scheduled(optax.adabelief(1.0))


def orthogonal(config, u):
    return np.asarray(orthogonal_by_muon(jnp.asarray(u), config.newton_schulz_steps))


def clip_factor(norm, limit):
    return float(factor(jnp.asarray(norm), limit))


def loss_scales(precision, finite):
    """Returns the loss scale after each update, of which some were not finite."""
    scaler, scales = LossScaler(precision, active=True), []
    state = scaler.init()
    for ok in finite:
        state = scaler.update(state, jnp.asarray(ok))
        scales.append(float(state["scale"]))
    return scales
