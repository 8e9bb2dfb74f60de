"""GGUF files and pytorch_model.bin files: the logits are those of the libraries that wrote them."""

from pathlib import Path

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # noqa: E402

from parity.oracle.measure import engine_with, randomise  # noqa: E402
from slm_core.errors import UserError  # noqa: E402
from slm_core.hf.importing import open_checkpoint  # noqa: E402
from slm_torch.bin_files import read_bin  # noqa: E402

WIDTH = 256  # of a block of Q4_K
SIZES = {
    "vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
CONFIGS = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config}
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
HEAD_DIM = {"llama": 64, "qwen3": 128}  # transformers takes 128 for every Qwen3 file
QUICK = (("llama", "Q4_K"), ("qwen3", "Q8_0"))
GGUF = [
    pytest.param(family, kind, marks=[] if (family, kind) in QUICK else pytest.mark.slow)
    for family in CONFIGS
    for kind in TYPES
]
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip
PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def build(family: str, **values):
    transformers.logging.set_verbosity_error()
    config = CONFIGS[family](**SIZES | {"head_dim": HEAD_DIM[family]} | values)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model)
    return model.eval()


def named(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    index, _, part = name.removeprefix("model.layers.").partition(".")
    module, _, leaf = part.rpartition(".")
    return f"blk.{index}.{PARTS[module]}.{leaf}"


def pairs(array: np.ndarray, heads: int) -> np.ndarray:
    """Orders rows as llama.cpp does: first and second of a pair side by side."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def quantised(array: np.ndarray, kind: str) -> np.ndarray:
    """Quantises a matrix. The package only reads Q4_K and Q6_K, so blocks of these have random numbers."""
    if kind not in ("Q4_K", "Q6_K"):
        return gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind])
    generator, size = np.random.default_rng(array.size), {"Q4_K": 144, "Q6_K": 210}[kind]
    blocks = generator.integers(0, 256, (array.size // WIDTH, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(2e-4).tobytes(), np.uint8)
    for start in {"Q4_K": (0, 2), "Q6_K": (208,)}[kind]:
        blocks[:, start : start + 2] = scale
    return blocks.reshape(array.shape[0], -1)


def write_gguf(file: Path, model, family: str, kind: str, **keys) -> None:
    writer = gguf.GGUFWriter(file, family)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(512)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(HEAD_DIM[family])
    writer.add_value_length(HEAD_DIM[family])
    writer.add_rope_dimension_count(HEAD_DIM[family])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(64)
    writer.add_name("tiny")
    writer.add_eos_token_id(3)
    for key, value in keys.items():
        writer.add_float32(f"{family}.{key.replace('__', '.')}", value)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        for part, heads in {"q_proj": 4, "k_proj": 2}.items():
            if family == "llama" and part in name:
                array = pairs(array, heads)
        small = array.ndim == 1
        data = array if small else quantised(array, kind)
        raw = None if small or kind in ("F32", "F16") else gguf.GGMLQuantizationType[kind]
        writer.add_tensor(named(name), np.ascontiguousarray(data), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_gguf(file: Path):
    """Loads a file by the code of transformers. Its from_pretrained would need accelerate."""
    config = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    tensors = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)["tensors"]
    assert tensors.keys() == model.state_dict().keys()
    model.load_state_dict(tensors)
    return model.eval()


def difference(source: Path, model, **options) -> float:
    """Returns the largest difference of the PyTorch twin's logits from a model's."""
    imported, items, _ = open_checkpoint(source, **options)
    engine = engine_with("torch", imported.config, imported.vocab_size, dict(items), "float32")
    tokens = torch.arange(40)[None] % 64
    with torch.no_grad():
        ours = engine.model.logits(engine.model(tokens)[0])
        return float((ours - model(tokens, use_cache=False).logits).abs().max())


@pytest.mark.parametrize(("family", "kind"), GGUF)
def test_a_gguf_file_is_what_transformers_makes_of_it(family, kind, tmp_path):
    file = tmp_path / "model.gguf"
    write_gguf(file, build(family), family, kind)
    loaded = load_gguf(file)
    assert difference(file, loaded) < 1e-4


def test_a_gguf_file_without_a_head_is_tied(tmp_path):
    file, model = tmp_path / "model.gguf", build("llama", tie_word_embeddings=True)
    write_gguf(file, model, "llama", "F32")
    imported = open_checkpoint(file)[0]
    assert imported.config.model.tie_embeddings and imported.tokens == {"eos_token_id": 3}
    assert difference(file, model) < 1e-4


def test_a_gguf_file_that_cannot_be_read_is_one_line(tmp_path):
    file = tmp_path / "model.gguf"
    write_gguf(file, build("llama"), "llama", "F32", new__trick=1.0)
    with pytest.raises(UserError, match="llama.new.trick=1.0 cannot be expressed"):
        open_checkpoint(file)
    file.write_bytes(b"GGUG" + bytes(64))
    with pytest.raises(UserError, match="cannot be read"):
        open_checkpoint(file)


def test_a_bin_file_is_the_same_model_in_pytorch_alone(tmp_path):
    model = build("llama")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert difference(tmp_path, model, read_bin=read_bin) < 1e-4
    with pytest.raises(UserError, match="read by PyTorch: import with --framework torch"):
        open_checkpoint(tmp_path)


def test_a_bin_file_with_code_in_it_is_refused(tmp_path):
    build("llama").config.save_pretrained(tmp_path)
    torch.save({"a": Path}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read .*save the model again"):
        open_checkpoint(tmp_path, read_bin=read_bin)
