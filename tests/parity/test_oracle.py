"""The outside oracle: Hugging Face classes against the twins, and exports of every config that a family expresses."""

import dataclasses
import tempfile
from collections.abc import Container
from pathlib import Path

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

import slm_torch.trainer  # noqa: E402
from parity.bisect.command import bisect_folders  # noqa: E402
from parity.cases import BASE, cases  # noqa: E402
from parity.oracle.cases import CASES  # noqa: E402
from parity.oracle.measure import Measured, build, measure, sensitivity  # noqa: E402
from parity.oracle.results import Results  # noqa: E402
from parity.state_transfer import perturbed  # noqa: E402
from slm_core.config.fields import with_values  # noqa: E402
from slm_core.errors import UserError  # noqa: E402
from slm_core.hf import FAMILIES, exporting  # noqa: E402
from slm_core.hf.folder import write_config, write_tensors  # noqa: E402
from slm_core.quantization.formats import merged  # noqa: E402

RICHEST = {case.family: case for case in CASES}
"""{family: its last case, which has most options on}; the others are slow."""


def some(families: Container[str]) -> list:
    """Returns the cases, of which all are slow but the richest of these families."""
    default = [case for family, case in RICHEST.items() if family in families]
    return [pytest.param(case, id=case.name, marks=[] if case in default else pytest.mark.slow) for case in CASES]


SOME = some(RICHEST)
SMALL = {
    case.name: case.config for case in cases() if not case.large and case.section not in ("half precisions", "presets")
}


@pytest.fixture(autouse=True, scope="module")
def quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.mark.parametrize("case", some(("gpt2", "llama", "mixtral")))
def test_a_twin_computes_what_the_class_computes(case):
    for precision in ("float32", "float64") if case.float64 else ("float32",):
        for measured in measure(case, precision):
            assert measured.passed, measured


@pytest.mark.parametrize("case", SOME)
def test_a_case_would_notice_a_missing_feature(case):
    moved = sensitivity(case)
    assert all(change > 1e-2 for change in moved.values()), moved


@pytest.mark.parametrize("case", SOME)
def test_the_bisector_finds_nothing_between_a_twin_and_its_class(case, tmp_path, capsys):
    build(case, "float32").save_pretrained(tmp_path / "hf")
    assert bisect_folders("", str(tmp_path / "hf"), "torch", "float32"), capsys.readouterr().out


def test_a_run_continues_from_its_journal(tmp_path):
    case, path = CASES[0], tmp_path / "results.jsonl"
    torch_half, flax_half = (Measured(case.name, twin, "float32", 1e-6, 2e-6, 3e-6) for twin in ("torch", "flax"))
    results = Results(str(path))
    results.add(torch_half)
    assert not Results(str(path)).has(case, "float32")
    results.add(flax_half)
    results.add_moved(case, {"window": 0.5})
    path.write_text(path.read_text() + '{"case": "cut o')
    Results(str(path)).add(Measured(CASES[1].name, "torch", "float32", 1e-6, 2e-6, 3e-6))
    again = Results(str(path))
    assert len(again.measured) == 3
    assert again.has(case, "float32") and not again.has(case, "float64")
    assert again.of(case, "float32") == [torch_half, flax_half] and again.moved == {case.name: {"window": 0.5}}


def test_every_family_has_a_case():
    assert {case.family for case in CASES} == set(FAMILIES)
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", SMALL)
def test_a_config_is_exported_or_refused_by_the_name_of_a_field(name):
    config = with_values(SMALL[name], {"precision.compute": "float32"})
    try:
        family, written = exporting.choose(config)
    except UserError as error:
        assert str(error).startswith("model.") and "\n" not in str(error)
        return
    same_logits(config, family, written)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_writes_any_config_or_refuses_it_in_one_line(family):
    for config in SMALL.values():
        try:
            chosen, written = exporting.choose(config, family)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert chosen.model_type == family and FAMILIES[family].config(written)


def same_logits(config, family, written):
    """Asks that the class which loads an export computes the logits of the PyTorch twin."""
    engine = slm_torch.trainer.build(config, 61)
    engine.import_state(perturbed(engine.export_state(), 1))
    weights = merged({name: p.detach().numpy() for name, p in engine.params.items()}, config)
    with tempfile.TemporaryDirectory() as folder:
        write_config(Path(folder), family, written, 61, {}, "float32")
        write_tensors(Path(folder), exporting.convert(family, written, weights, config), "float32")
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 61, (2, config.data.seq_len)))
    with torch.no_grad():
        logits = engine.model.logits(engine.model(tokens)[0])
        hf_logits = loaded(tokens, use_cache=False).logits
    assert (logits - hf_logits).abs().max() <= 1e-4 * max(1.0, float(logits.square().mean().sqrt()))


