"""Mistral, Qwen3, SmolLM3, OLMo 2 and Gemma: config.json to our config and back, older formats, and errors."""

import itertools
from operator import attrgetter

import pytest

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hf import FAMILIES, exporting
from slm_core.hf.layer_types import FULL, SLIDING
from slm_core.model.compare import differences
from tests.core.hf.family_checks import again, checked

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16,
    "attention_factor": 1.3, "truncate": False,
}  # fmt: skip
ROUNDED_YARN = {name: value for name, value in YARN.items() if name != "truncate"}
LINEAR = {"rope_type": "linear", "rope_theta": 20.0, "factor": 4.0}
WINDOWS = {"use_sliding_window": True, "sliding_window": 8}
RICH = {
    "mistral": {"sliding_window": 8, "rope_parameters": YARN, "tie_word_embeddings": True, "hidden_act": "gelu"},
    "qwen3": {
        **WINDOWS, "max_window_layers": 1, "rope_parameters": LINEAR, "attention_bias": True, "head_dim": 12,
    },
    "smollm3": {
        **WINDOWS, "no_rope_layers": [0, 1, 1, 0], "rope_parameters": YARN, "tie_word_embeddings": False,
        "attention_bias": True, "mlp_bias": True,
    },
    "olmo2": {"rope_parameters": YARN, "attention_bias": True, "rms_norm_eps": 1e-3},
    "gemma2": {
        "query_pre_attn_scalar": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 8,
        "tie_word_embeddings": False, "attention_bias": True, "rope_parameters": LINEAR,
    },
    "gemma3_text": {
        "query_pre_attn_scalar": 5, "final_logit_softcapping": 3.0, "sliding_window": 8, "hidden_activation": "gelu",
        "layer_types": [SLIDING, SLIDING, FULL, FULL], "rope_parameters": {FULL: ROUNDED_YARN, SLIDING: LINEAR},
    },
}  # fmt: skip
"""{model_type: a config.json in which everything is set}, beside SIZES."""


def read(family: str, values: dict) -> Config:
    return checked(family, SIZES | values)


@pytest.mark.parametrize("family", RICH)
@pytest.mark.parametrize("values", [{}, RICH], ids=["defaults", "rich"])
def test_what_is_written_reads_as_the_same_function(family, values):
    config = read(family, values.get(family, {}))
    back = again(family, config)
    assert differences(config, back) == []
    assert differences(back, config) == []
    assert exporting.choose(config, family)[0].model_type == family


@pytest.mark.parametrize(("family", "other"), list(itertools.permutations(RICH, 2)))
def test_another_family_reads_back_as_another_function(family, other):
    config = read(family, RICH[family])
    # SmolLM3 may have a window in every layer, and so all that Mistral has.
    assert bool(differences(config, again(other, config))) != ((family, other) == ("mistral", "smollm3"))


@pytest.mark.parametrize("family", RICH)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention.kind", "mla"),
        ("attention.kind", "differential"),
        ("attention.scale", 7.0),
        ("attention.qk_norm", "l2"),
        ("attention.sinks", True),
        ("attention.gate", "head"),
        ("attention.value_residual", True),
        ("position.fraction", 0.5),
        ("norm.kind", "layernorm"),
        ("norm.kind", "dyt"),
        ("norm.placement", "parallel"),
        ("mlp.kind", "relu2"),
        ("mlp.kind", "moe"),
        ("embed_scale", 2.0),
        ("residual_multiplier", 2.0),
        ("logit_multiplier", 2.0),
    ],
)
def test_what_a_family_lacks_comes_back_otherwise(family, field, value):
    """Writing never fails, and what it leaves out is noticed."""
    config = with_values(read(family, RICH[family]), {f"model.{field}": value})
    assert f"model.{field}" in fields_that_differ(family, config)


@pytest.mark.parametrize("family", RICH)
@pytest.mark.parametrize(
    ("pattern", "field"),
    [
        ("attention.window=3 | attention.window=5", "attention.window"),
        ("position.theta=9 | position.theta=8", "position.scaling"),
        ("position.kind=alibi", "position.kind"),
        ("attention.n_heads=2 | .", "attention.n_heads"),
        ("mlp.hidden=8 | .", "mlp.hidden"),
    ],
)
def test_layers_that_a_family_does_not_tell_apart_are_noticed(family, pattern, field):
    config = with_values(read(family, {}), {"model.pattern": pattern})
    assert f"model.{field}" in fields_that_differ(family, config)


def fields_that_differ(family: str, config: Config) -> set[str]:
    return {difference.field for difference in differences(config, again(family, config))}


