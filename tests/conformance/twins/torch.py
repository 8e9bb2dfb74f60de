"""The PyTorch twin as the conformance suite calls it: NumPy arrays go in and come out. `flax.py` has the same names."""

from functools import partial

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from slm_core.config import Config
from slm_core.model.initialization import Spec
from slm_torch import layers, optim, params
from slm_torch.evaluator import Evaluator
from slm_torch.layers.dropout import keep_mask as dropout_mask
from slm_torch.layers.linear import Linear
from slm_torch.layers.lora import FrozenLinear
from slm_torch.layers.moe import MixtureOfExperts
from slm_torch.layers.placement import PLACEMENT
from slm_torch.layers.recurrence import recurrence
from slm_torch.layers.scan import scan
from slm_torch.layers.short_convolution import short_convolution
from slm_torch.loss import loss_sums, read, sums
from slm_torch.loss import scores as scores_of_tokens
from slm_torch.loss import token_losses as losses_of_tokens
from slm_torch.model import Transformer, position_at
from slm_torch.numerics import DTYPES
from slm_torch.optim import OPTIMIZERS
from slm_torch.optim.base import named_state, param_groups
from slm_torch.optim.muon import SCALES as MUON_SCALES
from slm_torch.optim.muon import orthogonal as orthogonal_by_muon
from slm_torch.quantization.blockwise import Quantiser
from slm_torch.quantization.formats import MATRIX, TABLES
from slm_torch.quantization.formats import product as product_with
from slm_torch.trainer import LossScaler, build
from slm_torch.trainer import clip_factor as factor

__all__ = ["Evaluator", "MUON_SCALES", "OPTIMIZERS", "PLACEMENT", "build"]

NAME = "torch"
FLOAT64 = torch.float64
CPU = torch.device("cpu")
Module = torch.nn.Module
RECURRENCES = dict(recurrence=recurrence, short_convolution=short_convolution, scan=scan)


def prepare() -> None:
    """Does nothing: PyTorch computes in the dtype of its inputs."""


def array(value):
    """Returns a tensor of a NumPy array; anything else as it is."""
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


# --- layers


def apply(registry, kind, arguments, weights, *inputs):
    """Builds a component with its arguments, gives it weights {name: array} and calls it on the inputs."""
    y = _filled(getattr(layers, registry)[kind](*arguments), weights)(*map(array, inputs))
    return (y[0] if registry == "MLP" else y).detach().numpy()  # beside its output, an MLP has an auxiliary loss


def attention(layer, index, weights, x, first_values):
    """Returns the output and the values of the attention layer number `index`."""
    position = partial(position_at, layer=layer, context=9)
    module = layers.ATTENTION[layer.attention.kind](layer, index, layers.KERNEL["dot_product"], position)
    outputs = _filled(module, weights)(array(x), 0, None, array(first_values))
    return [y.detach().numpy() for y in outputs]


def hidden(config, weights, tokens):
    """Returns the hidden state of a whole model."""
    model = Transformer(config, len(weights["embed.weight"]), FLOAT64)
    return _filled(model, weights)(array(tokens))[0].detach().numpy()


def logits(config, weights, hidden):
    """Returns the logits of a hidden state."""
    model = Transformer(config, len(weights["embed.weight"]), FLOAT64)
    return _filled(model, weights).logits(array(hidden)).detach().numpy()


def keep_mask(key, shape, first_row, rate):
    bits = torch.from_numpy(np.array(key, np.uint32).view(np.int32))
    return dropout_mask(bits, torch.Size(shape), first_row, rate).numpy()


def _filled(module, weights):
    module = params.initialise(module, 0, FLOAT64, CPU)
    params.load(dict(module.named_parameters()), weights)
    return module


# --- losses


def token_losses(logits, targets):
    return losses_of_tokens(array(logits), array(targets)).numpy()


def losses(logits, targets, z_loss):
    """Returns the sum that is reported and the sum that is minimised."""
    return [float(value) for value in sums(array(logits), array(targets), z_loss)]


