"""A PEFT adapter as LoRA of a run: with it, the run's matrices are those of the merged adapter."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from slm_core.errors import UserError
from slm_core.hf import FAMILIES, adapter
from slm_core.hf.importing import open_checkpoint
from slm_core.hf.lora import expression
from slm_core.hf.run import export_adapter, import_run
from slm_core.quantization.formats import merged
from slm_core.runs.saved import load_run
from slm_core.runs.weights import run_weights
from tests.core.hf.checkpoints import write_checkpoint

MODULES = {
    "llama": [
        "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj", "lm_head",
    ],
    "gpt2": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj", "lm_head"],
    "gpt_neox": ["gpt_neox.layers.0.attention.query_key_value", "gpt_neox.layers.1.mlp.dense_h_to_4h"],
    "bloom": ["transformer.h.0.self_attention.query_key_value", "transformer.h.1.mlp.dense_4h_to_h"],
}  # fmt: skip


def write(folder, family, modules, shapes=lambda module: (2, 3.0), **changes):
    """Writes a checkpoint with random tensors and an adapter of these modules; shapes gives (rank, alpha) of each."""
    generator = np.random.default_rng(1)
    base, beside = folder / "base", folder / "adapter"
    beside.mkdir()
    tensors = write_checkpoint(base, family)
    pairs = {}
    for module in modules:
        outputs, inputs = tensors[f"{module}.weight"].shape
        if f"{module}.weight".endswith(FAMILIES[family].inputs_first):
            outputs, inputs = inputs, outputs
        rank = shapes(module)[0]
        for kind, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            pairs[f"base_model.model.{module}.lora_{kind}.weight"] = generator.standard_normal(shape).astype(np.float32)
    save_file(pairs, beside / adapter.FILE_NAME)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 3.0, "target_modules": modules}
    settings |= {
        "base_model_name_or_path": str(base),
        "rank_pattern": {module: shapes(module)[0] for module in modules},
        "alpha_pattern": {module: shapes(module)[1] for module in modules},
    }
    (beside / adapter.CONFIG).write_text(json.dumps(settings | changes))
    return beside


@pytest.mark.parametrize("family", MODULES)
def test_as_lora_the_matrices_are_the_merged_ones(family, tmp_path):
    folder = write(tmp_path, family, MODULES[family])
    plain = dict(open_checkpoint(tmp_path / "base")[1])
    whole = dict(open_checkpoint(folder)[1])
    imported, items, _ = open_checkpoint(folder, as_lora=True)
    weights = dict(items)
    sums = merged(weights, imported.config)
    assert set(sums) == set(whole) and imported.config.finetune.alpha == 3.0
    for name, array in whole.items():
        np.testing.assert_allclose(sums[name], array, rtol=1e-5, atol=1e-5)
    changed = {name for name in whole if not np.array_equal(plain[name], whole[name])}
    assert changed == {name.replace("lora_a", "weight") for name in weights if name.endswith("lora_a")}
    assert len(changed) >= len(MODULES[family])


def test_one_rank_and_one_scale_are_asked_for(tmp_path):
    folder = write(tmp_path, "llama", MODULES["llama"], lambda module: (2 + (module == "lm_head"), 3.0))
    with pytest.raises(UserError, match="rank 2 with scale 1.5, rank 3 with scale 1: import it with --adapter merged"):
        open_checkpoint(folder, as_lora=True)


def test_a_scale_that_no_run_has_is_refused(tmp_path):
    folder = write(tmp_path, "llama", MODULES["llama"], lambda module: (2, -1.0))
    with pytest.raises(UserError, match="the adapter has the scale -0.5"):
        open_checkpoint(folder, as_lora=True)


def test_only_an_adapter_becomes_lora(tmp_path):
    write(tmp_path, "llama", MODULES["llama"])
    with pytest.raises(UserError, match="--adapter=lora: .*has no adapter_config.json"):
        open_checkpoint(tmp_path / "base", as_lora=True)


def test_an_adapter_of_another_shape_than_its_layer_is_refused(tmp_path):
    folder = write(tmp_path, "llama", MODULES["llama"])
    values = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps(values | {"intermediate_size": 12}))
    with pytest.raises(UserError, match="--adapter=lora: model.layers.0.mlp.down_proj is not a linear layer here"):
        open_checkpoint(folder, as_lora=True)


def test_the_targets_match_the_adapted_layers_and_no_others():
    every = [f"layers.{i}.{part}" for i in range(3) for part in ("attention.q_proj", "attention.k_proj", "mlp.up_proj")]
    every += ["head", "embed"]
    assert expression([path for path in every if "q_proj" in path], every) == r"layers\.\d+\.attention\.q_proj"
    assert expression(["layers.1.mlp.up_proj"], every) == r"layers\.1\.mlp\.up_proj"
    some = ["layers.0.attention.q_proj", "layers.2.attention.q_proj", "layers.2.mlp.up_proj", "head"]
    assert expression(some, every) == r"head|layers\.(0|2)\.attention\.q_proj|layers\.2\.mlp\.up_proj"


@pytest.mark.parametrize("family", MODULES)
def test_an_adapter_is_exported_as_it_was_imported(family, tmp_path):
    folder = write(tmp_path, family, MODULES[family])
    import_run(folder, tmp_path / "run", "torch", 0, lambda items, what: items, as_lora=True)
    saved = load_run(tmp_path / "run")
    chosen, count = export_adapter(saved, tmp_path / "out", family, "float32", str(tmp_path / "base"))
    assert chosen.model_type == family and count == len(MODULES[family])
    whole, again = (dict(open_checkpoint(each)[1]) for each in (folder, tmp_path / "out"))
    for name, array in whole.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-5, atol=1e-5)
    for name, array in run_weights(saved).items():
        np.testing.assert_allclose(array, whole[name], rtol=1e-5, atol=1e-5)


def test_a_run_without_adapters_has_none_to_export(tmp_path):
    write_checkpoint(tmp_path / "base", "llama")
    import_run(tmp_path / "base", tmp_path / "run", "torch", 0, lambda items, what: items)
    with pytest.raises(UserError, match="has no adapters: its finetune.kind is full"):
        export_adapter(load_run(tmp_path / "run"), tmp_path / "out", "", "float32", "")
