"""The weights with which a run is evaluated: averages, and merged adapters."""

import numpy as np

from slm_core.config import Config, Finetune, Optim
from slm_core.runs.weights import evaluated, without_adapters


def test_the_evaluated_parameters():
    y, z = np.array([1.0, 2.0], np.float32), np.array([0.0, 4.0], np.float32)
    state = {"params/w": y, "params/balance": y, "optim/z/w": z, "optim/v/w": z, "optim/count": np.array(3)}
    trained = evaluated(state, Config())
    assert trained.keys() == {"w", "balance"} and trained["w"] is y
    averages = evaluated(state, Config(optim=Optim(kind="schedule_free", betas=(0.8, 0.9), schedule="constant")))
    np.testing.assert_allclose(averages["w"], [1.25, 1.5], rtol=1e-6)
    assert averages["w"].dtype == np.float32 and averages["balance"] is y


def test_adapters_are_merged_and_their_averages_are_taken():
    config = Config(
        optim=Optim(kind="schedule_free", betas=(0.5, 0.9), schedule="constant"),
        finetune=Finetune(kind="lora", rank=1, alpha=2.0),
    )
    w, a, b = np.eye(2, dtype=np.float32), np.ones((2, 1), np.float32), np.array([[3.0, 0.0]], np.float32)
    state = {"params/q.weight": w, "params/q.bias": w[0], "params/q.lora_a": a, "params/q.lora_b": b}
    state |= {"optim/z/q.lora_a": a, "optim/z/q.lora_b": b - 1, "optim/count": np.array(1)}
    merged = evaluated(state, config)
    assert merged.keys() == {"q.weight", "q.bias"} and merged["q.weight"].dtype == np.float32
    np.testing.assert_array_equal(merged["q.weight"], w + 2 * a @ (b + 1))
    assert without_adapters(config).finetune == Finetune() and without_adapters(config).optim == config.optim