def scores(logits, targets):
    """Returns the sum of the losses, and the number of targets that have the largest logit."""
    told = scores_of_tokens(array(logits), array(targets))
    return float(told.tokens), int(told.correct)


def loss_and_gradients(config, vocab, hidden, targets, chunk):
    """Returns both losses of a hidden state, and the gradients of what is minimised in it and in the head."""
    model = params.initialise(Transformer(Config(model=config), vocab, FLOAT64), 0, FLOAT64, CPU)
    hidden = array(hidden).requires_grad_()
    losses = loss_sums(model, hidden, 0.5, array(targets), chunk)
    gradients = torch.autograd.grad(losses.objective, (hidden, model.head.weight))
    return [x.detach().numpy() for x in (*losses, *gradients)]


def passing(engine):
    """Returns a function of tokens, int32 [rows, columns], that computes their logits, loss and {name: gradient}."""

    def run(tokens):
        batch = torch.from_numpy(tokens).to(torch.int64)
        logits = engine.model.logits(read(engine.model, batch[:, :-1], None)[0])
        loss = engine.loss_sums(batch, None).objective
        gradients = torch.autograd.grad(loss, list(engine.params.values()))
        return (
            logits.detach().numpy(),
            loss.detach().numpy(),
            dict(zip(engine.params, map(np.asarray, gradients), strict=True)),
        )

    return run


# --- attention kernels


def kernel(name, q, k, v, **options):
    options = {key: array(value) for key, value in options.items()}
    return layers.KERNEL[name](array(q), array(k), array(v), **options).numpy()


def kernel_in(dtype, name, inputs, **options):
    """Returns the output for inputs of a dtype, as float32, and the output's dtype."""
    y = layers.KERNEL[name](**{n: array(x).to(DTYPES[dtype]) for n, x in inputs.items()}, **options)
    return y.float().numpy(), str(y.dtype).removeprefix("torch.")


def kernel_gradients(name, inputs, dy, compiled=False, checkpointed=False, **options):
    """Returns the output and {input: gradient of sum(output * dy)}. PyTorch compiles nothing here."""
    tensors = {n: array(x).requires_grad_() for n, x in inputs.items()}
    options = {key: array(value) for key, value in options.items()}
    function = layers.KERNEL[name]
    if checkpointed:
        y = checkpoint(lambda: function(**tensors, **options), use_reentrant=False)
    else:
        y = function(**tensors, **options)
    gradients = torch.autograd.grad(y, tensors.values(), array(dy))
    return y.detach().numpy(), {n: g.numpy() for n, g in zip(tensors, gradients, strict=True)}


# --- recurrences


def recurrent(name, inputs, dy, dlast, dtype="float64", **options):
    """Returns y, the last state and {input: gradient of sum(y dy) + sum(last state dlast)}.

    The state is float32 or wider; all other inputs have `dtype`.
    """
    tensors = {n: array(x).to(torch.promote_types(DTYPES[dtype], torch.float32)) for n, x in inputs.items()}
    tensors = {n: (x if n == "state" else x.to(DTYPES[dtype])).requires_grad_() for n, x in tensors.items()}
    y, last = RECURRENCES[name](**tensors, **{n: array(x) for n, x in options.items()})
    gradients = torch.autograd.grad((y, last), tensors.values(), (array(dy).to(y.dtype), array(dlast).to(last.dtype)))
    y, last, *gradients = (x.detach().double().numpy() for x in (y, last, *gradients))
    return y, last, dict(zip(tensors, gradients, strict=True))


def recurrent_dtypes(name, inputs, dtype):
    """Returns the dtypes of the outputs and of the last state for inputs of a dtype."""
    tensors = {n: array(x).to(DTYPES[dtype]) for n, x in inputs.items()}
    return [str(x.dtype).removeprefix("torch.") for x in RECURRENCES[name](**tensors)]


# --- mixtures of experts


