"""Mixtures, latent attention, gpt-oss, GPT-NeoX, BLOOM and MPT: config.json to ours and back, older formats, what is
refused."""

import itertools
from operator import attrgetter

import pytest

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.hf import FAMILIES, exporting
from slm_core.hf.families.gpt_oss import YARN as GPT_OSS_YARN
from slm_core.hf.layer_types import FULL, SLIDING
from slm_core.model.compare import differences
from tests.core.hf.family_checks import again, checked

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
KV = {"num_key_value_heads": 4}
NEEDED = {
    "mixtral": SIZES | KV, "qwen3_moe": SIZES | KV, "deepseek_v3": SIZES | KV, "gpt_oss": SIZES | KV, "gpt_neox": SIZES,
    "bloom": {"vocab_size": 96, "hidden_size": 32, "n_layer": 4, "n_head": 4},
    "mpt": {"vocab_size": 96, "d_model": 32, "n_layers": 4, "n_heads": 4},
}  # fmt: skip
"""{model_type: a config.json that leaves all it can to the class}."""
YARN = {
    "rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16, "truncate": False,
    "beta_fast": 4.0, "beta_slow": 0.5,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 20.0, "factor": 4.0}
BALANCED = {"output_router_logits": True, "router_aux_loss_coef": 0.02}
RICH = {
    "mixtral": BALANCED | {
        "num_key_value_heads": 2, "head_dim": 12, "num_local_experts": 5, "num_experts_per_tok": 3,
        "sliding_window": 8, "rope_parameters": YARN, "tie_word_embeddings": True, "hidden_act": "gelu",
    },
    "qwen3_moe": BALANCED | {
        "num_key_value_heads": 2, "head_dim": 12, "num_experts": 5, "num_experts_per_tok": 3,
        "moe_intermediate_size": 24, "mlp_only_layers": [3], "decoder_sparse_step": 2, "norm_topk_prob": True,
        "use_sliding_window": True, "sliding_window": 8, "rope_parameters": LINEAR, "attention_bias": True,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 8,
        "v_head_dim": 10, "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_group": 4,
        "topk_group": 2, "n_shared_experts": 2, "first_k_dense_replace": 2, "routed_scaling_factor": 1.7,
        "norm_topk_prob": False, "rope_parameters": YARN | {"mscale": 1.5, "mscale_all_dim": 0.7},
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
    "gpt_oss": BALANCED | {
        "num_key_value_heads": 2, "head_dim": 12, "num_local_experts": 5, "num_experts_per_tok": 3,
        "sliding_window": 8, "layer_types": [FULL, SLIDING, SLIDING, FULL], "rope_parameters": YARN,
        "attention_bias": False, "tie_word_embeddings": True,
    },
    "gpt_neox": {
        "use_parallel_residual": False, "rope_parameters": YARN | {"partial_rotary_factor": 0.5},
        "tie_word_embeddings": True, "attention_bias": False, "hidden_act": "gelu_fast", "layer_norm_eps": 1e-3,
    },
    "bloom": {"seq_length": 64, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False},
    "mpt": {
        "max_seq_len": 64, "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False,
        "attn_config": {"softmax_scale": 0.7},
    },
}  # fmt: skip
"""{model_type: a config.json in which everything is set}, beside NEEDED."""
SMALL = {"deepseek_v3": {"q_lora_rank": None, "qk_nope_head_dim": 6, "qk_rope_head_dim": 8, "v_head_dim": 10}}
"""Fields beside NEEDED, for tests in which the widths that the class assumes do not matter."""


def read(family: str, values: dict) -> Config:
    return checked(family, NEEDED[family] | values)


@pytest.mark.parametrize("family", RICH)
@pytest.mark.parametrize("values", [SMALL, RICH], ids=["defaults", "rich"])
def test_what_is_written_reads_as_the_same_function(family, values):
    config = read(family, values.get(family, {}))
    back = again(family, config)
    assert differences(config, back) == []
    assert differences(back, config) == []
    assert exporting.choose(config)[0].model_type == exporting.choose(config, family)[0].model_type == family


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_the_balancing_loss_is_written(family):
    config = read(family, RICH[family])
    assert config.model.mlp.balance_loss == again(family, config).model.mlp.balance_loss == 0.02
    assert read(family, {"router_aux_loss_coef": 0.02}).model.mlp.balance_loss == 0


@pytest.mark.parametrize(("family", "other"), list(itertools.permutations(RICH, 2)))
def test_another_family_reads_back_as_another_function(family, other):
    assert differences(read(family, RICH[family]), again(other, read(family, RICH[family])))


LACKING = [
    ("attention.kind", "differential"),
    ("attention.softcap", 2.0),
    ("attention.qk_norm", "l2"),
    ("attention.gate", "head"),
    ("attention.value_residual", True),
    ("position.kind", "t5"),
    ("norm.kind", "dyt"),
    ("norm.weight", "one_plus"),
    ("norm.placement", "sandwich"),
    ("mlp.kind", "clipped_swiglu"),
    ("embed_scale", 2.0),
    ("residual_multiplier", 2.0),
    ("logit_multiplier", 2.0),
    ("logit_softcap", 2.0),
]
OWN = [
    ("mixtral", "mlp.kind", "swiglu"),
    ("mixtral", "mlp.expert", "relu2"),
    ("mixtral", "mlp.renormalise", False),
    ("mixtral", "mlp.shared_experts", 1),
    ("mixtral", "mlp.router", "sigmoid"),
    ("mixtral", "mlp.groups", 5),
    ("mixtral", "mlp.routed_scale", 2.0),
    ("mixtral", "mlp.balance_bias", 0.001),
    ("mixtral", "mlp.bias", True),
    ("mixtral", "attention.bias", True),
    ("mixtral", "attention.scale", 2.0),
    ("qwen3_moe", "attention.qk_norm", "none"),
    ("qwen3_moe", "mlp.router_bias", True),
    ("deepseek_v3", "attention.kind", "gqa"),
    ("deepseek_v3", "attention.scale", 2.0),
    ("deepseek_v3", "attention.window", 8),
    ("deepseek_v3", "attention.bias", True),
    ("deepseek_v3", "attention.sinks", True),
    ("deepseek_v3", "mlp.router", "softmax"),
    ("gpt_oss", "attention.sinks", False),
    ("gpt_oss", "mlp.expert", "swiglu"),
    ("gpt_oss", "mlp.renormalise", False),
    ("gpt_neox", "norm.placement", "parallel_shared"),
    ("gpt_neox", "mlp.kind", "swiglu"),
    ("gpt_neox", "attention.n_kv_heads", 2),
    ("gpt_neox", "attention.head_dim", 16),
    ("bloom", "embed_norm", False),
    ("bloom", "mlp.hidden", 48),
    ("bloom", "mlp.gelu", "erf"),
    ("mpt", "norm.bias", True),
    ("mpt", "mlp.hidden", 48),
    ("mpt", "mlp.bias", True),
    ("mpt", "position.kind", "learned"),
]
"""Fields that one family cannot express, beside LACKING."""


@pytest.mark.parametrize(("family", "field", "value"), [(f, *case) for f in RICH for case in LACKING] + OWN)
def test_what_a_family_lacks_comes_back_otherwise(family, field, value):
    """Writing never fails, and what it leaves out is noticed."""
    config = with_values(read(family, RICH[family]), {f"model.{field}": value})
    assert f"model.{field}" in {difference.field for difference in differences(config, again(family, config))}


@pytest.mark.parametrize("family", RICH)
@pytest.mark.parametrize(
    ("pattern", "field"),
    [
        ("attention.window=3 | attention.window=5", "attention.window"),
        ("attention.n_heads=2 | .", "attention.n_heads"),
        ("mlp.hidden=8 | mlp.hidden=16 | .", "mlp.hidden"),
        ("mlp.kind=relu2 | .", "mlp.kind"),
        ("norm.eps=0.5 | .", "norm.eps"),
    ],
)
def test_layers_that_a_family_does_not_tell_apart_are_noticed(family, pattern, field):
    config = with_values(read(family, SMALL.get(family, {})), {"model.pattern": pattern})
    assert f"model.{field}" in {difference.field for difference in differences(config, again(family, config))}


MIXTRAL_BASE = {"mlp.kind": "moe", "mlp.expert": "swiglu", "mlp.renormalise": True, "mlp.balance_loss": 0.0}


@pytest.mark.parametrize(
    ("family", "values", "expected"),
    [
        ("mixtral", {}, MIXTRAL_BASE | {"mlp.experts": 8, "mlp.top_k": 2, "position.theta": 1e6, "norm.eps": 1e-5}),
        ("mixtral", {"sliding_window": None}, {"attention.window": 0}),
        (
            "qwen3_moe", {},
            {"mlp.experts": 128, "mlp.top_k": 8, "mlp.hidden": 768, "mlp.renormalise": False, "attention.window": 0},
        ),
        ("qwen3_moe", {"sliding_window": 8}, {"attention.window": 0, "attention.head_dim": 8, "pattern": ""}),
        (
            "qwen3_moe", {"decoder_sparse_step": 2},
            {"mlp.kind": "moe", "pattern": "mlp.kind=swiglu,mlp.hidden=48 | ."},
        ),
        ("qwen3_moe", {"mlp_only_layers": [0, 1, 2, 3]}, {"mlp.kind": "swiglu", "mlp.hidden": 48, "pattern": ""}),
        ("qwen3_moe", {"num_experts": 0}, {"mlp.kind": "swiglu", "mlp.hidden": 48, "pattern": ""}),
        (
            "deepseek_v3", {},
            {
                "attention.kind": "mla", "attention.q_rank": 1536, "attention.kv_rank": 512, "attention.head_dim": 128,
                "attention.rope_dim": 64, "attention.v_dim": 128, "attention.scale": None, "mlp.experts": 256,
                "mlp.groups": 8, "mlp.top_groups": 4, "mlp.shared_experts": 1, "mlp.routed_scale": 2.5,
                "mlp.balance_loss": 0.0, "mlp.balance_bias": 0.001, "norm.eps": 1e-6, "mlp.hidden": 2048,
                "pattern": "3*mlp.kind=swiglu,mlp.hidden=48 | .",
            },
        ),
        ("deepseek_v3", {"q_lora_rank": None, "first_k_dense_replace": 0}, {"attention.q_rank": None, "pattern": ""}),
        ("deepseek_v3", {"first_k_dense_replace": 9}, {"mlp.kind": "swiglu", "mlp.hidden": 48, "pattern": ""}),
        (
            "gpt_oss", {},
            {
                "attention.head_dim": 64, "attention.bias": True, "attention.sinks": True,
                "mlp.expert": "clipped_swiglu", "mlp.bias": True, "mlp.router_bias": True, "mlp.experts": 128,
                "mlp.top_k": 4, "norm.eps": 1e-5,
                "position.theta": 150_000.0, "position.scaling": "yarn", "position.scaling_factor": 32.0,
                "position.truncate": False, "position.original_context": 4096, "pattern": "attention.window=128 | .",
            },
        ),
        (
            "gpt_neox", {},
            {
                "position.fraction": 0.25, "position.theta": 1e4, "norm.placement": "parallel", "attention.bias": True,
                "mlp.gelu": "erf", "tie_embeddings": False,
            },
        ),
        ("gpt_neox", {"rope_parameters": {"partial_rotary_factor": 0.3}}, {"position.fraction": 0.25}),
        ("gpt_neox", {"hidden_act": "relu2"}, {"mlp.kind": "relu2"}),
        (
            "bloom", {},
            {
                "embed_norm": True, "position.kind": "alibi", "mlp.hidden": 128, "mlp.gelu": "tanh",
                "tie_embeddings": True,
            },
        ),
        (
            "mpt", {},
            {
                "norm.bias": False, "position.kind": "alibi", "mlp.hidden": 128, "mlp.gelu": "erf",
                "attention.scale": None,
            },
        ),
    ],
)  # fmt: skip
def test_an_absent_field_is_what_the_class_assumes_and_null_is_none(family, values, expected):
    model = read(family, values).model
    assert {name: attrgetter(name)(model) for name in expected} == expected


def test_contexts_that_older_families_name_otherwise_or_not_at_all():
    contexts = {
        "bloom": ({"seq_length": 64}, 2048),
        "mpt": ({"max_seq_len": 64}, 2048),
        "gpt_neox": ({"max_position_embeddings": 64}, 64),
    }
    for family, (values, default) in contexts.items():
        assert read(family, values).data.seq_len == 64
        assert read(family, {}).data.seq_len == default


@pytest.mark.parametrize("width", [32, 45, 47, 98])
def test_a_share_of_a_head_turns_as_many_features_after_it_was_written(width):
    """The class rounds share times width down: 26 of 45 must not come back as 25."""
    for turned in range(2, width + 1, 2):
        values = {"hidden_size": 4 * width, "rope_parameters": {"partial_rotary_factor": (turned + 0.5) / width}}
        config = read("gpt_neox", values)
        assert differences(config, again("gpt_neox", config)) == []


OLDER = {
    "rotary_pct": (
        "gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 20, "rope_scaling": None},
        {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 20.0}},
    ),
    "rotary_pct beside a scaling by type": (
        "gpt_neox",
        {"rotary_pct": 1.0, "rotary_emb_base": 20, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": LINEAR | {"partial_rotary_factor": 1.0}},
    ),
    "fields of its first code": (
        "gpt_neox", {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "hidden_act": "gelu_fast"},
        {"hidden_act": "gelu_new"},
    ),
    "n_embed": (
        "bloom",
        {
            "hidden_size": None, "n_embed": 32, "n_head": None, "num_attention_heads": 4, "n_layer": None,
            "num_hidden_layers": 4, "n_inner": None, "offset_alibi": 100, "skip_bias_add": True,
        },
        {},
    ),
    "theta beside a scaling": (
        "mixtral",
        {"rope_theta": 20.0, "rope_scaling": {"type": "linear", "factor": 4.0}, "num_local_experts": 5},
        {"rope_parameters": LINEAR, "num_experts": 5},
    ),
    "num_experts": (
        "qwen3_moe", {"num_experts": 5, "num_experts_per_tok": 2, "rope_theta": 1e6, "rope_scaling": None},
        {"num_local_experts": 5, "num_experts_per_tok": 2, "rope_parameters": {"rope_theta": 1e6}},
    ),
    "DeepSeek's own code": (
        "deepseek_v3",
        {
            "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1, "ep_size": 1, "seq_aux": True,
            "aux_loss_alpha": 0.001, "num_nextn_predict_layers": 1, "rope_theta": 50.0, "pretraining_tp": 1,
            "rope_scaling": {
                "type": "yarn", "factor": 4, "original_max_position_embeddings": 16, "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
        },
        {
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "original_max_position_embeddings": 16,
                "attention_factor": 1.0, "mscale_all_dim": 1.0,
            },
        },
    ),
    "gpt-oss's own code": (
        "gpt_oss",
        {
            "rope_scaling": GPT_OSS_YARN, "rope_theta": 150000, "initial_context_length": 4096, "experts_per_token": 4,
            "swiglu_limit": 7.0,
        },
        {},
    ),
    "MPT's own code": (
        "mpt",
        {
            "attn_config": {"alibi": True, "attn_impl": "torch", "qk_ln": False, "clip_qkv": None}, "logit_scale": None,
            "learned_pos_emb": True, "embedding_fraction": 1.0, "verbose": 0, "init_config": {}, "tokenizer_name": "x",
        },
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("family", "older", "newer"), OLDER.values(), ids=OLDER)
def test_an_older_format_is_the_same_config(family, older, newer):
    assert read(family, older) == read(family, newer)


@pytest.mark.parametrize(
    ("family", "values", "words"),
    [
        ("mixtral", {"hidden_act": "gelu_new"}, ["hidden_act='gelu_new'", "mixtral", "'silu'"]),
        ("mixtral", {"attention_bias": True}, ["attention_bias=True"]),
        ("mixtral", {"rope_parameters": {"rope_type": "dynamic"}}, ["rope_type='dynamic'", "yarn"]),
        ("qwen3_moe", {"mlp_bias": True}, ["mlp_bias=True"]),
        ("qwen3_moe", {"intermediate_size": None}, ["intermediate_size=null", "qwen3_moe"]),
        ("deepseek_v3", {"attention_bias": True}, ["attention_bias=True"]),
        ("deepseek_v3", {"mlp_bias": True}, ["mlp_bias=True"]),
        ("deepseek_v3", {"rope_interleave": False}, ["rope_interleave=False"]),
        ("deepseek_v3", {"scoring_func": "softmax"}, ["scoring_func='softmax'", "'sigmoid'"]),
        ("deepseek_v3", {"topk_method": "greedy"}, ["topk_method='greedy'"]),
        ("deepseek_v3", {"moe_layer_freq": 2}, ["moe_layer_freq=2"]),
        ("deepseek_v3", {"num_key_value_heads": 2}, ["num_key_value_heads=2", "only 4"]),
        ("gpt_oss", {"swiglu_limit": 5.0}, ["swiglu_limit=5.0", "only 7.0"]),
        ("gpt_oss", {"swiglu_alpha": 1.0}, ["swiglu_alpha=1.0"]),
        ("gpt_oss", {"layer_types": [FULL] * 3}, ["layer_types names 3", "num_hidden_layers=4"]),
        ("gpt_oss", {"sliding_window": None}, ["sliding_window=None"]),
        ("gpt_neox", {"hidden_act": "silu"}, ["hidden_act='silu'", "gpt_neox"]),
        ("gpt_neox", {"num_attention_heads": 6}, ["num_attention_heads=6", "hidden_size=32"]),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, ["post_layernorm=True", "only False"]),
        ("bloom", {"n_inner": 64}, ["n_inner=64", "or 128"]),
        ("bloom", {"n_head": 5}, ["n_head=5", "hidden_size=32"]),
        ("mpt", {"no_bias": False}, ["no_bias=False"]),
        ("mpt", {"expansion_ratio": 2}, ["expansion_ratio=2", "only 4"]),
        ("mpt", {"logit_scale": 2.0}, ["logit_scale=2.0"]),
        ("mpt", {"norm_type": "rmsnorm"}, ["norm_type='rmsnorm'"]),
        ("mpt", {"attn_config": {"alibi": False}}, ["alibi=False", "attn_config"]),
        ("mpt", {"attn_config": {"clip_qkv": 6.0}}, ["clip_qkv=6.0"]),
        ("mpt", {"attn_config": {"qk_ln": True}}, ["qk_ln=True"]),
        ("mpt", {"attn_config": {"attn_type": "multiquery_attention"}}, ["attn_type='multiquery_attention'"]),
    ],
)  # fmt: skip
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
    assert len(set(names)) == len(names) and len(set(hf_names)) == len(hf_names)
    assert len(names) > config.model.n_layers * 7
