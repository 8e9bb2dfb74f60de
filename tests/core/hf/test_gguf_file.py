"""A GGUF file of each architecture is the checkpoint that it was made of. The gguf package names keys and tensors."""

import re

import gguf
import numpy as np
import pytest

from slm_core.errors import UserError
from slm_core.hf.gguf_architectures import ARCHITECTURES
from slm_core.hf.importing import open_checkpoint
from slm_core.model.compare import differences
from tests.core.hf.checkpoints import VALUES, write_checkpoint

MODELS = {
    "llama": "llama", "mixtral": "llama", "qwen3": "qwen3", "smollm3": "smollm3", "olmo2": "olmo2", "gemma2": "gemma2",
    "gemma3_text": "gemma3", "qwen3_moe": "qwen3moe", "gpt2": "gpt2", "gpt_neox": "gptneox",
}  # fmt: skip
"""{model_type: architecture in the file}"""


def write_gguf(file, family, tensors, change=lambda writer: None):
    """Writes what llama.cpp's converter does."""
    writer = gguf.GGUFWriter(file, MODELS[family])
    for name, value in VALUES[family].items():
        _add(writer, name, value)
    if family == "gpt_neox":
        writer.add_rope_dimension_count(2)
    change(writer)
    number = next(i for i, name in gguf.MODEL_ARCH_NAMES.items() if name == MODELS[family])
    names = gguf.get_tensor_name_map(number, 8)
    experts = {}
    for name, array in tensors.items():
        part = names.get_name(re.sub(r"\.experts\.\d+\.", ".experts.", name), (".weight", ".bias"))
        array = _changed(family, part, array)
        if ".experts." in name:
            experts.setdefault(part, []).append(array)
        else:
            writer.add_tensor(part, np.ascontiguousarray(array))
    for part, arrays in experts.items():
        writer.add_tensor(part, np.stack(arrays))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer, name, value):
    usual = {
        "hidden_size": writer.add_embedding_length, "n_embd": writer.add_embedding_length,
        "intermediate_size": writer.add_feed_forward_length, "n_inner": writer.add_feed_forward_length,
        "num_hidden_layers": writer.add_block_count, "n_layer": writer.add_block_count,
        "num_attention_heads": writer.add_head_count, "n_head": writer.add_head_count,
        "num_key_value_heads": writer.add_head_count_kv, "max_position_embeddings": writer.add_context_length,
        "n_positions": writer.add_context_length, "rms_norm_eps": writer.add_layer_norm_rms_eps,
        "layer_norm_epsilon": writer.add_layer_norm_eps, "layer_norm_eps": writer.add_layer_norm_eps,
        "rope_theta": writer.add_rope_freq_base, "head_dim": writer.add_key_length,
        "num_experts": writer.add_expert_count, "num_local_experts": writer.add_expert_count,
        "num_experts_per_tok": writer.add_expert_used_count, "vocab_size": writer.add_vocab_size,
        "moe_intermediate_size": writer.add_expert_feed_forward_length, "sliding_window": writer.add_sliding_window,
        "final_logit_softcapping": writer.add_final_logit_softcapping,
        "use_parallel_residual": writer.add_parallel_residual,
    }  # fmt: skip
    if name in usual:
        usual[name](value)
    if name == "head_dim":
        writer.add_value_length(value)
        writer.add_rope_dimension_count(value)
    if name == "rope_scaling":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(value["factor"])


def _changed(family, part, array):
    if MODELS[family] in ("llama", "smollm3") and re.search(r"attn_[qk]\.", part):
        heads = 4 if "attn_q" in part else 2
        return array.reshape(heads, 2, len(array) // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)
    if family == "gpt_neox" and "attn_qkv" in part:
        return array.reshape(4, 3, len(array) // 12, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
    if family.startswith("gemma") and part.endswith("norm.weight"):
        return array + 1
    if family == "gpt2" and re.search(r"(attn_qkv|attn_output|ffn_up|ffn_down)\.weight", part):
        return array.T
    return array


def test_each_architecture_has_a_case():
    assert set(MODELS.values()) == set(ARCHITECTURES)


@pytest.mark.parametrize("family", MODELS)
def test_a_gguf_file_is_the_checkpoint(family, tmp_path):
    tensors = write_checkpoint(tmp_path / "hf", family)
    write_gguf(tmp_path / "model.gguf", family, tensors)
    expected, items, _ = open_checkpoint(tmp_path / "hf")
    imported, read, _ = open_checkpoint(tmp_path / "model.gguf")
    assert imported.family.model_type == family and imported.vocab_size == expected.vocab_size
    assert not differences(imported.config, expected.config) and not differences(expected.config, imported.config)
    weights, given = dict(items), dict(read)
    assert set(weights) == set(given)
    for name, array in weights.items():
        np.testing.assert_allclose(given[name], array, atol=1e-6, err_msg=name)


def test_what_cannot_be_expressed_is_refused(tmp_path):
    tensors = write_checkpoint(tmp_path / "hf", "llama")
    write_gguf(tmp_path / "model.gguf", "llama", tensors | {"model.layers.0.mlp.up_proj.bias": np.ones(24, np.float32)})
    with pytest.raises(UserError, match="tensor blk.0.ffn_up.bias cannot be expressed"):
        open_checkpoint(tmp_path / "model.gguf")
    write_gguf(tmp_path / "model.gguf", "llama", tensors, lambda writer: writer.add_logit_scale(2.0))
    with pytest.raises(UserError, match="llama.logit_scale=2.0 cannot be expressed"):
        open_checkpoint(tmp_path / "model.gguf")
    write_gguf(tmp_path / "model.gguf", "llama", tensors, lambda writer: writer.add_value_length(5))
    with pytest.raises(UserError, match="llama.attention.value_length=5 is not the width of a head, 4"):
        open_checkpoint(tmp_path / "model.gguf")
    write_gguf(tmp_path / "model.gguf", "llama", tensors, lambda writer: writer.add_block_count(2**31))
    with pytest.raises(UserError, match="llama.block_count=2147483648, and it has 21 tensors"):
        open_checkpoint(tmp_path / "model.gguf")
    del tensors["model.norm.weight"]
    write_gguf(tmp_path / "model.gguf", "llama", tensors)
    with pytest.raises(UserError, match="tensor model.norm.weight, which config.json calls for, is not in"):
        dict(open_checkpoint(tmp_path / "model.gguf")[1])
