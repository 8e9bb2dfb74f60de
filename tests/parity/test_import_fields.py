"""The fields that an import reads are those of the class, with the class's own values."""

import dataclasses

import pytest

transformers = pytest.importorskip("transformers")

from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402

from slm_core.hf import FAMILIES  # noqa: E402
from slm_core.hf.families import mpt  # noqa: E402
from slm_core.hf.fields import HARMLESS, NEUTRAL, Field  # noqa: E402


def declared(config: type) -> dict[str, object]:
    """Returns {field: default} of a config class."""
    return {each.name: each.default for each in dataclasses.fields(config)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_of_the_class_is_read_or_known_to_change_nothing(family):
    ours = FAMILIES[family]
    known = ours.fields.keys() | ours.aliases.keys() | NEUTRAL | HARMLESS.keys() | set(ours.neutral)
    assert declared(CONFIG_MAPPING[family]).keys() - known == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_absent_field_takes_the_value_of_the_class(family):
    config = CONFIG_MAPPING[family]
    theirs, ours = declared(config), FAMILIES[family].fields
    differing = {name: (ours[name].default, theirs[name]) for name in ours if name in theirs}
    assert {name: pair for name, pair in differing.items() if pair[0] != pair[1]} == {}
    theta = config.default_theta
    if "rope_theta" in ours and "rotary_emb_base" not in ours:
        assert ours["rope_theta"].default == (theta["global"] if isinstance(theta, dict) else theta)


def test_the_attention_of_mpt_takes_the_values_of_the_class():
    theirs = declared(transformers.models.mpt.configuration_mpt.MptAttentionConfig)
    ours = mpt.ATTENTION_FIELDS
    assert theirs.keys() - ours.keys() - NEUTRAL - HARMLESS.keys() == {"attn_pdrop", "attn_impl"}
    assert {name: field.default for name, field in ours.items()} == {name: theirs[name] for name in ours}


@pytest.mark.parametrize("family", FAMILIES)
def test_aliases_are_those_of_the_class(family):
    ours = FAMILIES[family].aliases
    theirs = CONFIG_MAPPING[family].attribute_map
    for alias, name in ours.items():
        assert theirs.get(alias) == name or theirs.get(name) == alias or alias == "n_embed"


def test_a_family_reads_no_field_twice():
    for family in FAMILIES.values():
        assert not (family.fields.keys() & (NEUTRAL | set(family.neutral) | family.aliases.keys()))
        assert all(isinstance(field, Field) for field in family.fields.values())
