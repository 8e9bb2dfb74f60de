"""Operations per update, counted on the traced model, against the formula of PaLM's appendix B."""

import pytest

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_torch.flops import update_flops


def palm(config: Config, matrices: int) -> float:
    """6 per matrix weight and token, 12 layers width positions per token (https://arxiv.org/abs/2204.02311)."""
    tokens = config.train.batch_size * config.data.seq_len
    model = config.model
    return tokens * (6 * matrices + 12 * model.n_layers * model.d_model * config.data.seq_len)


@pytest.mark.parametrize(
    "fields",
    [{}, {"data.seq_len": 64}, {"model.n_layers": 2}, {"train.batch_size": 3}, {"memory.remat": "block"},
     {"memory.loss_chunk": 100}, {"model.attention.kernel": "flash"}],
    ids=str,
)  # fmt: skip
def test_the_default_model_does_what_the_formula_says(fields):
    config = with_values(Config(), fields)
    layers = config.model.n_layers
    block = 128 * (128 + 2 * 32 * config.model.attention.n_kv_heads + 128) if config.model.attention.n_kv_heads else 0
    block = block or 4 * 128 * 128
    matrices = layers * (block + 3 * 128 * 352) + 256 * 128  # the tied embedding is the head
    assert update_flops(config, 256) == palm(config, matrices)


def test_an_optimizer_with_matrix_products_counts():
    assert update_flops(with_values(Config(), {"optim.kind": "muon"}), 256) > update_flops(Config(), 256)
