"""Multipliers that a family lacks go into weights, or the family is not chosen."""

import pytest

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.hf import FAMILIES, exporting
from slm_core.hf.folding import FOLDED, factor_of, factors
from slm_core.model.compare import differences

LLAMA = Config()
MULTIPLIERS = {
    "model.embed_scale": 4.0, "model.residual_multiplier": 0.5, "model.logit_multiplier": 3.0,
    "model.attention.scale": 1.0,
}  # fmt: skip


def folded(values: dict, family: str) -> dict[str, float]:
    """Returns {weight: its factor} for a model of a family that lacks the multipliers."""
    needed = with_values(LLAMA, MULTIPLIERS | values)
    offered = FAMILIES[family].config(FAMILIES[family].write(needed))
    assert {difference.field for difference in differences(needed, offered)} == FOLDED
    found = factors(needed, offered)
    names = [name for rule in FAMILIES[family].rules(offered) for name in rule.names]
    factor = {name: factor_of(name, found) for name in names}
    return {name: value for name, value in factor.items() if value != 1 and not name.startswith("layers.1")}


def test_a_head_of_its_own_and_the_last_layers_of_each_half_take_multipliers_over():
    assert folded({"model.tie_embeddings": False, "model.n_layers": 2}, "llama") == {
        "embed.weight": 4.0, "head.weight": 3.0, "layers.0.attention.q_proj.weight": pytest.approx(32**0.5),
        "layers.0.attention.o_proj.weight": 0.5, "layers.0.mlp.down_proj.weight": 0.5,
    }  # fmt: skip


def test_the_final_norm_takes_over_what_a_tied_embedding_cannot():
    found = folded({"model.n_layers": 2}, "llama")
    assert found["embed.weight"] == 4.0 and found["final_norm.weight"] == 0.75


def test_norms_that_end_a_half_take_its_multiplier_over():
    values = {"model.norm.placement": "output", "model.attention.qk_norm": "rmsnorm"}
    found = folded(values | {"model.attention.qk_norm_over": "whole", "model.n_layers": 2}, "olmo2")
    assert found["layers.0.attention_norm.weight"] == found["layers.0.mlp_norm.weight"] == 0.5
    assert found["layers.0.attention.q_norm.norm.weight"] == pytest.approx(32**0.5)
    assert "layers.0.attention.o_proj.weight" not in found


def test_a_family_that_has_the_multipliers_comes_first():
    assert exporting.choose(with_values(LLAMA, MULTIPLIERS))[0].model_type == "granite"
    assert exporting.choose(with_values(LLAMA, {"model.mup_base_width": 32}))[0].model_type == "granite"


def test_norms_that_cannot_take_a_multiplier_over_are_refused():
    """m (1 + w) is not 1 + m w."""
    values = {
        "model.norm.placement": "sandwich", "model.norm.weight": "one_plus", "model.mlp.kind": "geglu",
        "model.mlp.gelu": "tanh", "model.embed_scale": 128**0.5,
    }  # fmt: skip
    assert exporting.choose(with_values(LLAMA, values))[0].model_type == "gemma2"
    with pytest.raises(UserError, match=r"model.residual_multiplier=0.5 cannot be exported"):
        exporting.choose(with_values(LLAMA, values | {"model.residual_multiplier": 0.5}))
