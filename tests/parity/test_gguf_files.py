"""GGUF files as transformers reads them: logits of further architectures, and the tokenizer inside the file."""

import pytest
import torch

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # noqa: E402

from parity.oracle.measure import engine_with  # noqa: E402
from slm_core.data.tokenizers import load_tokenizer  # noqa: E402
from slm_core.hf.importing import open_checkpoint  # noqa: E402
from slm_core.hf.run import import_run  # noqa: E402
from tests.core.hf.checkpoints import write_checkpoint  # noqa: E402
from tests.core.hf.test_gguf_file import write_gguf  # noqa: E402
from tests.core.hf.test_gguf_tokenizer import TEXTS, byte_level, keys_of, sentencepiece  # noqa: E402
from tests.tiers import some_slow  # noqa: E402

GEMMA = {"query_pre_attn_scalar": 8, "final_logit_softcapping": 7.0, "sliding_window": 4}
ROPE = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 90.0}}
READ = {
    "gemma2": GEMMA, "qwen3_moe": {"moe_intermediate_size": 12},
    "gemma3_text": GEMMA | {
        "final_logit_softcapping": None,
        "rope_parameters": ROPE | {"sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}},
    },
    "gpt2": {"n_positions": 16, "n_inner": 24, "vocab_size": 20},
}  # fmt: skip
"""{family whose files transformers reads, beside those of test_imports_of_files: fields that it does not read there}"""
TOKENIZERS = {
    "llama": ("llama", ""), "gpt2": ("gpt2", "gpt-2"), "qwen3": ("gpt2", "qwen2"), "gemma2": ("gpt2", "llama-bpe"),
}  # fmt: skip
"""{model_type: (tokenizer.ggml.model, tokenizer.ggml.pre)}"""


@pytest.fixture(autouse=True, scope="module")
def silence():
    transformers.logging.set_verbosity_error()


def load(file, **fields):
    """Loads a file by the code of transformers. Its from_pretrained would read the fields wrong that it lacks."""
    config = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    config.update(fields)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    tensors = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)["tensors"]
    loaded = model.load_state_dict(tensors, strict=False)
    assert not loaded.unexpected_keys and set(loaded.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    return model.eval()


@pytest.mark.parametrize("family", some_slow(READ, "gemma3_text", "gpt2", "qwen3_moe"))
def test_logits_are_those_of_transformers(family, tmp_path):
    file = tmp_path / "model.gguf"
    write_gguf(file, family, write_checkpoint(tmp_path / "hf", family))
    imported, items, _ = open_checkpoint(file)
    engine = engine_with("torch", imported.config, imported.vocab_size, dict(items), "float32")
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        expected = load(file, **READ[family])(tokens, use_cache=False).logits
        ours = engine.model.logits(engine.model(tokens)[0])
    assert float((ours - expected).abs().max()) < 1e-3 * max(1.0, float(expected.square().mean().sqrt()))


def add_tokenizer(writer, kind: str, pre: str) -> None:
    """Adds the keys of a tokenizer."""
    if kind == "llama":
        inner, more = sentencepiece()
        keys = keys_of(inner, kind=kind, **more)
    else:
        keys = keys_of(byte_level(pre), pre, add_bos_token=pre == "llama-bpe")
    for name, value in keys.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, str):
            writer.add_string(name, value)
        else:
            writer.add_bool(name, value) if isinstance(value, bool) else writer.add_uint32(name, value)


@pytest.mark.parametrize("family", some_slow(TOKENIZERS, "gpt2", "gemma2"))
def test_the_tokenizer_in_the_file_is_that_of_transformers(family, tmp_path):
    file = tmp_path / "files" / "model.gguf"
    tensors = write_checkpoint(tmp_path / "files", family)
    write_gguf(file, family, tensors, lambda writer: add_tokenizer(writer, *TOKENIZERS[family]))
    (tmp_path / "files" / "config.json").unlink()
    imported = import_run(file, tmp_path / "run", "torch", 0, lambda items, what: items)
    assert not imported.notes
    ours = load_tokenizer(tmp_path / "run" / "tokenizer")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "files", gguf_file=file.name)
    for text in filter(None, TEXTS):
        expected = theirs(text).input_ids
        assert ours.prompt(text) == expected, text
        assert ours.decode(expected) == theirs.decode(expected, clean_up_tokenization_spaces=False), text
