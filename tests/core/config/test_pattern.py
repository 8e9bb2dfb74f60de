"""model.pattern: grammar, tiling, resolved layers."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_core.config import Attention, Mlp, Model, Norm, Position
from slm_core.config.fields import reads
from slm_core.config.layers import layer_specs
from slm_core.config.pattern import layer_fields, parse
from slm_core.config.widths import value_shape
from slm_core.errors import UserError


def _windows(pattern, n_layers):
    return [layer.attention.window for layer in layer_specs(Model(n_layers=n_layers, pattern=pattern))]


@pytest.mark.parametrize(
    ("pattern", "windows"),
    [
        ("", [0] * 7),
        (".", [0] * 7),
        ("attention.window=4", [4] * 7),
        ("2*attention.window=4 | .", [4, 4, 0, 4, 4, 0, 4]),
        (". | 2*attention.window=4|attention.window=8", [0, 4, 4, 8, 0, 4, 4]),
        ("2 * attention.window = 4 | 9*.", [4, 4, 0, 0, 0, 0, 0]),
    ],
)
def test_entries_tile_over_the_stack(pattern, windows):
    assert _windows(pattern, 7) == windows


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=4))
def test_tiling_repeats_and_cuts(n_layers, entries):
    pattern = " | ".join(f"{count}*attention.window={window}" for count, window in entries)
    tile = [window for count, window in entries for _ in range(count)]
    assert _windows(pattern, n_layers) == [tile[i % len(tile)] for i in range(n_layers)]


@pytest.mark.parametrize(("kind", "d_model", "hidden"), [
    ("swiglu", 128, 352), ("swiglu", 768, 2048), ("swiglu", 96, 256), ("swiglu", 1, 32), ("gelu", 128, 512),
])  # fmt: skip
def test_what_is_unset_is_filled_in(kind, d_model, hidden):
    (layer,) = layer_specs(Model(d_model=d_model, n_layers=1, attention=Attention(n_heads=1), mlp=Mlp(kind=kind)))
    assert layer.mlp.hidden == hidden
    assert (layer.attention.n_kv_heads, layer.attention.head_dim) == (1, d_model)


def test_a_new_kind_has_the_widths_of_the_usual_one():
    model = Model(d_model=64, n_layers=1, attention=Attention(kind="new", n_heads=4), mlp=Mlp(kind="new"))
    (layer,) = layer_specs(model)
    assert layer.mlp.hidden == 256 and value_shape(layer.attention) == (4, 16)


def test_what_is_set_stays():
    model = Model(n_layers=1, attention=Attention(n_kv_heads=2, head_dim=24), mlp=Mlp(hidden=100))
    (layer,) = layer_specs(model)
    assert layer.mlp.hidden == 100
    assert (layer.attention.n_kv_heads, layer.attention.head_dim) == (2, 24)


@pytest.mark.parametrize(
    ("model", "name", "width"),
    [
        (Model(d_model=64, attention=Attention(kind="differential", n_heads=4)), "attention.head_dim", 8),
        (Model(d_model=64, attention=Attention(kind="mla", n_heads=4)), "attention.kv_rank", 64),
        (Model(d_model=64, attention=Attention(kind="mla", n_heads=4)), "attention.rope_dim", 8),
        (Model(d_model=64, attention=Attention(kind="mla", n_heads=4)), "attention.scale", 24**-0.5),
        (Model(d_model=64, attention=Attention(n_heads=4, qk_norm="l2")), "attention.scale", 4.0),
        (Model(d_model=64, attention=Attention(n_heads=4), mup_base_width=32), "attention.scale", 0.5),
        (Model(d_model=64, attention=Attention(n_heads=4, bias=True)), "attention.output_bias", True),
        (Model(d_model=96, mlp=Mlp(kind="moe", top_k=2)), "mlp.hidden", 128),
        (Model(d_model=96, mlp=Mlp(kind="moe", expert="gelu", top_k=2, shared_experts=1)), "mlp.hidden", 128),
    ],
)
def test_what_is_unset_follows_the_kind(model, name, width):
    section, field = name.split(".")
    assert getattr(getattr(layer_specs(model)[0], section), field) == width


def test_layers_resolve_their_own_values():
    layers = layer_specs(Model(n_layers=2, pattern="attention.n_heads=8,mlp.kind=gelu | ."))
    assert [(a.attention.n_kv_heads, a.attention.head_dim, a.mlp.hidden) for a in layers] == [
        (8, 16, 512),
        (4, 32, 352),
    ]


def test_values_are_parsed_to_the_types_of_their_fields():
    pattern = "norm.eps=1e-3,attention.bias=true,attention.n_kv_heads=2,position.kind=none,norm.kind=layernorm"
    (layer,) = layer_specs(Model(n_layers=1, pattern=pattern, norm=Norm(kind="rmsnorm")))
    assert layer.norm == Norm(kind="layernorm", eps=1e-3)
    assert layer.attention.bias is True and layer.attention.n_kv_heads == 2 and layer.position.kind == "none"


def test_layers_do_not_carry_fields_that_their_kind_does_not_read():
    model = Model(n_layers=2, norm=Norm(kind="layernorm", bias=True), pattern="norm.kind=rmsnorm | .")
    assert [layer.norm.bias for layer in layer_specs(model)] == [False, True]
    assert layer_specs(Model(n_layers=1, position=Position(theta=5.0), pattern="position.kind=none"))[0].position == (
        Position(kind="none")
    )


def test_equal_layers_are_equal_and_resolving_is_idempotent():
    layers = layer_specs(Model(n_layers=6, pattern="2*attention.window=4 | ."))
    assert len(set(layers)) == 2
    assert layer_specs(layers[0])[0] == layers[0]


@pytest.mark.parametrize("kind", ["gqa", "mla", "differential"])
def test_a_resolved_section_reads_the_fields_that_the_section_reads(kind):
    attention = Attention(kind=kind)
    (resolved,) = layer_specs(Model(n_layers=1, attention=attention))
    names = [field.name for field in dataclasses.fields(attention)]
    assert [reads(resolved.attention, name) for name in names] == [reads(attention, name) for name in names]


def test_which_fields_a_layer_may_change():
    assert {name.partition(".")[0] for name in layer_fields()} == {"mixer", "attention", "position", "norm", "mlp"}
    assert {name for name in layer_fields() if name.startswith("norm")} >= {"norm.kind", "norm.eps", "norm.weight"}
    assert "norm.placement" not in layer_fields()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("attention.windw=4", "did you mean attention.window?"),
        ("model.attention.windw=4", "did you mean attention.window?"),
        ("norm.placement=post", "norm.placement is not a field that a layer can change"),
        ("d_model=4", "d_model is not a field that a layer can change"),
        ("attention.window", "attention.window has no value"),
        ("attention.window=", "attention.window= is of the wrong type: give a whole number"),
        ("attention.window=x", "attention.window=x is of the wrong type"),
        ("attention.window=4,attention.window=5", "attention.window is set twice"),
        ("attention.window=4,", "nothing is not a field"),
        ("x*.", "x before * is not a number of layers"),
        ("0*.", "0 before *"),
        ("*.", "nothing before *"),
        ("-1*.", "-1 before *"),
        ("2*3*.", "2*3 before *"),
        (". |", "empty entry"),
        ("|", "empty entry"),
        ("2*", "nothing is not a field"),
        ("position.kind=learned", "use rope or alibi or t5 or none"),
        ("position.kind=rop", "did you mean rope?"),
    ],
)
def test_a_mistake_names_the_entry_and_the_remedy(pattern, message):
    with pytest.raises(UserError) as caught:
        parse(pattern)
    text = str(caught.value)
    assert text.startswith("model.pattern") and message in text and "\n" not in text


@given(st.text(alphabet="59*.| =,attention.window", max_size=30))
def test_any_text_parses_or_is_a_user_error(pattern):
    try:
        layer_specs(Model(pattern=pattern))
    except UserError as error:
        assert str(error).startswith("model.pattern")
