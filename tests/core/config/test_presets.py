"""Every preset: it is valid, has the size in its name and docstring, and follows its paper."""

import re

import pytest

from slm_core.config import Config, presets
from slm_core.config.fields import with_values
from slm_core.config.layers import layer_specs
from slm_core.config.validation import validate
from slm_core.runs.vocabulary import expected_vocabulary

SPECS = [
    f"{listed.path}:{variant}" if variant else listed.path
    for listed in presets.listing()
    for variant in (listed.variants or [""])
]
DOCS = {
    f"{listed.path}:{variant}" if variant else listed.path: doc
    for listed in presets.listing()
    for variant, doc in (listed.variants or {"": listed.doc}).items()
}


def _vocabulary(config: Config) -> int:
    if config.data.source == "task":
        return expected_vocabulary(config)
    characters = 65  # of the Shakespeare corpus that nanoGPT trains this setting on
    return {"byte": 256, "char": characters, "bpe": config.data.vocab_size}[config.data.tokenizer]


def parameters(config: Config) -> int:
    """Counts parameters from shapes alone."""
    model = config.model
    d = model.d_model
    total = _vocabulary(config) * d * (1 if model.tie_embeddings else 2)
    if model.position.kind == "learned":
        total += config.data.seq_len * d
    for layer in layer_specs(model):
        attention, mlp = layer.attention, layer.mlp
        q, kv = attention.n_heads * attention.head_dim, attention.n_kv_heads * attention.head_dim
        total += d * (q + 2 * kv) + q * d + attention.bias * (q + 2 * kv + d)
        inner = 2 if mlp.kind == "swiglu" else 1
        total += (inner + 1) * d * mlp.hidden + mlp.bias * (inner * mlp.hidden + d)
        total += 2 * d * (1 + layer.norm.bias)
    return total + d * (1 + model.norm.bias)


def test_presets_are_listed():
    assert set(SPECS) >= {
        "configs/default.py", "configs/gpt2.py:tiny", "configs/gpt2.py:124m", "configs/gpt2.py:nanogpt_cpu",
        "configs/llama.py:tiny", "configs/llama.py:60m", "configs/llama.py:100m",
    }  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_a_preset_is_valid(spec):
    config, _ = presets.load(spec)
    if config.data.source not in ("stdlib", "task"):
        config = with_values(config, {"data.path": "corpus.txt"})
    validate(config)


@pytest.mark.parametrize("spec", SPECS)
def test_the_docstring_gives_the_number_of_parameters(spec):
    said = re.search(r"\(([\d,]+) (parameters|with 65)", DOCS[spec]).group(1)
    assert int(said.replace(",", "")) == parameters(presets.load(spec)[0])


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.endswith("m")])
def test_the_name_gives_the_size(spec):
    million = float(spec.rpartition(":")[2].removesuffix("m"))
    assert parameters(presets.load(spec)[0]) == pytest.approx(million * 1e6, rel=0.05)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.endswith(":tiny")])
def test_tiny_is_tiny(spec):
    config, _ = presets.load(spec)
    assert parameters(config) < 150_000 and config.train.steps <= 50 and config.data.source == "stdlib"


def test_the_default_is_about_a_million():
    assert parameters(presets.load("configs/default.py")[0]) == pytest.approx(1e6, rel=0.1)


def test_gpt2_small_is_the_published_one():
    assert parameters(presets.load("configs/gpt2.py:124m")[0]) == 124_439_808


def test_nanogpt_cpu_is_the_published_setting():
    config, name = presets.load("configs/gpt2.py:nanogpt_cpu")
    model, optim = config.model, config.optim
    assert name == "gpt2-nanogpt_cpu"
    assert (model.n_layers, model.attention.n_heads, model.d_model, config.data.seq_len) == (4, 4, 128, 64)
    assert (config.train.batch_size, config.train.steps, model.dropout) == (12, 2000, 0.0)
    assert not (model.attention.bias or model.mlp.bias or model.norm.bias)
    assert (optim.lr, optim.lr * optim.min_lr_ratio, optim.warmup_steps) == (1e-3, 1e-4, 100)
    assert (optim.betas, optim.weight_decay, optim.decay_embeddings, optim.clip_norm) == ((0.9, 0.99), 0.1, True, 1.0)
    assert (model.mlp.kind, model.mlp.gelu, model.norm.kind) == ("gelu", "erf", "layernorm")
    assert (config.data.tokenizer, config.data.split, config.data.val_fraction) == ("char", "tail", 0.1)
    windows = (1_115_394 // 10) // config.data.seq_len
    assert config.train.eval_batches * config.train.batch_size >= windows  # the whole held-out tenth, every time
