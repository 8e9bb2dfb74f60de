"""PEFT adapters: the logits are those of the `peft` library, merged and as LoRA of the run, and in an export."""

import json
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft", reason="uv sync")

from parity.oracle.imports import base_values, bases  # noqa: E402
from parity.oracle.imports_class import make, quiet  # noqa: E402
from parity.oracle.measure import engine_with  # noqa: E402
from slm_core.errors import UserError  # noqa: E402
from slm_core.hf.importing import open_checkpoint  # noqa: E402
from slm_core.hf.run import export_adapter, import_run  # noqa: E402
from slm_core.runs.saved import load_run  # noqa: E402
from slm_torch.bin_files import read_bin  # noqa: E402
from tests.tiers import some_slow  # noqa: E402

FAMILY = {"gpt2": ["c_attn", "c_proj", "c_fc"], "gpt_neox": ["query_key_value", "dense", "dense_4h_to_h"]}
CASES = {
    "plain": {},
    "a scale of rslora": {"use_rslora": True},
    "an expression": {"target_modules": r".*\.(v|o)_proj"},
    "all linear layers": {"target_modules": "all-linear"},
    "the head": {"target_modules": ["q_proj", "lm_head"]},
    "one layer": {"layers_to_transform": [1], "target_modules": ["q_proj", "up_proj"]},
    "one layer by its pattern": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "without some": {"exclude_modules": ["layers.0.mlp.down_proj", "v_proj"], "target_modules": "all-linear"},
    "one rank, a scale and a rank for all": {"rank_pattern": {".*": 3}, "alpha_pattern": {".*proj": 5}},
    "a head trained whole": {"modules_to_save": ["lm_head"]},
    "gpt2": {},
    "gpt_neox": {},
    "bloom": {"target_modules": ["query_key_value", "dense_h_to_4h"]},
    "mpt": {"target_modules": ["Wqkv", "down_proj"]},
    "qwen3": {},
    "gemma3_text": {},
    "deepseek_v3": {"target_modules": ["kv_b_proj", "o_proj", "kv_a_proj_with_mqa"]},
}
MERGED_ONLY = {
    "ranks that differ": {"rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 20}},
    "an embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "biases": {"bias": "all"},
}
QUICK = ("plain", "one layer", "gpt2")
UNTIED = {"tie_word_embeddings": False}


@pytest.fixture(autouse=True, scope="module")
def silence():
    quiet()


def save(folder: Path, name: str, options: dict, **values):
    """Saves a checkpoint in `base` and an adapter of it in `adapter`, and returns the model of PEFT."""
    family = name if name in transformers.CONFIG_MAPPING else "llama"
    (folder / "base").mkdir()
    model = make(folder / "base", base_values(bases(family)[0]) | UNTIED | values)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": FAMILY.get(family, ["q_proj", "down_proj"])} | options
    model = peft.get_peft_model(model, peft.LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 8)
    model.save_pretrained(folder / "adapter")
    edit(folder, base_model_name_or_path=str(folder / "base"))
    return model


def edit(folder: Path, **changes):
    file = folder / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def difference(folder: Path, model, as_lora: bool, twin: str = "torch", **options) -> float:
    """Returns the largest difference of a twin's logits from those of PEFT."""
    imported, items, _ = open_checkpoint(folder / "adapter", as_lora=as_lora, **options)
    weights = dict(items)
    assert as_lora == any(name.endswith(".lora_a") for name in weights)
    engine = engine_with(twin, imported.config, imported.vocab_size, weights, "float32")
    tokens = torch.arange(24) % imported.vocab_size
    with torch.no_grad():
        expected = model(tokens[None], use_cache=False).logits[0, -1]
    return float((torch.from_numpy(engine.decoder().prefill(tokens.tolist())) - expected).abs().max())


@pytest.mark.parametrize("name", some_slow(CASES, *(name for name in CASES if name not in QUICK)))
def test_an_adapter_is_what_peft_computes(name, tmp_path):
    model = save(tmp_path, name, CASES[name])
    for as_lora in (False, True):
        assert difference(tmp_path, model, as_lora) < 2e-4
    with model.disable_adapter():
        assert difference(tmp_path, model, False) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("as_lora", [False, True])
def test_an_adapter_is_what_peft_computes_in_flax(as_lora, tmp_path):
    assert difference(tmp_path, save(tmp_path, "llama", {}), as_lora, "flax") < 2e-4


@pytest.mark.parametrize("name", some_slow(MERGED_ONLY, "an embedding", "biases"))
def test_what_a_run_cannot_train_is_merged_or_refused(name, tmp_path):
    model = save(tmp_path, name, MERGED_ONLY[name], attention_bias=True)
    assert difference(tmp_path, model, False) < 2e-4
    if name != "biases":
        with pytest.raises(UserError, match="--adapter=lora: .*import it with --adapter merged"):
            open_checkpoint(tmp_path / "adapter", as_lora=True)


def test_an_older_adapter_is_a_bin_file(tmp_path):
    model = save(tmp_path, "plain", {})
    model.save_pretrained(tmp_path / "adapter", safe_serialization=False)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    edit(tmp_path, base_model_name_or_path="../base")
    assert difference(tmp_path, model, True, read_bin=read_bin) < 2e-4
    with pytest.raises(UserError, match="adapter_model.bin is read by PyTorch"):
        open_checkpoint(tmp_path / "adapter")


def test_an_embedding_that_peft_would_untie_is_refused(tmp_path):
    save(tmp_path, "plain", {"modules_to_save": ["embed_tokens"]}, tie_word_embeddings=True)
    with pytest.raises(UserError, match="changes the embedding model.embed_tokens.weight alone"):
        open_checkpoint(tmp_path / "adapter")


def test_a_file_that_contradicts_its_config_is_refused(tmp_path):
    save(tmp_path, "plain", {})
    edit(tmp_path, target_modules=["q_proj"])
    with pytest.raises(UserError, match="mlp.down_proj has an adapter, but adapter_config.json does not name it"):
        open_checkpoint(tmp_path / "adapter")
    edit(tmp_path, target_modules=["q_proj", "down_proj"], r=5)
    with pytest.raises(UserError, match=r"have the shapes \[4, 32\] and \[32, 4\].* calls for rank 5"):
        dict(open_checkpoint(tmp_path / "adapter")[1])


def test_every_field_of_peft_is_read_or_known_or_refused(tmp_path):
    """Fields that nobody lists change nothing as PEFT leaves them, and are refused with any other value."""
    from slm_core.hf.adapter_config import NEUTRAL, READ, AdapterConfig

    save(tmp_path, "plain", {})
    others = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text()).keys() - NEUTRAL - READ
    assert {"use_dora", "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication"} <= others
    for name in sorted(others):
        edit(tmp_path, **{name: True})
        with pytest.raises(UserError, match=f"{name}=true cannot be imported"):
            AdapterConfig(tmp_path / "adapter")
        edit(tmp_path, **{name: None})
    AdapterConfig(tmp_path / "adapter")


@pytest.mark.parametrize("name", some_slow(["plain", "gpt2", "gpt_neox"], "plain", "gpt_neox"))
def test_an_exported_adapter_is_read_by_peft(name, tmp_path):
    model = save(tmp_path, name, {})
    import_run(tmp_path / "adapter", tmp_path / "run", "torch", 0, lambda items, what: items, as_lora=True)
    family = base_values(name if name in FAMILY else "llama")["model_type"]
    export_adapter(load_run(tmp_path / "run"), tmp_path / "out", family, "float32", str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager")
    again = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokens = torch.arange(24)[None]
    with torch.no_grad():
        logits, expected = (each(tokens, use_cache=False).logits for each in (again, model))
        with model.disable_adapter():
            plain = model(tokens, use_cache=False).logits
    assert float((logits - expected).abs().max()) < 1e-4 < 1e-2 < float((plain - expected).abs().max())
