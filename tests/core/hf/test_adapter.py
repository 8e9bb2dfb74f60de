"""PEFT adapter folders, by their documented format, and names on the Hub."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from slm_core.errors import UserError
from slm_core.hf import adapter
from slm_core.hf.hub import find_checkpoint
from slm_core.model.weights import Lazy

NAME = "model.layers.0.self_attn.q_proj.weight"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], "bias": "none"}


@pytest.fixture
def weights():
    generator = np.random.default_rng(0)
    arrays = {NAME: (6, 4), "lm_head.weight": (5, 4), "model.norm.weight": (4,)}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in arrays.items()}


def write(folder, config=CONFIG, rank=2, more=None):
    generator = np.random.default_rng(1)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{prefix}.lora_A.weight": generator.standard_normal((rank, 4)).astype(np.float32),
        f"{prefix}.lora_B.weight": generator.standard_normal((6, rank)).astype(np.float32),
    }
    (folder / adapter.CONFIG).write_text(json.dumps(config))
    save_file(tensors | (more or {}), folder / adapter.FILE_NAME)
    return tensors[f"{prefix}.lora_B.weight"] @ tensors[f"{prefix}.lora_A.weight"]


def opened(folder, weights):
    checkpoint = Lazy({name: lambda value=value: value for name, value in weights.items()})
    return adapter.merged(adapter.open_adapter(folder, checkpoint, "model."))


@pytest.mark.parametrize(("config", "scale"), [(CONFIG, 3.0), (CONFIG | {"use_rslora": True}, 6 / 2**0.5)])
def test_an_adapter_is_merged(tmp_path, weights, config, scale):
    product = write(tmp_path, config)
    merged = opened(tmp_path, weights)
    assert set(merged) == set(weights)
    assert np.allclose(merged[NAME], weights[NAME] + scale * product, atol=1e-6)
    assert np.array_equal(merged["model.norm.weight"], weights["model.norm.weight"])


def test_a_module_that_was_trained_whole_takes_the_place_of_the_checkpoints(tmp_path, weights):
    head = np.ones((5, 4), np.float32)
    write(tmp_path, more={"base_model.model.lm_head.weight": head})
    assert np.array_equal(opened(tmp_path, weights)["lm_head.weight"], head)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, 'peft_type="IA3" cannot be imported'),
        ({"use_dora": True}, "use_dora=true cannot be imported"),
        ({"init_lora_weights": "pissa"}, 'init_lora_weights="pissa" changed'),
        ({"new_trick": 1}, "new_trick=1 cannot be imported"),
        ({"r": 0}, "q_proj has rank 0, which is less than 1"),
        ({"rank_pattern": {"q_proj": 0}}, "q_proj has rank 0, which is less than 1"),
        ({"layers_to_transform": 0, "layers_pattern": 3}, "layers_pattern=3 is not a text"),
        ({"layers_to_transform": ["0"]}, "are not numbers of layers"),
        ({"target_modules": "("}, "is not a regular expression"),
        ({"target_modules": None}, "does not name it in target_modules"),
        ({"rank_pattern": {"q_proj": "2"}}, "rank_pattern"),
        ({"lora_alpha": "6"}, 'lora_alpha="6" is not a number'),
    ],
)
def test_what_is_no_plain_lora_is_refused(tmp_path, weights, config, message):
    write(tmp_path, CONFIG | config)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, weights)


def test_an_adapter_of_another_checkpoint_is_refused(tmp_path, weights):
    write(tmp_path)
    with pytest.raises(UserError, match="which the checkpoint does not have"):
        opened(tmp_path, {"model.norm.weight": weights["model.norm.weight"]})
    with pytest.raises(UserError, match=r"adds \[6, 4\] to tensor"):
        opened(tmp_path, weights | {NAME: weights[NAME][:, :3]})[NAME]
    more = {"base_model.model.model.embed_tokens.lora_magnitude_vector": np.ones((2, 5), np.float32)}
    write(tmp_path, more=more)
    with pytest.raises(UserError, match="not of a plain LoRA"):
        opened(tmp_path, weights)


def test_the_checkpoint_of_an_adapter_is_found_or_asked_for(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    write(tmp_path, CONFIG | {"base_model_name_or_path": "base"})
    assert adapter.base_folder(tmp_path, "") == tmp_path / "base"
    assert adapter.base_folder(tmp_path, str(base)) == base
    write(tmp_path, CONFIG | {"base_model_name_or_path": "owner/model"})
    with pytest.raises(UserError, match="adapter of owner/model, which is not a folder.*--base"):
        adapter.base_folder(tmp_path, "")


def test_a_path_is_a_path_and_a_name_is_looked_up_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint(str(tmp_path), "main") == tmp_path and asked == []
    assert find_checkpoint("owner/model", "v1") == tmp_path and asked == [("owner/model", "v1")]


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    import huggingface_hub

    def offline(*args, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nand no cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError) as caught:
        find_checkpoint("owner/model", "main")
    assert "the Hub cannot be reached" in str(caught.value) and "\n" not in str(caught.value)
