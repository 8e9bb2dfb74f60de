"""Fine-tuning: when the loop asks for the base's weights, which bases are refused, and the preset."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from slm_core.config import Config, Position, presets
from slm_core.config.fields import with_values
from slm_core.config.validation import validate
from slm_core.data.tokenizers import train_bpe
from slm_core.errors import UserError
from slm_core.model.weights import write_weights
from slm_core.runs.imported import describe_imported, make_imported
from slm_core.runs.saved import load_run
from slm_core.training.finetuning import open_base
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, change, make_config


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, steps=2, eval_every=0, sample_every=0)


def run(config, weights_of=None):
    """Returns the run's folder and what its engine was given: [(vocabulary, weights)]."""
    given = []

    def build(config, vocab_size, weights):
        given.append((vocab_size, weights))
        return BigramEngine(config, vocab_size, weights)

    return train(config, build, "torch", weights_of=weights_of).folder, given


def imported(config, rows=300, tokenizer=None, **values):
    """Returns the folder of an imported run; `values` are of its config."""
    folder = Path(config.run.dir) / "imported"
    write_weights(make_imported(folder), [("embed.weight", np.ones((rows, 4), np.float32))])
    if tokenizer:
        tokenizer.save(_made(folder / "tokenizer"))
    extra = {"model_type": "other", "eos_token_id": 7}
    describe_imported(folder, with_values(config, values), "flax", "other", rows, extra)
    return folder


def _made(folder):
    folder.mkdir()
    return folder


def refusal(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_that_starts_is_given_its_bases_weights_and_one_that_goes_on_is_not(config):
    base = imported(config)
    config = change(config, finetune__base=str(base), train__checkpoint_every=1)
    folder, given = run(config, lambda saved: f"weights of {saved.folder.name}")
    assert given == [(300, "weights of imported")]
    shutil.rmtree(folder / "checkpoints" / "step-00000002")  # as if it had been stopped at its first checkpoint
    assert run(config)[1] == [(300, None)]


def test_a_run_is_described_by_its_base(config):
    tokenizer = train_bpe([Path(config.data.path).read_text()], 290)
    base = imported(config, tokenizer=tokenizer)
    (base / "tokenizer" / "generation_config.json").write_text("{}")
    values = {"finetune.base": str(base), "data.tokenizer": f"file:{base / 'tokenizer' / 'tokenizer.json'}"}
    folder, _ = run(with_values(config, values), lambda saved: None)
    saved = load_run(folder)
    assert saved.vocab_size == 300 and saved.imported is None and saved.tokens == {"eos_token_id": 7}
    assert (folder / "tokenizer" / "generation_config.json").is_file()
    again = with_values(config, values | {"finetune.base": str(folder), "run.name": "again"})
    assert load_run(run(again, lambda saved: None)[0]).tokens == {"eos_token_id": 7}


def test_a_missing_base_is_refused(config):
    missing = change(config, finetune__base=str(Path(config.run.dir) / "imparted"))
    missing = change(missing, data__path="nowhere")  # the base is looked for first
    assert "no such run" in refusal(run, missing) and refusal(run, missing).startswith("finetune.base: ")
    imported(config)
    assert "did you mean imported" in refusal(run, missing)
    assert "has no checkpoint yet" in _without_checkpoint(config)


def _without_checkpoint(config):
    folder = Path(config.run.dir) / "imported"
    for path in sorted(folder.rglob("checkpoints/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return refusal(run, change(config, finetune__base=str(folder)))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model.d_model": 64}, "model.d_model=64: the model of finetune.base="),
        ({"model.pattern": "attention.window=4 | ."}, "model.pattern=attention.window=4 | .: "),
        ({"model.attention.n_kv_heads": 2}, "model.attention.n_kv_heads=2: "),
        ({"model.attention.bias": True}, "model.attention.bias=True: "),
        ({"model.norm.weight": "none"}, "model.norm.weight=none: "),
        ({"model.position.theta": 500.0}, "model.position.theta=500.0: "),
        ({"model.mup_base_width": 64, "model.dropout": 0.1}, "model.mup_base_width=64: "),
        ({"model.logit_softcap": 30.0}, "model.logit_softcap=30.0: "),
    ],
)
def test_a_base_of_another_function_is_refused(config, values, field):
    base = imported(config)
    message = refusal(open_base, with_values(config, {"finetune.base": str(base)} | values))
    assert message.startswith(field) and f"configs/finetune.py:{base}" in message
    other = change(with_values(config, {"finetune.base": ""}), run__dir=str(Path(config.run.dir) / "other"))
    swapped = change(config, finetune__base=str(imported(other, **values)))
    assert refusal(open_base, swapped).startswith(field.partition("=")[0])


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model.norm.eps": 1e-3}, "model.norm.eps=0.001: "),
        ({"model.position.theta": 500.0}, "model.position.theta=500.0: "),
        ({"model.pattern": "attention.window=4 | ."}, "model.pattern=attention.window=4 | .: "),
    ],
)
def test_a_difference_in_the_function_is_named_and_not_one_in_its_spelling(config, values, field):
    base = imported(config)
    same = {"finetune.base": str(base), "model.attention.n_kv_heads": config.model.attention.n_heads}
    assert open_base(with_values(config, same)).folder == base
    assert refusal(open_base, with_values(config, same | values)).startswith(field)


