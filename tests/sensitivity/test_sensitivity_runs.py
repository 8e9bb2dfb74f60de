"""Every field about a run changes what the loop does; each about the machine changes what a twin asks of it."""

import functools
import itertools
import os
import subprocess
import types

import jax
import pytest
import torch
from sensitivity_cases import BASE, MACHINE, RUNS, cases
from sensitivity_runs import observe, sources, without_corpus, write_corpora, write_source

import slm_flax.device
import slm_torch.device
import slm_torch.trainer
from slm_core.errors import UserError
from tests.gates import require


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Observes the run of a config; each config is run once."""
    folder, numbers = tmp_path_factory.mktemp("runs"), itertools.count()
    write_corpora(folder)
    with sources(folder):
        write_source(folder)
        yield functools.cache(lambda config: observe(config, folder / f"run-{next(numbers)}"))


@pytest.fixture(scope="module")
def silent_sources(tmp_path_factory):
    """Returns the sources of which there is no text to run with."""
    write_corpora(folder := tmp_path_factory.mktemp("corpora"))
    return without_corpus(folder)


def test_every_source_has_a_corpus(silent_sources):
    require({source: "a corpus in write_corpora of tests/sensitivity/sensitivity_runs.py" for source in silent_sources})


@pytest.mark.parametrize("name", RUNS)
def test_a_field_changes_the_loop(name, observed, silent_sources):
    tried = [
        case
        for case in cases(name)
        if not case.context.startswith("optim.kind=")  # which the loop never asks
        and not {case.base.data.source, case.other.data.source} & silent_sources
    ]
    dead = [str(case) for case in tried if observed(case.base) == observed(case.other)]
    assert tried, f"{name} has no other value to try: give it one in OTHERS"
    assert dead == []


def test_two_runs_of_one_config_are_the_same(observed, tmp_path):
    write_corpora(tmp_path)
    with sources(tmp_path):
        assert observe(BASE, tmp_path / "again") == observed(BASE)


def torch_settings(config, patch):
    """Collects the PyTorch twin's calls to torch and its device, with a GPU of 24 GB and without one."""
    settings_made = []
    patch.setattr(torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace(total_memory=24e9))
    patch.setattr(torch.cuda, "set_per_process_memory_fraction", settings_made.append)
    patch.setattr(torch, "set_num_threads", settings_made.append)
    for gpu in (True, False):
        patch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        settings_made.append(picked(slm_torch.device, config))
    return settings_made


def flax_settings(config, patch):
    """Collects the options and variables that the Flax twin sets, and its device; nvidia-smi reports a GPU of 24 GB."""
    options, environment, devices = {}, {}, jax.devices("cpu")
    patch.setattr(jax.config, "update", options.__setitem__)
    patch.setattr(jax, "devices", lambda: devices)  # a GPU would have to be a real one
    patch.setattr(os, "environ", environment)
    patch.setattr(subprocess, "run", lambda *args, **kwargs: types.SimpleNamespace(stdout=f"{24e9 / 2**20}, 0"))
    return options, environment, picked(slm_flax.device, config)


def picked(twin, config):
    try:
        return str(twin.prepare_device(config))
    except UserError as error:
        return str(error)


SETTINGS = {"torch": torch_settings, "flax": flax_settings}


def settings(twin, config):
    with pytest.MonkeyPatch.context() as patch:
        return SETTINGS[twin](config, patch)


@pytest.mark.parametrize("name", [name for name in MACHINE if name != "run.compile"])
@pytest.mark.parametrize("twin", SETTINGS)
def test_a_field_changes_the_settings_of_the_machine(twin, name):
    tried = list(cases(name))
    dead = [str(case) for case in tried if settings(twin, case.base) == settings(twin, case.other)]
    assert tried
    assert dead == []


def test_compile_compiles_the_pytorch_twin(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    (case,) = cases("run.compile")
    for config in (case.base, case.other):
        slm_torch.trainer.build(config, 13)
    assert [function.__name__ for function in compiled] == ["_loss_sums"]
