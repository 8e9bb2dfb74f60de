"""The variants of a study, from the words of a command line."""

import pytest

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.studies.variants import make_variants, variant_config


def test_vary_takes_the_product_in_order():
    variants = make_variants(["model.attention.n_kv_heads=1,4", "model.position.kind=rope,learned"], [])
    assert [v.name for v in variants] == [
        "n_kv_heads=1, rope", "n_kv_heads=1, learned", "n_kv_heads=4, rope", "n_kv_heads=4, learned",
    ]  # fmt: skip
    assert variants[1].overrides == {"model.attention.n_kv_heads": 1, "model.position.kind": "learned"}
    assert variants[1].slug == "n_kv_heads=1_learned"


def test_values_with_commas_stand_in_brackets():
    (first, second) = make_variants(["optim.betas=(0.9,0.95),(0.9,0.99)"], [])
    assert (first.overrides["optim.betas"], second.overrides["optim.betas"]) == ((0.9, 0.95), (0.9, 0.99))
    assert second.name == "betas=0.9,0.99"


def test_named_variants_may_set_several_fields_or_none():
    base, gqa = make_variants([], ["base:", "gqa: model.attention.n_kv_heads=1 config.model.norm.kind=layernorm"])
    assert base.overrides == {}
    assert gqa.overrides == {"model.attention.n_kv_heads": 1, "model.norm.kind": "layernorm"}


@pytest.mark.parametrize(
    ("vary", "named", "message"),
    [
        (["model.norm.kind=rmsnorm"], [], "at least two variants"),
        ([], ["a: model.norm.kind=dyt"], "at least two variants"),
        (["model.norm.kind=rmsnorm,dyt"], ["a:", "b:"], "leave one out"),
        (["model.norm.kindd=a,b"], [], "model.norm.kindd is not a field of the configuration (did you mean"),
        (["model.d_model=64,wide"], [], "model.d_model"),
        (["model.d_model"], [], "write --vary=FIELD=VALUE,VALUE"),
        (["model.d_model=64,128", "model.d_model=256"], [], "given twice"),
        ([], ["a: model.d_model", "b:"], "'model.d_model' is not FIELD=VALUE"),
        ([], ["model.d_model=64", "b:"], "write --variant='NAME: FIELD=VALUE FIELD=VALUE'"),
        ([], ["a:", "a: model.d_model=64"], "variants 1 and 2 have the name 'a'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_write(vary, named, message):
    with pytest.raises(UserError) as error:
        make_variants(vary, named)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_variant_drops_what_its_kinds_do_not_read_and_keeps_the_rest():
    config = variant_config(Config(), {"model.position.kind": "learned"}, "variant 'learned'")
    assert config.model.position.kind == "learned"
    with pytest.raises(UserError, match="variant 'odd': model.attention.n_heads=3"):
        variant_config(Config(), {"model.attention.n_heads": 3}, "variant 'odd'")
