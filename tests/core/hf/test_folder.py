"""Folders of Hugging Face checkpoints: shards, dtypes, and every way in which one can be wrong."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.config.pattern import pattern_of
from slm_core.errors import UserError
from slm_core.hf import exporting
from slm_core.hf.folder import INDEX, read_tensors, write_config, write_tensors
from slm_core.hf.importing import CONTEXT, open_folder, read_config
from tests.core.hf.checkpoints import write_checkpoint

LLAMA = {
    "model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True, "rope_theta": 500.0, "eos_token_id": 3,
}  # fmt: skip


def shapes():
    yield "model.embed_tokens.weight", (11, 8)
    yield "model.norm.weight", (8,)
    for i in range(2):
        layer = f"model.layers.{i}"
        for name, rows in {"q": 8, "k": 4, "v": 4, "o": 8}.items():
            yield f"{layer}.self_attn.{name}_proj.weight", (rows, 8)
        for name in ("gate", "up"):
            yield f"{layer}.mlp.{name}_proj.weight", (12, 8)
        yield f"{layer}.mlp.down_proj.weight", (8, 12)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{name}.weight", (8,)


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes()}


@pytest.fixture
def folder(tmp_path, tensors):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_a_folder_is_imported(folder, tensors):
    imported, items = open_folder(folder)
    weights = dict(items)
    assert imported.vocab_size == 11 and imported.tokens == {"eos_token_id": 3}
    assert imported.config.model.position.theta == 500.0
    assert weights["layers.1.attention.k_proj.weight"].shape == (8, 4)
    assert np.array_equal(weights["layers.1.mlp.up_proj.weight"], tensors["model.layers.1.mlp.up_proj.weight"].T)


def test_shards_and_names_without_the_prefix_are_the_same_model(folder, tensors, tmp_path):
    expected = dict(open_folder(folder)[1])
    (folder / "model.safetensors").unlink()
    names = {name.removeprefix("model."): value for name, value in tensors.items()}
    write_tensors(folder, names.items(), "float32", shard_bytes=600)
    assert len(json.loads((folder / INDEX).read_text())["weight_map"]) == len(tensors)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    sharded = dict(open_folder(folder)[1])
    assert all(np.array_equal(sharded[name], value) for name, value in expected.items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_dtypes_are_read(folder, tensors, dtype):
    save_file({name: x.astype(np.dtype(dtype)) for name, x in tensors.items()}, folder / "model.safetensors")
    read = read_tensors(folder)["model.norm.weight"]
    assert read.dtype == (np.float64 if dtype == "float64" else np.float32)
    assert np.allclose(read, tensors["model.norm.weight"], rtol=1e-2)


def test_integers_are_refused(folder, tensors):
    save_file(tensors | {"model.norm.weight": np.zeros(8, np.int8)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="model.norm.weight is int8: quantised"):
        dict(open_folder(folder)[1])


def test_a_missing_tensor_is_named(folder, tensors):
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="layers.1.mlp.up_proj.weight, which config.json calls for"):
        dict(open_folder(folder)[1])


def test_a_tensor_that_nothing_reads_is_named(folder, tensors):
    save_file(tensors | {"model.layers.0.self_attn.q_norm.weight": np.ones(4)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="q_norm.weight is not part of a llama model"):
        dict(open_folder(folder)[1])


def test_tensors_that_are_not_weights_are_passed_over(folder, tensors):
    """These are the copy of a tied head, and tables of rotations."""
    more = {"lm_head.weight": tensors["model.embed_tokens.weight"] + 0}
    more |= {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    save_file(tensors | more, folder / "model.safetensors")
    assert "head.weight" not in dict(open_folder(folder)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "lama"}, r"model_type='lama' is not a family here \(did you mean llama\?\)"),
        ({"hidden_act": "relu"}, "hidden_act='relu' of a llama model cannot be expressed: only 'silu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type='dynamic' cannot be expressed"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set"),
        ({"hidden_size": None}, "hidden_size=null of a llama model is not a whole number"),
        ({"num_attention_heads": 3}, "num_attention_heads=3 does not divide hidden_size=8"),
    ],
)
def test_a_config_that_no_family_reads_is_refused(folder, change, message):
    (folder / "config.json").write_text(json.dumps(LLAMA | change))
    with pytest.raises(UserError, match=message):
        open_folder(folder)


def test_files_that_are_missing_or_broken(folder, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        open_folder(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be read"):
        open_folder(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="pytorch_model.bin is read by PyTorch"):
        open_folder(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(UserError, match="model-1.safetensors, which model.safetensors.index.json names"):
        open_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json cannot be read"):
        open_folder(folder)


def test_a_field_that_is_not_known_is_refused_and_one_that_changes_nothing_is_not(folder):
    (folder / "config.json").write_text(json.dumps(LLAMA | {"new_trick": 1}))
    with pytest.raises(UserError, match="new_trick=1 is not known of a llama model"):
        read_config(folder)
    (folder / "config.json").write_text(json.dumps(LLAMA | {"use_cache": True, "is_causal": True}))
    assert read_config(folder).notes == []
    (folder / "config.json").write_text(json.dumps(LLAMA | {"is_causal": None}))
    with pytest.raises(UserError, match="is_causal is set to null"):
        read_config(folder)


def test_a_long_context_is_shortened_and_reported(folder):
    (folder / "config.json").write_text(json.dumps(LLAMA | {"max_position_embeddings": 8192}))
    imported = read_config(folder)
    assert imported.config.data.seq_len == CONTEXT and "--context=8192 for all of it" in imported.notes[0]
    assert read_config(folder, 8192).config.data.seq_len == 8192
    with pytest.raises(UserError, match="--context=9000"):
        read_config(folder, 9000)


def test_an_export_reverses_an_import(folder, tensors, tmp_path):
    imported, items = open_folder(folder)
    family, written = exporting.choose(imported.config)
    out = tmp_path / "out"
    out.mkdir()
    write_config(out, family, written, imported.vocab_size, imported.tokens, "float32")
    write_tensors(out, exporting.convert(family, written, dict(items), imported.config), "float32")
    back = read_tensors(out)
    assert set(back) == set(tensors)
    assert all(np.array_equal(back[name], value) for name, value in tensors.items())
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 3


def test_patterns_are_as_short_as_they_can_be():
    five = [{"attention.window": 8}] * 5 + [{}]
    assert pattern_of(five * 2) == "5*attention.window=8 | ."
    assert pattern_of([{}] * 4) == ""
    assert pattern_of([{"mlp.kind": "moe", "norm.eps": 1e-06}, {}, {}]) == "mlp.kind=moe,norm.eps=1e-06 | 2*."
    layers = [{"position.kind": "none"}, {}, {"attention.window": 3}]
    model = with_values(read_model(), {"n_layers": 3, "pattern": pattern_of(layers)})
    assert [layer.attention.window for layer in layer_specs(model)] == [0, 0, 3]
    assert [layer.position.kind for layer in layer_specs(model)] == ["none", "rope", "rope"]


def read_model():
    from slm_core.config import Model

    return Model()


def test_bfloat16_is_what_is_written(tmp_path):
    write_tensors(tmp_path, [("a", np.ones((2, 2), np.float32))], "bfloat16")
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.get_tensor("a").dtype == ml_dtypes.bfloat16


def test_a_foreign_folder_says_nothing_of_a_manifest_and_an_export_without_its_own_does(tmp_path, caplog):
    foreign = write_checkpoint(tmp_path / "foreign", "llama")
    open_folder(tmp_path / "foreign")
    assert not caplog.text
    ours = tmp_path / "ours"
    ours.mkdir()
    write_tensors(ours, foreign.items(), "float32")
    shutil.copyfile(tmp_path / "foreign" / "config.json", ours / "config.json")
    open_folder(ours)
    assert "has no manifest.json, so nothing says whether its bytes are those that were written" in caplog.text