def test_fields_that_do_not_change_the_function_may_differ(config):
    base = imported(config, **{"model.attention.n_kv_heads": 4})
    values = {
        "finetune.base": str(base), "model.dropout": 0.1, "model.z_loss": 1e-4, "model.attention.kernel": "flash",
        "model.init_std": 0.01, "model.depth_scaled_init": False, "data.seq_len": 8, "optim.kind": "sgd",
    }  # fmt: skip
    assert open_base(with_values(config, values)).folder == base


def test_a_context_that_changes_the_function_is_refused(config):
    for position in ({"kind": "learned"}, {"kind": "rope", "scaling": "yarn", "scaling_factor": 4.0}):
        model = {"data.seq_len": 512} | {f"model.position.{name}": value for name, value in position.items()}
        elsewhere = change(config, run__dir=str(Path(config.run.dir) / position["kind"]))
        base = imported(elsewhere, **model)
        started = with_values(config, {"finetune.base": str(base)} | model)
        assert open_base(started).folder == base
        assert refusal(open_base, change(started, data__seq_len=128)).startswith("data.seq_len=128: ")


def test_a_tokenizer_other_than_the_bases_is_refused(config):
    text = Path(config.data.path).read_text()
    base = imported(config, tokenizer=train_bpe([text], 290))
    config = change(config, finetune__base=str(base))
    message = refusal(run, config)
    assert message.startswith("data.tokenizer=byte: ") and f"file:{base / 'tokenizer' / 'tokenizer.json'}" in message
    assert refusal(run, change(config, data__tokenizer="bpe", data__vocab_size=280)).startswith("data.tokenizer=bpe: ")


def test_more_tokens_than_rows_are_refused(config):
    config = change(config, finetune__base=str(imported(config, rows=200)))
    assert "it has 256 tokens and the model of" in refusal(run, config)


def test_tokens_that_were_trained_on_the_same_text_are_the_same(config):
    config = change(config, data__tokenizer="bpe", data__vocab_size=290)
    base, _ = run(config)
    started = change(config, finetune__base=str(base), run__name="on")
    assert run(started, lambda saved: "its weights")[1] == [(load_run(base).vocab_size, "its weights")]


def test_characters_of_another_text_are_refused(config, tmp_path):
    config = change(config, data__tokenizer="char")
    base, _ = run(config)
    (tmp_path / "other.txt").write_text("Ångström " * 1000)
    started = change(config, finetune__base=str(base), run__name="on")
    assert "characters" in refusal(run, change(started, data__path=str(tmp_path / "other.txt")))
    assert run(started, lambda saved: "its weights")[1] == [(load_run(base).vocab_size, "its weights")]


@pytest.mark.parametrize(
    "position", [Position(), Position(kind="learned"), Position(scaling="yarn", scaling_factor=2.0)]
)
def test_the_preset_takes_the_model_from_the_run(config, position):
    base = imported(config, tokenizer=train_bpe([Path(config.data.path).read_text()], 290), **{
        "data.seq_len": 4096, "model.position": position, "model.n_layers": 3, "optim.lr": 1.0,
    })  # fmt: skip
    preset, name = presets.load(f"configs/finetune.py:{base}")
    assert name.startswith("finetune-") and name.endswith("imported")
    assert preset.model == load_run(base).config.model and preset.finetune.base == str(base)
    assert preset.data.seq_len == (1024 if position == Position() else 4096)
    assert preset.data.tokenizer == f"file:{base / 'tokenizer' / 'tokenizer.json'}"
    assert (preset.finetune.kind, preset.finetune.frozen, preset.optim.lr) == ("lora", "nf4", 2e-4)
    validate(with_values(preset, {"data.path": "text.txt"}))
    assert open_base(preset).folder == base
    assert "data.path" in refusal(validate, preset)


def test_the_preset_without_a_run_says_how_to_get_one():
    message = refusal(presets.load, "configs/finetune.py")
    assert "configs/finetune.py:models/NAME" in message and "scripts/convert.py --import" in message
    assert "no such run" in refusal(presets.load, "configs/finetune.py:models/nothing")


def test_by_default_there_is_no_base():
    assert open_base(Config()) is None
