"""DeepSeek-V3: the scale of scores, the epsilon of latents, and tensors that it leaves out."""

import numpy as np
import pytest

from slm_core.config import Config
from slm_core.hf.families.deepseek_v3 import DEEPSEEK_V3

VALUES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "q_lora_rank": 16, "kv_lora_rank": 12,
    "qk_nope_head_dim": 6, "qk_rope_head_dim": 8,
    "v_head_dim": 10, "n_routed_experts": 8, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3,
}  # fmt: skip


def read(values: dict) -> Config:
    return DEEPSEEK_V3.config(VALUES | values)


def test_scores_of_scaled_latent_attention_have_the_square_of_a_temperature():
    """DeepSeek-V3's own factor 40 with both multipliers 1: the turned features keep their length."""
    rope = {
        "rope_type": "yarn", "original_max_position_embeddings": 16, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
    }  # fmt: skip
    model = read({"rope_parameters": rope}).model
    assert model.attention.scale == pytest.approx((0.1 * np.log(40) + 1) ** 2 / 14**0.5, rel=1e-12)
    assert model.position.attention_factor == 1.0


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 1e-2])
def test_latents_are_normed_with_an_epsilon_of_their_own(eps):
    """The class norms latents with 1e-6; ours, with norm.eps, gives the same for the weights that the rule makes."""
    config = read({"rms_norm_eps": eps})
    rules = {name: rule for rule in DEEPSEEK_V3.rules(config) for name in rule.names}
    generator = np.random.default_rng(0)
    x = 1e-3 * generator.standard_normal((5, 32))

    def normed(latent, eps):
        return latent / np.sqrt(np.square(latent).mean(-1, keepdims=True) + eps)

    for name, rows, rank in (("q_down_proj", 16, 16), ("kv_down_proj", 20, 12)):
        rule = rules[f"layers.0.attention.{name}.weight"]
        hf_weight = generator.standard_normal((rows, 32))
        weights = rule.layout.from_hf([hf_weight])
        np.testing.assert_allclose(normed(x @ weights[0], eps), normed(x @ hf_weight[:rank].T, 1e-6), rtol=1e-12)
        np.testing.assert_allclose(rule.layout.to_hf(weights)[0], hf_weight, rtol=1e-14)


def test_a_checkpoint_may_have_tensors_that_the_logits_do_not_need():
    unused = DEEPSEEK_V3.unused
    assert unused(read({"first_k_dense_replace": 0})) == ("model.layers.4.",)
    without = unused(read({"n_shared_experts": 0}))
    assert "model.layers.3.mlp.shared_experts.up_proj.weight".startswith(without)
    assert not "model.layers.3.mlp.up_proj.weight".startswith(without)