def mixture(layer, weights, x, dy, dtype="float64"):
    """Returns the output, the auxiliary loss and {name: gradient of sum(output * dy) + the loss}, with that of "x"."""
    stored = FLOAT64 if dtype == "float64" else torch.float32
    module = params.initialise(MixtureOfExperts(layer), 0, stored, CPU)
    named = dict(module.named_parameters())
    assert named.keys() == weights.keys()
    params.load(named, weights)
    x = torch.from_numpy(x).to(DTYPES[dtype]).requires_grad_()
    y, auxiliary_loss = module(x)
    assert y.dtype == x.dtype and auxiliary_loss.dtype == stored
    ((y * torch.from_numpy(dy).to(y.dtype)).sum().to(stored) + auxiliary_loss).backward()
    gradients = {name: p.grad.double().numpy() for name, p in {**named, "x": x}.items()}
    return y.detach().double().numpy(), auxiliary_loss.item(), gradients


# --- quantization and adapters


def quantised(x, block, code):
    """Returns the codes, the scales and the values that they stand for."""
    values = torch.from_numpy(x)
    quantiser = Quantiser(code, block, values)
    codes, scales = quantiser.quantise(values)
    return codes.numpy(), scales.numpy(), quantiser.dequantise(codes, scales).numpy()


def matrix(stored_as, parts):
    return MATRIX[stored_as](**stored(stored_as, parts)).numpy()


def product(x, stored_as, parts, cotangent):
    """Returns x W and the gradient in x."""
    x = torch.from_numpy(x).requires_grad_()
    y = product_with(x, stored_as, list(stored(stored_as, parts).values()))
    y.backward(torch.from_numpy(cotangent))
    return y.detach().numpy(), x.grad.numpy()


def stored(stored_as, parts):
    """Returns the tensors that a quantised matrix is stored in, by name, its tables included."""
    return {leaf: torch.from_numpy(part) for leaf, part in (parts | TABLES[stored_as]).items()}


def adapted(x, weights, alpha, dtype):
    """Returns the output of a layer with an adapter whose rank is the width of x, and the gradient of its sum."""
    x = torch.from_numpy(x).to(DTYPES[dtype]).requires_grad_()
    linear = Linear(*weights["weight"].shape, Spec("matrix", std=1.0), bias=False)
    layer = FrozenLinear(linear, "float", x.shape[-1], alpha)
    y = params.fill(layer, weights.items(), torch.float32, CPU)(x)
    y.sum().backward()
    return y.detach().float().numpy(), x.grad.float().numpy()


# --- optimizers and the loss scaler


def optimized(config, groups, values, grads, lrs):
    """Returns the parameters to evaluate after an update with each of the gradients and learning rates."""
    tensors = parameters(values)
    optimizer = optim.make(config, tensors, groups)

    def update(lr):
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_multiplier", 1.0)
        optimizer.step()

    updates(tensors, grads, lrs, update)
    if config.kind in optim.AVERAGED:
        state = {name: entries[0] for name, entries in named_state(optimizer, tensors).items()}
        tensors = optim.AVERAGED[config.kind](config, tensors, state)
    return {name: p.detach().numpy() for name, p in tensors.items()}


def parameters(values):
    return {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in values.items()}


def updates(tensors, grads, lrs, update):
    """Calls update(lr) with each of the gradients in place."""
    for grad, lr in zip(grads, lrs, strict=True):
        for name, p in tensors.items():
            p.grad = torch.from_numpy(grad[name].copy())
        update(lr)


def library_optimizer(config, params, groups):
    """Returns an optimizer of PyTorch that no twin has."""
    return torch.optim.NAdam(param_groups(params, groups))


def orthogonal(config, u):
    return orthogonal_by_muon(torch.from_numpy(u.copy()), config.newton_schulz_steps).numpy()


def clip_factor(norm, limit):
    return float(factor(norm, limit))


def loss_scales(precision, finite):
    """Returns the loss scale after each update, of which some were not finite."""
    scaler, scales = LossScaler(precision, active=True), []
    for ok in finite:
        scaler.update(ok)
        scales.append(scaler.scale)
    return scales
