"""The PyTorch layers against the papers' formulas, in float64."""

from functools import partial

import layer_checks as checks
import numpy as np
import pytest
import torch

from slm_core.config import Config
from slm_core.model.initialization import Spec
from slm_torch import layers, params
from slm_torch.layers.dropout import keep_mask
from slm_torch.layers.placement import PLACEMENT
from slm_torch.loss import loss_sums, sums, token_losses
from slm_torch.model import Transformer, position_at


def tensor(value):
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


class Twin:
    float64 = torch.float64
    placements = PLACEMENT
    module = torch.nn.Module
    array = staticmethod(tensor)

    def kernel(self, name):
        def run(*arrays, **options):
            options = {key: tensor(value) for key, value in options.items()}
            return layers.KERNEL[name](*map(tensor, arrays), **options).numpy()

        return run

    def apply(self, registry, kind, arguments, weights, *inputs):
        y = self._filled(getattr(layers, registry)[kind](*arguments), weights)(*map(tensor, inputs))
        return (y[0] if registry == "MLP" else y).detach().numpy()  # beside its output, an MLP has an auxiliary loss

    def hidden(self, config, weights, tokens):
        model = Transformer(config, len(weights["embed.weight"]), torch.float64)
        return self._filled(model, weights)(tensor(tokens))[0].detach().numpy()

    def attention(self, model, index, weights, x, first_values):
        position = partial(position_at, layer=model, context=9)
        module = layers.ATTENTION[model.attention.kind](model, index, layers.KERNEL["dot_product"], position)
        found = self._filled(module, weights)(tensor(x), 0, None, tensor(first_values))
        return [y.detach().numpy() for y in found]

    def keep_mask(self, key, shape, first_row, rate):
        bits = torch.from_numpy(np.array(key, np.uint32).view(np.int32))
        return keep_mask(bits, torch.Size(shape), first_row, rate).numpy()

    def token_losses(self, logits, targets):
        return token_losses(tensor(logits), tensor(targets)).numpy()

    def losses(self, logits, targets, z_loss):
        return [float(value) for value in sums(tensor(logits), tensor(targets), z_loss)]

    def loss_and_gradients(self, config, vocab, hidden, targets, chunk):
        model = Transformer(Config(model=config), vocab, self.float64)
        model = params.initialise(model, 0, self.float64, torch.device("cpu"))
        hidden = tensor(hidden).requires_grad_()
        found = loss_sums(model, hidden, 0.5, tensor(targets), chunk)
        gradients = torch.autograd.grad(found.objective, (hidden, model.head.weight))
        return [x.detach().numpy() for x in (*found, *gradients)]

    def _filled(self, module, weights):
        module = params.initialise(module, 0, torch.float64, torch.device("cpu"))
        params.load(dict(module.named_parameters()), weights)
        return module


TWIN = Twin()


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_layers(check):
    check(TWIN)


@pytest.mark.parametrize("name", layers.KERNEL)
@pytest.mark.parametrize("case", checks.KERNEL_CASES, ids=str)
def test_kernel(name, case):
    checks.check_kernel(TWIN.kernel(name), **case)


@pytest.mark.parametrize("name", layers.KERNEL)
def test_kernel_with_everything(name):
    checks.check_kernel_with_everything(TWIN.kernel(name))


@pytest.mark.parametrize("name", layers.KERNEL)
def test_kernel_hides_the_unwritten_cache(name):
    checks.check_unwritten_cache_is_hidden(TWIN.kernel(name))


def test_specs_are_kept():
    parameter = params.declare((2,), Spec("bias"))
    assert parameter.is_meta and parameter.spec == Spec("bias")