@pytest.mark.parametrize(
    ("family", "values", "expected"),
    [
        ("mistral", {}, {"attention.window": 4096, "position.theta": 1e4, "tie_embeddings": False}),
        ("mistral", {"sliding_window": None, "head_dim": None}, {"attention.window": 0, "attention.head_dim": 8}),
        ("qwen3", {}, {"attention.head_dim": 128, "tie_embeddings": False, "pattern": ""}),
        ("qwen3", WINDOWS | {"max_window_layers": 3}, {"pattern": "3*. | attention.window=8"}),
        ("qwen3", {"sliding_window": 8, "max_window_layers": 0}, {"pattern": ""}),
        ("smollm3", {}, {"position.theta": 2e6, "tie_embeddings": True, "pattern": "3*. | position.kind=none"}),
        ("smollm3", {"no_rope_layer_interval": 2}, {"pattern": ". | position.kind=none"}),
        ("smollm3", {"no_rope_layers": [0] * 4}, {"position.kind": "none", "position.theta": 1e4, "pattern": ""}),
        (
            "smollm3", WINDOWS | {"no_rope_layer_interval": 2},
            {"pattern": ". | attention.window=8,position.kind=none"},
        ),
        ("olmo2", {}, {"norm.eps": 1e-5, "attention.qk_norm_over": "whole", "norm.placement": "output"}),
        (
            "gemma2", {},
            {
                "attention.head_dim": 256, "attention.scale": 1 / 16, "attention.softcap": 50.0, "logit_softcap": 30.0,
                "tie_embeddings": True, "mlp.gelu": "tanh", "pattern": "attention.window=4096 | .",
            },
        ),
        (
            "gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None},
            {"attention.softcap": 0.0, "logit_softcap": 0.0},
        ),
        (
            "gemma3_text", {"sliding_window_pattern": 2},
            {"position.theta": 1e6, "pattern": "attention.window=4096,position.theta=10000.0 | ."},
        ),
        ("gemma3_text", {"sliding_window": 8}, {"position.theta": 1e4, "attention.window": 8, "pattern": ""}),
    ],
)  # fmt: skip
def test_an_absent_field_is_what_the_class_assumes_and_null_is_none(family, values, expected):
    model = read(family, values).model
    assert {name: attrgetter(name)(model) for name in expected} == expected


GEMMA3_LAYERS = {"sliding_window_pattern": 2, "sliding_window": 8}
OLDER = {
    "theta beside a scaling by type": (
        "mistral",
        {"rope_theta": 20.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": LINEAR},
    ),
    "theta without a scaling": (
        "smollm3", {"rope_theta": 7.0, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
    ),
    "layers by max_window_layers": (
        "qwen3", WINDOWS | {"max_window_layers": 2}, WINDOWS | {"layer_types": [FULL, FULL, SLIDING, SLIDING]},
    ),
    "layers by no_rope_layer_interval": (
        "smollm3", {"no_rope_layer_interval": 2}, {"no_rope_layers": [1, 0, 1, 0], "layer_types": [FULL] * 4},
    ),
    "every other layer": ("gemma2", {}, {"layer_types": [SLIDING, FULL] * 2}),
    "hidden_act that the class leaves out": ("gemma2", {"hidden_act": "gelu"}, {}),
    "scaling of full layers alone": (
        "gemma3_text",
        GEMMA3_LAYERS | {
            "rope_theta": 20.0, "rope_local_base_freq": 9.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        },
        {
            "sliding_window": 8, "layer_types": [SLIDING, FULL] * 2,
            "rope_parameters": {FULL: LINEAR, SLIDING: {"rope_type": "default", "rope_theta": 9.0}},
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("family", "older", "newer"), OLDER.values(), ids=OLDER)
def test_an_older_format_is_the_same_config(family, older, newer):
    assert read(family, older) == read(family, newer)


@pytest.mark.parametrize(
    ("family", "values", "words"),
    [
        ("mistral", {"hidden_act": "relu"}, ["hidden_act='relu'", "mistral", "'silu'"]),
        ("mistral", {"attention_bias": True}, ["attention_bias=True"]),
        ("qwen3", {"rope_parameters": {"rope_type": "longrope"}}, ["rope_type='longrope'", "yarn"]),
        ("qwen3", {"rope_parameters": LINEAR | {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor=0.5"]),
        ("qwen3", {"layer_types": ["chunked_attention"] * 4}, ["'chunked_attention'", "layer_types"]),
        ("qwen3", {"layer_types": [FULL] * 3}, ["layer_types names 3", "num_hidden_layers=4"]),
        ("qwen3", {"layer_types": [SLIDING] * 4, "sliding_window": 8}, ["use_sliding_window=False", "layer_types"]),
        ("qwen3", {"mlp_bias": True}, ["mlp_bias=True"]),
        ("smollm3", {"no_rope_layers": [1, 0]}, ["no_rope_layers names 2", "num_hidden_layers=4"]),
        ("olmo2", {"intermediate_size": None}, ["intermediate_size=null", "olmo2", "a whole number"]),
        ("gemma2", {"use_bidirectional_attention": True}, ["use_bidirectional_attention=True"]),
        ("gemma2", {"hidden_activation": "silu2"}, ["hidden_activation='silu2'"]),
        ("gemma2", {"sliding_window": None}, ["sliding_window=None"]),
        ("gemma2", {"num_attention_heads": 6}, ["num_attention_heads=6", "hidden_size=32"]),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, ["attn_logit_softcapping=50.0"]),
        ("gemma3_text", {"vision_config": {"hidden_size": 8}}, ["vision_config", "gemma3_text"]),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_line(family, values, words):
    with pytest.raises(UserError) as caught:
        read(family, values)
    message = str(caught.value)
    assert message.startswith("config.json") and "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("family", RICH)
def test_every_tensor_has_one_rule(family):
    config = read(family, RICH[family])
    rules = list(FAMILIES[family].rules(config))
    names, hf_names = ([name for rule in rules for name in getattr(rule, side)] for side in ("names", "hf_names"))
    assert len(set(names)) == len(names) == len(set(hf_names)) == len(hf_names)
    assert len(names) > len(layer_specs(config.model)) * 7
