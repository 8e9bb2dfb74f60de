"""Sweeps of config.json: an import equals the class, or it is refused in one line."""

from collections.abc import Iterator

import pytest

transformers = pytest.importorskip("transformers")

from parity.oracle.imports import ABSENT, Variant, fields_of, variants  # noqa: E402
from parity.oracle.imports_class import quiet  # noqa: E402
from parity.oracle.imports_flax import flax_process  # noqa: E402
from parity.oracle.imports_judge import BAD, Twin, Verdict, Verdicts, judge, torch_logits  # noqa: E402
from slm_core.hf import FAMILIES  # noqa: E402
from slm_core.hf.families import llama  # noqa: E402
from tests.tiers import some_slow  # noqa: E402

TORCH = {"torch": torch_logits}


@pytest.fixture(autouse=True, scope="module")
def silence():
    quiet()


@pytest.fixture(scope="module")
def twins() -> Iterator[dict[str, Twin]]:
    with flax_process() as flax:
        yield TORCH | {"flax": flax}


def swept(chosen: list[Variant], twins: dict[str, Twin]) -> list[Verdict]:
    """Returns the verdicts that are wrong or a crash."""
    return [verdict for variant in chosen for verdict in judge(variant, twins) if verdict.outcome in BAD]


def of(family: str, **changes: str) -> Variant:
    return Variant(family, family, tuple(changes.items()))


def outcome(variant: Variant) -> str:
    (verdict,) = judge(variant, TORCH)
    return verdict.outcome


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_few_imports_in_pytorch(family):
    assert swept(variants(8 * len(FAMILIES), family), TORCH) == []


@pytest.mark.slow
def test_imports_in_pytorch():
    assert swept(variants(200), TORCH) == []


@pytest.mark.slow
def test_imports_in_both_twins(twins):
    assert swept(variants(3 * len(FAMILIES)), twins) == []


@pytest.mark.exhaustive
def test_many_imports_in_both_twins(twins):
    assert swept(variants(2000), twins) == []


def test_a_field_that_is_read_is_equal_and_one_that_cannot_be_expressed_is_refused():
    assert outcome(of("llama", rms_norm_eps="0.1")) == "equal"
    assert outcome(of("llama", hidden_act='"relu"')) == "refused"
    assert outcome(of("llama", head_dim='"8"')) == "refused"
    assert outcome(Variant("llama", "llama", (("intermediate_size", "32"),), misfit=True)) == "refused"


def test_a_tied_config_with_another_head_in_the_file_is_refused():
    assert outcome(Variant("llama", "llama", (("tie_word_embeddings", "true"),), misfit=True)) == "refused"
    assert outcome(Variant("llama", "llama", (("tie_word_embeddings", ABSENT),), misfit=True)) == "equal"


def test_a_field_that_is_passed_over_makes_an_import_wrong(monkeypatch):
    """The sweep fails if an import forgets a field."""
    original = llama.read_position
    monkeypatch.setattr(llama, "read_position", lambda fields: original(fields).__class__(theta=10_000.0))
    assert outcome(of("llama", rope_theta="10")) == "wrong"


def test_an_error_that_a_user_cannot_read_is_a_crash(monkeypatch):
    monkeypatch.setattr(llama, "read_position", lambda fields: {}["missing"])
    assert outcome(of("llama", rms_norm_eps="0.1")) == "crash"


@pytest.mark.parametrize("family", some_slow(FAMILIES, *(family for family in FAMILIES if family != "llama")))
def test_the_fields_of_a_family_have_those_that_code_beneath_the_class_asks_for(family):
    assert {"tie_word_embeddings", "vocab_size", "pad_token_id", "is_causal"} <= set(fields_of(family))


def test_variants_are_the_same_each_time_and_fewer_are_the_first():
    many = variants(10 * len(FAMILIES), "llama")
    assert len({variant.name for variant in many}) == 10
    assert variants(10 * len(FAMILIES), "llama") == many
    assert variants(4 * len(FAMILIES), "llama") == many[:4]


def test_a_sweep_continues_from_its_journal(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    journal = Verdicts(str(path))
    (verdict,) = judge(of("llama", rms_norm_eps="0.1"), TORCH)
    journal.add(verdict)
    again = Verdicts(str(path))
    assert again.verdicts == [verdict] and again.has(of("llama", rms_norm_eps="0.1"), "torch")
    assert not again.has(of("llama", rms_norm_eps="0.1"), "flax")
    path.write_text(path.read_text() + '{"family": "cut o')
    Verdicts(str(path)).add(verdict)
    assert Verdicts(str(path)).verdicts == [verdict, verdict]
