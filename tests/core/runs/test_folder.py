import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from slm_core.config.fields import flatten
from slm_core.data import load_tokenizer
from slm_core.errors import UserError
from slm_core.json_files import write_sealed
from slm_core.model.weights import read_weights, write_weights
from slm_core.runs.checkpoints import read_loop
from slm_core.runs.folder import open_run
from slm_core.runs.imported import describe_imported, make_imported
from slm_core.runs.naming import MAY_DIFFER, automatic_name
from slm_core.runs.saved import load_run
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, change, make_config
from tests.core.fake_trackers import install


def run(config, framework="torch", **kwargs):
    return train(config, BigramEngine, framework, **kwargs)


def prepared(config):
    from slm_core import data

    return data.prepare(config.data)


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, steps=3, sample_tokens=3)


def refusal(config, **kwargs):
    with pytest.raises(UserError) as error:
        run(config, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_config_json_says_everything_that_made_the_run(config):
    folder = run(config, preset="tiny").folder
    saved = json.loads((folder / "config.json").read_text())
    assert (saved["framework"], saved["preset"]) == ("torch", "tiny")
    assert saved["config"] == json.loads(json.dumps(dataclasses.asdict(config)))
    assert saved["config"]["optim"]["betas"] == [0.9, 0.95]
    assert saved["data"]["vocab_size"] == 256 and saved["data"]["fingerprint"]
    assert {"python", "numpy", "torch", "jax", "flax"} <= saved["versions"].keys()
    assert any((folder / "tokenizer").iterdir())


def test_load_run_gives_back_what_was_trained(config):
    folder = run(config).folder
    saved = load_run(folder)
    assert saved.config == config and saved.framework == "torch" and saved.folder == folder
    assert saved.checkpoint == folder / "checkpoints" / "step-00000003"
    assert saved.vocab_size == 256
    assert load_run(str(folder)) == saved


def test_automatic_names():
    config = make_config.__globals__["Config"]()
    assert automatic_name(config, "torch", "llama-60m") == "llama-60m-torch"
    assert automatic_name(config, "flax", "default", ["run.dir", "run.device"]) == "default-flax"
    named = automatic_name(config, "flax", "default", ["model.d_model", "optim.betas", "run.dir"])
    assert named.startswith("default-flax-") and len(named) == len("default-flax-") + 6
    assert named == automatic_name(config, "flax", "default", {"optim.betas": 0, "model.d_model": 0})
    wider = change(config, model=dataclasses.replace(config.model, d_model=256))
    assert named != automatic_name(wider, "flax", "default", ["model.d_model", "optim.betas"])


def test_what_may_change_does_not_rename_a_run():
    names = [name for name in flatten(make_config.__globals__["Config"]()) if name.startswith(MAY_DIFFER)]
    assert "memory.limit_gb" in names
    assert automatic_name(make_config.__globals__["Config"](), "flax", "default", names) == "default-flax"


def test_a_run_without_a_name_gets_the_automatic_one(config):
    folder = run(change(config, run__name=""), preset="mine", overrides={"train.steps": 3}).folder
    assert folder.name.startswith("mine-torch-")


@pytest.mark.parametrize("name", ["a/b", "..", ".", ".hidden", "/tmp"])
def test_invalid_names_are_refused(config, name):
    assert refusal(change(config, run__name=name)).startswith(f"run.name={name!r}: ")


def test_another_config_is_refused_with_both_values(config):
    run(config)
    other = change(config, optim__lr=0.5, train__batch_size=2, train__log_every=1, run__tensorboard=False)
    message = refusal(other)
    assert "optim.lr=0.01 (now 0.5), train.batch_size=4 (now 2); " in message
    assert "tensorboard" not in message and "log_every" not in message
    assert "--config.run.resume=False" in message and "--config.run.branch=NAME" in message


def test_many_differences_are_cut_short(config):
    run(config)
    other = change(
        config, data__seq_len=9, train__batch_size=9, optim__lr=9.0, optim__eps=9.0, seed=9, optim__clip_norm=9.0
    )
    assert " and 2 more; " in refusal(other)


FREE = [n for n in flatten(make_config.__globals__["Config"]()) if n.startswith(MAY_DIFFER) and n != "run.branch"]
"""Fields that the same run may change. With run.branch it is another one."""


@pytest.mark.parametrize("name", FREE)
def test_fields_that_may_differ(config, name, monkeypatch):
    install(monkeypatch, "wandb")
    run(config)
    section, field = name.split(".")
    old = flatten(config)[name]
    new = {
        "run.dir": config.run.dir,
        "run.name": "run",
        "run.resume": True,
        "run.resume_from": str(Path(config.run.dir) / "run"),
        "run.device": "cpu",
        "run.threads": 1,
        "run.tracker": "wandb",
        "data.dir": config.data.dir + "2",
    }.get(name, not old if isinstance(old, bool) else 1)
    assert run(change(config, **{f"{section}__{field}": new})).folder.name == "run"


def test_another_framework_is_refused(config):
    run(config)
    assert "was trained by the torch twin (now flax)" in refusal(config, framework="flax")


def test_changed_text_is_refused(config):
    run(config)
    text = Path(config.data.path)
    text.write_text(text.read_text().replace("fox", "cat"))
    assert "the text changed since" in refusal(config)


def test_a_run_without_a_checkpoint_starts_over(config):
    def broken_build(config, vocab_size, weights):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        train(config, broken_build, "torch")
    smaller = change(config, train__batch_size=2)
    folder = run(smaller, framework="flax").folder
    assert load_run(folder).config == smaller and load_run(folder).framework == "flax"


def test_two_processes_cannot_train_the_same_run(config):
    dataset = prepared(config)
    with open_run(config, "torch", "default", (), dataset):
        assert "another process is training in" in refusal(config)
        with open_run(change(config, run__resume=False), "torch", "default", (), dataset) as beside:
            assert beside.path.name == "run-2"
    assert run(config).finished


def test_old_checkpoints_that_a_crash_left_are_removed_though_the_run_is_complete(config):
    kept = change(config, train__checkpoint_every=1, train__keep_checkpoints=3)
    folder = run(kept).folder
    assert len(list(folder.glob("checkpoints/step-*"))) == 3
    run(change(kept, train__keep_checkpoints=1))
    assert [path.name for path in folder.glob("checkpoints/step-*")] == ["step-00000003"]


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("when", ["train_step", "save"])
def test_a_run_that_is_removed_while_it_trains_is_not_made_anew_without_its_files(config, when, replaced):
    path = Path(config.run.dir) / config.run.name

    class Removing(BigramEngine):
        def __init__(self, *given):
            super().__init__(*given)
            original = getattr(self, when)

            def remove(*given):
                shutil.rmtree(path)
                if replaced:
                    path.mkdir()
                return original(*given)

            setattr(self, when, remove)

    with pytest.raises(UserError, match="removed, renamed or replaced while it trained") as caught:
        train(config, Removing, "torch")
    assert "\n" not in str(caught.value) and not (path / "checkpoints").exists()


def test_a_folder_that_is_not_a_run_is_left_alone(config):
    folder = Path(config.run.dir) / "run"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    assert "is not a run (it holds thesis.txt and no config.json)" in refusal(config)


def test_a_run_dir_that_cannot_be_made(config, tmp_path):
    (tmp_path / "file").write_text("")
    assert refusal(change(config, run__dir=str(tmp_path / "file"))).startswith("run.dir=")


def test_load_run_names_the_nearest_run(config):
    folder = run(config).folder
    with pytest.raises(UserError, match=r"models/rum: no such run \(did you mean run\?\)"):
        load_run(folder.parent / "rum")
    with pytest.raises(UserError, match="no such run; runs in .*models: run"):
        load_run(folder.parent / "xyzzy")
    with pytest.raises(UserError, match="no such run; there are no runs in"):
        load_run(folder / "nothing")
    with pytest.raises(UserError, match="not a run: it has no config.json"):
        load_run(folder.parent)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {}, "framework": "torch", "data": {}}'])
