"""Mamba-2 and Qwen3-Next: recurrent mixers in a config.json, and in the tensors of a checkpoint."""

import json

import numpy as np
import pytest

from slm_core.config import Config, Data, Mixer, Mlp, Model
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf import FAMILIES
from slm_core.hf.exporting import choose
from slm_core.model.compare import differences
from tests.core.hf.family_checks import again, checked

EXAMPLES = {name: FAMILIES[name].examples[""] for name in ("mamba2", "qwen3_next")}


def read(family: str, values: dict) -> Config:
    return checked(family, dict(EXAMPLES[family]) | values)


def test_the_blocks_of_mamba2_are_mixers_alone():
    layers = layer_specs(read("mamba2", {"n_groups": 4}).model)
    assert [(layer.mixer.kind, layer.mixer.key_heads, layer.mlp.kind) for layer in layers] == [
        ("mamba2", 4, "none"), ("mamba2", 4, "none"),
    ]  # fmt: skip
    assert layers[0].mixer.convolution_bias and layers[0].norm.eps == 1e-5


@pytest.mark.parametrize("limit", ["[0.0, Infinity]", '[0.0, {"__float__": "Infinity"}]'])
def test_no_limit_of_the_steps_is_read_as_older_and_newer_classes_write_it(limit):
    assert read("mamba2", {"time_step_limit": json.loads(limit)}) == read("mamba2", {})


def test_three_of_four_layers_of_qwen3_next_are_recurrent_by_default():
    without = {name: value for name, value in EXAMPLES["qwen3_next"].items() if name != "full_attention_interval"}
    config = checked("qwen3_next", without | {"num_hidden_layers": 8})
    kinds = [layer.mixer.kind for layer in layer_specs(config.model)]
    assert kinds == 2 * [*3 * ["gated_delta"], "attention"]


@pytest.mark.parametrize("kinds", [["full_attention"] * 2, ["linear_attention"] * 2])
def test_layers_of_one_type_come_back_as_they_were(kinds):
    config = read("qwen3_next", {"layer_types": kinds})
    assert differences(config, again("qwen3_next", config)) == []


def test_a_hybrid_trained_here_goes_out():
    """Its layers with attention need not be the last of four, nor its MLPs mixtures."""
    model = Model(
        n_layers=3, mixer=Mixer(kind="gated_delta", n_heads=4, key_heads=2), pattern=". | mixer.kind=attention | ."
    )
    fields = {"attention.qk_norm": "rmsnorm", "attention.gate": "element", "norm.weight": "one_plus", "norm.eps": 1e-6}

    config = with_values(Config(model=model), {f"model.{name}": value for name, value in fields.items()})
    family, written = choose(config)
    assert family.model_type == "qwen3_next" and written["mlp_only_layers"] == [0, 1, 2]


def test_mamba2_goes_out_without_a_bias_of_its_convolution():
    model = Model(mixer=Mixer(kind="mamba2", n_heads=4), mlp=Mlp(kind="none"))
    family, written = choose(Config(model=model, data=Data(seq_len=64)))
    assert (family.model_type, written["use_conv_bias"], written["n_groups"]) == ("mamba2", False, 1)


@pytest.mark.parametrize("field", ["mlp.kind=swiglu", "mixer.convolution=0", "mixer.value_dim=20"])
def test_another_mamba2_does_not_go_out(field):

    config = Config(model=Model(mixer=Mixer(kind="mamba2", n_heads=4), mlp=Mlp(kind="none")))
    name, _, value = field.partition("=")
    with pytest.raises(UserError):
        choose(with_values(config, {f"model.{name}": int(value) if value.isdigit() else value}))


def test_the_norm_of_a_head_is_a_plain_one_among_norms_with_one_plus():
    config = read("qwen3_next", {})
    rules = {name: rule for rule in FAMILIES["qwen3_next"].rules(config) for name in rule.names}
    layout, weight = rules["layers.0.mixer.head_norm.weight"].layout, np.array([0.5, 1.0, 2.0])
    np.testing.assert_array_equal(layout.from_hf([weight])[0], weight - 1)
    np.testing.assert_array_equal(layout.to_hf(layout.from_hf([weight]))[0], weight)


@pytest.mark.parametrize(
    ("family", "values", "words"),
    [
        ("mamba2", {"use_bias": True}, ["use_bias=True"]),
        ("mamba2", {"hidden_act": "gelu"}, ["hidden_act='gelu'", "'silu'"]),
        ("mamba2", {"num_heads": 6}, ["num_heads=6", "hidden_size=32"]),
        ("mamba2", {"n_groups": 3}, ["n_groups=3", "num_heads=8"]),
        ("mamba2", {"time_step_limit": [0.0, 1.0]}, ["time_step_limit=[0.0, 1.0]"]),
        ("qwen3_next", {"hidden_act": "gelu"}, ["hidden_act='gelu'"]),
        ("qwen3_next", {"rms_norm_eps": 1e-5}, ["rms_norm_eps=1e-05", "1e-06"]),
        ("qwen3_next", {"linear_num_key_heads": 3}, ["linear_num_key_heads=3", "linear_num_value_heads=16"]),
        ("qwen3_next", {"layer_types": ["sliding_attention"] * 2}, ["'sliding_attention'", "'linear_attention'"]),
        ("qwen3_next", {"layer_types": ["full_attention"]}, ["layer_types names 1", "num_hidden_layers=2"]),
        ("qwen3_next", {"shared_expert_intermediate_size": 50}, ["=50 of a qwen3_next model", "=24"]),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_in_one_line(family, values, words):
    with pytest.raises(UserError) as caught:
        read(family, values)
    message = str(caught.value)
    assert message.startswith("config.json") and "\n" not in message
    assert [word for word in words if word not in message] == []
