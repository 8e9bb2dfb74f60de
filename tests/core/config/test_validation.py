"""Validation: every bound, choice and read_by of the schema, and the relations between fields."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.fields import selecting
from slm_core.config import Config
from slm_core.config.fields import base_type, field_table, fields, flatten, with_values
from slm_core.config.synonyms import SYNONYMS
from slm_core.config.validation import drop_unread, unread, validate
from slm_core.errors import UserError


def _error(values, explicit=()):
    with pytest.raises(UserError) as caught:
        validate(with_values(Config(), values), explicit)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_valid():
    validate(Config())


_CHOICES = [info.name for info in fields() if info.option.choices]


@pytest.mark.parametrize("name", _CHOICES)
def test_a_misspelt_value_names_the_nearest(name):
    choice = list(field_table()[name].option.choices)[-1]
    message = _error({name: choice + "x" if ":" not in choice else "file"})
    assert message.startswith(f"{name}=") and f"did you mean {choice}?" in message


_STEPS = {"low": -1, "above": 0, "high": 1, "below": 0}
_BOUNDED = [(info.name, key) for info in fields() for key in _STEPS if getattr(info.option, key) is not None]


@pytest.mark.parametrize(("name", "key"), _BOUNDED)
def test_a_value_beyond_its_bound_is_an_error(name, key):
    info = field_table()[name]
    bound = getattr(info.option, key)
    message = _error({name: base_type(info.type)(bound + _STEPS[key])})
    assert message.startswith(f"{name}=") and message.endswith(str(bound))


_NUMBERS = [info.name for info in fields() if base_type(info.type) in (int, float)]


@pytest.mark.parametrize("name", _NUMBERS)
def test_every_number_has_a_least_and_a_largest_value(name):
    """Nothing may hang, overflow or allocate much because a number is absurd."""
    option = field_table()[name].option
    assert option.low is not None or option.above is not None
    assert option.high is not None or option.below is not None


@pytest.mark.parametrize("name", _NUMBERS)
@pytest.mark.parametrize("value", [10**19, -(10**19)])
def test_an_absurd_number_is_an_error(name, value):
    assert _error({name: base_type(field_table()[name].type)(value)}).startswith(f"{name}=")


@pytest.mark.parametrize(
    ("name", "kind", "hint"),
    [
        ("model.attention.kind", "mha", "gqa, and leave model.attention.n_kv_heads unset"),
        ("model.attention.kind", "Flash", "model.attention.kernel=flash"),
        ("model.position.kind", "rotary", "rope"),
        ("model.position.kind", "absolute", "learned"),
        ("model.norm.kind", "rms_norm", "rmsnorm"),
        ("precision.compute", "fp16", "float16"),
        ("precision.compute", "bf16", "bfloat16"),
        ("optim.kind", "adam", "adamw"),
        ("model.pattern", "norm.kind=rms_norm", "rmsnorm"),
    ],
)
def test_another_name_of_a_kind_is_understood(name, kind, hint):
    assert _error({name: kind}).endswith(f"(did you mean {hint}?)")


def test_other_names_lead_to_what_is_valid():
    for name, names in SYNONYMS.items():
        info = next(info for info in fields() if info.name.endswith(name))
        for other, meant in names.items():
            assert other == "".join(filter(str.isalnum, other.lower())), other
            assert other not in info.option.choices, f"{name}={other} is a choice"
            kind, *beside = meant.split(", and ")
            for setting in [f"{info.name}={kind}" if "=" not in kind else kind, *beside]:
                field = setting.removeprefix("set ").removeprefix("leave ").partition("=")[0].removesuffix(" unset")
                assert field in field_table(), setting
                value = setting.partition("=")[2]
                choices = field_table()[field].option.choices
                if value and choices:
                    assert value in choices or value.startswith("file:"), setting


_FLOATS = [info.name for info in fields() if info.type is float]


@pytest.mark.parametrize("name", _FLOATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_float_must_be_finite(name, value):
    assert _error({name: value}) == f"{name}={value} must be a finite number"


def _selectors():
    for name, _, _, option in fields():
        for selector, kinds in option.read_by.items():
            yield name, f"{name.rpartition('.')[0]}.{selector}", kinds


@pytest.mark.parametrize(("name", "selector", "kinds"), list(_selectors()))
def test_setting_a_field_that_the_kind_does_not_read_is_an_error(name, selector, kinds):
    beside = {"data.path": "x"} if selector == "data.source" and name != "data.path" else {}
    base = with_values(Config(), beside | selecting(selector, Config()))
    for kind in field_table()[selector].option.choices:
        config = with_values(base, {selector: kind.replace("PATH", "x.json")})
        why = unread(config, name)
        assert (why is None) == (kind in kinds)
        if why is None:
            continue
        with pytest.raises(UserError) as caught:
            validate(with_values(config, {"data.path": ""}), explicit=[name])
        message = str(caught.value)
        assert message.startswith(f"{name}=") and f"set {selector} to {' or '.join(kinds)}" in message


def test_a_selector_that_is_itself_unread_reads_nothing():
    values = {"model.position.kind": "none", "model.position.scaling": "linear", "model.position.scaling_factor": 2.0}
    config = with_values(Config(), values)
    assert "model.position.kind=none" in unread(config, "model.position.scaling_factor").by
    assert _error(values).startswith("model.position.scaling=linear is not read by model.position.kind=none")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.attention.n_heads": 3}, "model.attention.n_heads=3 does not divide model.d_model=128: use 2 heads"),
        ({"model.attention.n_kv_heads": 3}, "model.attention.n_kv_heads=3 does not divide n_heads=4: use 2"),
        ({"model.attention.n_kv_heads": 8}, "model.attention.n_kv_heads=8 does not divide"),
        ({"model.attention.head_dim": 3}, "model.position.fraction=1.0 rotates 3"),
        ({"model.position.fraction": 0.01}, "rotates 0 of 32"),
        ({"model.d_model": 9, "model.attention.n_heads": 1, "model.position.kind": "sinusoidal"}, "model.d_model=9"),
        ({"train.batch_size": 10, "train.micro_batch_size": 4}, "use 5"),
        ({"train.steps": 50, "optim.warmup_steps": 50}, "optim.warmup_steps=50 must be less than train.steps=50"),
        ({"optim.betas": (1.0, 0.9)}, "optim.betas=1.0,0.9"),
        ({"optim.betas": (0.9, -0.1)}, "optim.betas=0.9,-0.1"),
        ({"optim.betas": (0.9, float("nan"))}, "optim.betas=nan must be a finite number"),
        ({"data.source": "text"}, "data.path is empty and data.source=text reads it"),
        ({"data.tokenizer": "file:"}, "data.tokenizer=file: is not one of"),
        ({"precision.compute": "float64"}, "precision.compute=float64 is wider than precision.params=float32"),
        ({"precision.loss_scale_max": 1.0}, "precision.loss_scale_init=65536.0 must be at most"),
        ({"run.name": "../x"}, "run.name=../x must be a plain folder name"),
        ({"run.branch": "a/b", "run.name": "c"}, "run.branch=a/b must be a plain folder name"),
        ({"run.branch": "a", "run.name": "a"}, "run.branch=a is run.name, too"),
        ({"run.branch": "a"}, "run.branch=a does not say from which run"),
        ({"run.branch": "a", "run.name": "b", "run.resume_from": "c"}, "run.name=b names no run beside run.branch=a"),
        ({"model.pattern": "attention.n_heads=3"}, "layer 0 (model.pattern entry 'attention.n_heads=3')"),
        ({"model.pattern": ". | attention.n_kv_heads=3"}, "layer 1 (model.pattern entry 'attention.n_kv_heads=3')"),
        ({"model.pattern": "attention.window=-1"}, "attention.window=-1 must be at least 0"),
        ({"model.pattern": "mlp.kind=swigl"}, "mlp.kind=swigl is not one of gelu, "),
        ({"model.pattern": "mlp.kind=swigl"}, "geglu, clipped_swiglu, moe, none (did you mean swiglu?)"),
        ({"model.attention.kind": "differential", "model.d_model": 36}, "two maps per head does not divide"),
        ({"model.attention.kind": "mla", "model.attention.rope_dim": 5}, "rotates 5 of 5 elements"),
        ({"model.mlp.kind": "moe", "model.mlp.experts": 2, "model.mlp.top_k": 3}, "model.mlp.top_k=3 must be at most"),
        ({"model.mlp.kind": "moe", "model.mlp.groups": 3}, "mlp.groups=3 must divide experts=8 into groups of two"),
        ({"model.mlp.kind": "moe", "model.mlp.groups": 8}, "mlp.groups=8 must divide experts=8 into groups of two"),
        ({"model.mlp.kind": "moe", "model.mlp.groups": 2, "model.mlp.top_groups": 3}, "top_groups=3 must be at most"),
        ({"model.mlp.kind": "moe", "model.mlp.groups": 4, "model.mlp.top_k": 3}, "mlp.top_k=3 must be at most 2,"),
        ({"model.pattern": "mlp.kind=moe,mlp.groups=3"}, "layer 0 (model.pattern entry 'mlp.kind=moe,mlp.groups=3')"),
        ({"model.position.kind": "t5", "model.position.max_distance": 16}, "model.position.max_distance=16 must be"),
        ({"model.position.scaling": "llama3", "model.position.low_freq_factor": 4.0}, "low_freq_factor=4.0 must"),
        ({"model.position.scaling": "yarn", "model.position.beta_slow": 32.0}, "beta_slow=32.0 must be less"),
        ({"model.attention.value_residual": True, "model.n_layers": 1}, "set model.n_layers above 1"),
        ({"model.attention.value_residual": True, "model.pattern": ". | attention.n_kv_heads=1"}, "layer 1 has 1"),
        ({"model.mixer.kind": "gla", "model.mixer.chunk": 48}, "chunk=48 is not a power of two: use 32 or 64"),
        ({"model.mixer.kind": "gla", "model.mixer.n_heads": 3}, "model.mixer.n_heads=3 does not divide model.d_model"),
        ({"model.mixer.kind": "retention", "model.mixer.key_dim": 7}, "model.mixer.key_dim=7 is odd"),
        ({"model.mixer.kind": "retention", "model.d_model": 132, "model.mixer.n_heads": 12}, "key_dim=11 is odd"),
        ({"model.pattern": "mixer.kind=delta | .", "model.attention.value_residual": True}, "begin model.pattern with"),
        ({"model.pattern": ". | 9*mixer.kind=delta", "model.attention.value_residual": True}, "in a layer after the"),
        ({"model.pattern": "mixer.kind=delta,attention.window=4"}, "is not read by mixer.kind=delta: leave it unset"),
        ({"model.pattern": "mixer.kind=delta,mixer.decay_rank=4"}, "set mixer.kind to gla or kda"),
        ({"model.pattern": "mlp.gelu=tanh"}, "mlp.gelu=tanh is not read by mlp.kind=swiglu"),
        ({"model.pattern": "position.kind=none,position.theta=5"}, "theta=5.0 is not read by position.kind=none"),
        ({"model.pattern": "attention.windw=1"}, "did you mean attention.window?"),
    ],
)  # fmt: skip
def test_relations(values, message):
    assert message in _error(values)


@pytest.mark.parametrize(
    "values",
    [
        {"model.attention.n_heads": 3, "model.attention.head_dim": 16},
        {"model.d_model": 9, "model.attention.n_heads": 1, "model.position.kind": "none"},
        {"precision.compute": "float16", "precision.params": "float64"},
        {"precision.compute": "float64", "precision.params": "float64"},
        {"train.batch_size": 12, "train.micro_batch_size": 4},
        {"data.tokenizer": "file:x.json"},
        {"model.pattern": "mlp.kind=gelu,mlp.gelu=tanh | .", "model.mlp.hidden": 64},
        {"model.pattern": "position.kind=rope | .", "model.position.kind": "learned", "model.position.theta": 5.0},
        {"model.pattern": "position.kind=none | .", "model.position.theta": 5.0},
        {"model.pattern": "norm.kind=layernorm", "model.norm.eps": 1e-6},
        {"model.pattern": "mlp.kind=gelu | .", "model.mlp.gelu": "tanh"},
        {"model.mlp.kind": "moe", "model.mlp.groups": 4, "model.mlp.top_groups": 2, "model.mlp.top_k": 4},
        {"model.norm.placement": "post", "model.norm.eps": 1e-6, "model.embed_norm": True,
         "model.pattern": "norm.eps=1e-3"},
    ],
)  # fmt: skip
def test_what_is_allowed(values):
    validate(with_values(Config(), values), explicit=values)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"model.pattern": "position.kind=none", "model.position.theta": 5.0}, "model.position.theta"),
        ({"model.pattern": "attention.window=4", "model.attention.window": 8}, "model.attention.window"),
        ({"model.pattern": "norm.eps=1e-3", "model.norm.placement": "post", "model.norm.eps": 1e-6}, "model.norm.eps"),
    ],
)
def test_a_field_that_every_layer_overrides_is_not_read(values, name):
    message = _error(values)
    assert message.startswith(f"{name}=") and "is not read by any layer" in message and "model.pattern" in message


def test_values_come_before_what_reads_them():
    assert _error({"model.position.kind": "rop", "model.position.theta": 5.0}).startswith("model.position.kind=rop")


def test_a_gate_needs_shared_experts():
    moe = {"model.mlp.kind": "moe", "model.mlp.shared_gate": True}
    assert _error(moe) == "model.mlp.shared_gate=True has nothing to weigh: set model.mlp.shared_experts above 0"
    validate(with_values(Config(), moe | {"model.mlp.shared_experts": 1}))


def test_drop_unread_resets_what_the_preset_set():
    preset = with_values(Config(), {"model.position.theta": 5.0, "model.position.scaling": "linear"})
    config = with_values(preset, {"model.position.kind": "learned"})
    reset, notes = drop_unread(preset, config, {"model.position.kind"})
    assert reset == with_values(Config(), {"model.position.kind": "learned"})
    assert notes == [
        "model.position.theta=5.0 of the preset is not read by model.position.kind=learned; left at its default",
        "model.position.scaling=linear of the preset is not read by model.position.kind=learned; left at its default",
    ]
    validate(reset, {"model.position.kind"})


def test_drop_unread_leaves_the_users_own_and_the_presets_own_mistakes():
    explicit = {"model.position.kind": "learned", "model.position.theta": 5.0}
    config = with_values(Config(), explicit)
    assert drop_unread(Config(), config, explicit) == (config, [])
    assert drop_unread(config, config, ()) == (config, [])


_KINDS = st.fixed_dictionaries(
    {},
    optional={
        info.name: st.sampled_from([c.replace("PATH", "x") for c in info.option.choices])
        for info in fields()
        if info.option.choices and info.name != "precision.params"
    },
)


@settings(max_examples=60, deadline=None)
@given(_KINDS, _KINDS)
def test_drop_unread_makes_any_choice_of_kinds_valid(first, second):
    """A preset that sets all that its kinds read, and an override of every kind."""
    preset = with_values(Config(), first | {"precision.params": "float64"})
    read = [i for i in fields() if i.option.read_by and not i.option.choices]
    preset = with_values(preset, {info.name: _other(info) for info in read if not unread(preset, info.name)})
    preset, _ = drop_unread(preset, preset, [])
    chosen = {name: value for name, value in first.items() if not unread(preset, name)}
    preset = with_values(preset, {name: flatten(Config())[name] for name in first.keys() - chosen.keys()})
    validate(preset)
    second |= {"data.path": "x"} if second.get("data.source", "stdlib") != "stdlib" else {}
    config, _ = drop_unread(preset, with_values(preset, second), second)
    unread_explicit = [name for name in second if unread(config, name)]
    validate(with_values(config, {name: flatten(Config())[name] for name in unread_explicit}))


def _other(info):
    default, base = info.default, base_type(info.type)
    if default is None:
        return base(4)
    if base is tuple:
        return tuple(value / 2 for value in default)
    if base is str:
        return default + "x"
    if base is bool:
        return not default
    if default > 1:
        return base(default * 4)
    return default * 2 or 1 if base is int else default / 2


def test_configs_stay_as_they_are():
    config = Config()
    before = dataclasses.asdict(config)
    validate(config)
    assert dataclasses.asdict(config) == before