def test_load_run_of_a_broken_config(config, text):
    folder = run(config).folder
    (folder / "config.json").write_text(text)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="config.json is broken .*; restore the file"):
        load_run(folder)


def test_a_broken_config_is_read_from_its_copy_and_put_back_by_training(config, caplog):
    folder = run(config).folder
    path = folder / "config.json"
    before = path.read_text()
    path.write_text(before.replace('"torch"', '"flax"'))
    assert load_run(folder).framework == "torch"
    assert "its copy in step-00000003 is used" in caplog.text
    run(config)
    assert path.read_text() == before


def test_load_run_of_a_field_that_this_version_lacks(config):
    folder = run(config).folder
    path = folder / "config.json"
    write_sealed(path, json.loads(path.read_text().replace('"d_model"', '"d_modle"')))
    with pytest.raises(UserError, match="config.json: .*d_modle.*d_model"):
        load_run(folder)


def test_load_run_before_the_first_checkpoint(config):
    open_run(config, "torch", "default", (), prepared(config)).close()
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_run(Path(config.run.dir) / "run")


def imported(config, name="foreign", **extra):
    """Returns the folder of a run whose weights come from elsewhere."""
    folder = Path(config.run.dir) / name
    write_weights(make_imported(folder), [("embed.weight", np.ones((7, 4), np.float32))])
    describe_imported(folder, config, "flax", "other", 7, {"model_type": "other"} | extra)
    return folder