GPT2 = {
    "model.position.kind": "learned", "model.norm.kind": "layernorm", "model.norm.bias": True, "model.mlp.kind": "gelu",
    "model.mlp.gelu": "tanh", "model.attention.n_kv_heads": None, "model.attention.bias": True, "model.mlp.bias": True,
}  # fmt: skip
MULTIPLIED = {
    "gpt2": GPT2,
    "llama": {"model.tie_embeddings": False, "model.mup_base_width": 16},
    "olmo2": {
        "model.norm.placement": "output", "model.attention.qk_norm": "rmsnorm", "model.attention.qk_norm_over": "whole",
    },
    "gpt_neox": GPT2 | {"model.position.kind": "rope", "model.mlp.gelu": "erf", "model.norm.placement": "parallel"},
    "gptj": GPT2 | {
        "model.position.kind": "rope", "model.norm.placement": "parallel_shared", "model.attention.bias": False,
        "model.head_bias": True, "model.mup_base_width": 16,
    },
    "qwen2_moe": {
        "model.attention.bias": True, "model.attention.output_bias": False, "model.mlp.kind": "moe",
        "model.mlp.shared_experts": 2, "model.mlp.shared_gate": True,
    },
    "deepseek_v3": {
        "model.attention.kind": "mla", "model.attention.n_kv_heads": None, "model.mlp.kind": "moe",
        "model.mlp.router": "sigmoid", "model.mlp.shared_experts": 1, "model.mlp.balance_bias": 0.001,
    },
}  # fmt: skip
"""{family without multipliers: what a model that it expresses otherwise has}"""
MULTIPLIERS = {
    "model.embed_scale": 3.0, "model.residual_multiplier": 0.6, "model.logit_multiplier": 0.7,
    "model.attention.scale": 0.4,
}  # fmt: skip


@pytest.mark.parametrize(("family", "values"), MULTIPLIED.items())
def test_multipliers_are_folded_into_weights(family, values):
    config = with_values(BASE, {"precision.compute": "float32", "model.n_layers": 2} | values | MULTIPLIERS)
    chosen, written = exporting.choose(config, family)
    assert chosen.model_type == family
    same_logits(config, chosen, written)


def test_nanogpt_without_biases_is_gpt2_with_zeros():
    """A family that has more parameters computes the same with zeros in them."""
    values = {
        "model.position.kind": "learned", "model.norm.kind": "layernorm", "model.mlp.kind": "gelu",
        "model.mlp.gelu": "tanh", "model.attention.n_kv_heads": None,
    }  # fmt: skip
    family, written = exporting.choose(with_values(BASE, values))
    assert family.model_type == "gpt2"
    weights = {name: np.ones(shape, np.float32) for name, shape in _shapes(with_values(BASE, values)).items()}
    tensors = dict(exporting.convert(family, written, weights, with_values(BASE, values)))
    assert not tensors["transformer.h.0.attn.c_attn.bias"].any()
    assert not tensors["transformer.ln_f.bias"].any()


def test_logits_without_a_bias_are_those_of_gptj_with_zeros():
    values = GPT2 | {
        "model.position.kind": "rope", "model.norm.placement": "parallel_shared", "model.attention.bias": False,
    }  # fmt: skip
    family, written = exporting.choose(with_values(BASE, values), "gptj")
    weights = {name: np.ones(shape, np.float32) for name, shape in _shapes(with_values(BASE, values)).items()}
    bias = dict(exporting.convert(family, written, weights, with_values(BASE, values)))["lm_head.bias"]
    assert bias.shape == (61,) and not bias.any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.attention.gate": "head"}, "model.attention.gate=head cannot be exported: no family"),
        ({"model.norm.kind": "dyt"}, "model.norm.kind=dyt cannot be exported: no family"),
        ({"model.mixer.kind": "gla"}, "model.mixer.kind=gla cannot be exported: no family"),
        (
            {"model.attention.gate": "head", "model.pattern": ". | attention.gate=none"},
            "model.attention.gate=head (layer 0) cannot be exported: no family",
        ),
        ({"model.position.kind": "alibi"}, "cannot be exported together with the rest: the nearest family"),
    ],
)
def test_what_no_family_expresses_is_named(values, message):
    with pytest.raises(UserError) as caught:
        exporting.choose(with_values(BASE, values | {"model.n_layers": 2}))
    assert message in str(caught.value)


def test_the_family_that_is_asked_for_is_blamed():
    with pytest.raises(UserError, match="model.attention.n_kv_heads=2 cannot be exported: the gpt2 family lacks it"):
        exporting.choose(BASE, "gpt2")


def _shapes(config):
    engine = slm_torch.trainer.build(dataclasses.replace(config), 61)
    return {name: tuple(p.shape) for name, p in engine.params.items()}