def test_an_imported_run_is_loaded(config):
    folder = imported(config, eos_token_id=[1, 2])
    saved = load_run(folder)
    assert (saved.framework, saved.vocab_size, saved.fingerprint) == ("flax", 7, "imported")
    assert saved.config == config and saved.imported == {"model_type": "other", "eos_token_id": [1, 2]}
    assert saved.checkpoint == folder / "checkpoints" / "step-00000000"
    assert read_weights(saved.checkpoint / "weights")["embed.weight"].shape == (7, 4)
    assert read_loop(saved.checkpoint).progress.step == 0
    assert {"versions", "commit"} <= json.loads((folder / "config.json").read_text()).keys()


def test_a_trained_run_is_not_imported(config):
    assert load_run(run(config).folder).imported is None


def test_an_imported_run_has_a_tokenizer_only_if_one_was_given(config):
    with pytest.raises(UserError, match=r"tokenizer folder .*foreign/tokenizer'"):
        load_tokenizer(imported(config) / "tokenizer")


def test_training_does_not_continue_an_imported_run(config):
    folder = imported(config)
    before = sorted(folder.rglob("*"))
    for framework in ("torch", "flax"):
        message = refusal(change(config, run__name="foreign"), framework=framework)
        assert message.startswith("run.name='foreign': ") and "imported model" in message
    assert [path for path in sorted(folder.rglob("*")) if path.name != ".lock"] == before
    assert run(change(config, run__name="foreign", run__resume=False)).folder.name == "foreign-2"


def test_an_import_leaves_what_is_there_alone(config):
    trained = run(config).folder
    for folder in (trained, imported(config)):
        before = sorted(folder.rglob("*"))
        with pytest.raises(UserError, match="already holds"):
            make_imported(folder)
        assert sorted(folder.rglob("*")) == before
    with pytest.raises(UserError, match="cannot be made"):
        make_imported(Path(config.data.path) / "run")


def test_an_unfinished_import_starts_over(config):
    folder = Path(config.run.dir) / "foreign"
    write_weights(make_imported(folder), [("left.over", np.ones(3))])
    assert set(read_weights(load_run(imported(config)).checkpoint / "weights")) == {"embed.weight"}
