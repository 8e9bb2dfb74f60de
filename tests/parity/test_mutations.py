"""Puts one fault at a time into one twin: a check must find it, and the bisector must name its module.

A proof that cannot fail is a defect. The faults are in `faults`, and `mutation_score` prints their score. By default
it makes one fault per check; with -m slow all of them.
"""

import functools
from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from faults import CONFIGS, FAULTS, OFF, RULES, SECTIONS, SIZES, SPLIT
from faults.pairs import HANDED_OVER, UPDATES
from torch import nn

import slm_torch.trainer
from parity.bisect import bisect_pair
from parity.cases import REGISTRIES, numerics
from parity.distances import of_order_one
from parity.pair import PERTURBATION, Pair, release
from parity.probe import Probe, probe_torch
from parity.state_transfer import perturbed, snapshot
from parity.suite import checks_of, measure
from slm_core.config.fields import field_table
from tests.gates import require
from tests.tiers import some_slow

SAMPLED = {
    fault.check: name for name, fault in reversed(FAULTS.items()) if fault.pair == "dense" and fault.check != "decoding"
}
"""{check: the first fault of the plain model that it must find}. Decoding, the last check, is slow."""


CASES = [
    pytest.param(fault.pair, name, id=f"{fault.pair}-{name}") for name, fault in FAULTS.items() if fault.twin == "torch"
]
IN_FLAX = [name for name, fault in FAULTS.items() if fault.twin == "flax"]
PAIRS = some_slow(CONFIGS, *CONFIGS.keys() - {"dense"})
SECTION = {name: section for section, faults in SECTIONS.items() for name in faults}
PLACE = {name: i for i, name in enumerate(FAULTS)}
PROBED = {"logits", "gradients", "decoding"}
"""Checks that read `Pair.probes`."""


@functools.lru_cache(maxsize=1)
def built(name: str) -> Pair:
    """Builds a pair of twins. The pair before it is dropped, because JAX's precision is a setting of the process."""
    release()
    tiny = CONFIGS[name]
    pair = Pair(tiny.case(name), tiny.precision)
    pair.initial = pair.initial or {name: snapshot(engine) for name, engine in pair.engines.items()}
    return pair


@pytest.fixture
def pair(request) -> Iterator[Pair]:
    pair = built(request.param)
    pair.start()
    yield pair


@pytest.fixture(scope="module", autouse=True)
def last_pair_dropped() -> Iterator[None]:
    yield
    built.cache_clear()
    release()


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Sets few updates, and tiles of 4, so that the models' 16 tokens fill several."""
    monkeypatch.setattr("parity.checks.UPDATES", UPDATES)
    monkeypatch.setattr("parity.checks.HANDED_OVER", HANDED_OVER)
    monkeypatch.setattr("parity.bisect.twins.STEPS", UPDATES)
    monkeypatch.setattr(import_module("slm_torch.layers.flash"), "TILE", 4)


def checks(pair: Pair) -> list[int]:
    return checks_of(pair.case, pair.precision)


def first_failure(pair: Pair) -> str | None:
    return next((result.check for result in measure(pair, checks(pair)) if not result.passed), None)


def sound_probe(pair: Pair) -> Probe | None:
    """Runs the Flax twin on the tokens if a check reads that. The pair starts anew."""
    probe = pair.probes[1] if PROBED & set(checks(pair)) else None
    pair.start()
    return probe


def first_failure_of_a_broken_twin(pair: Pair, sound: Probe | None) -> str | None:
    """Runs the suite with a PyTorch twin that was broken after `sound` was made."""
    if sound is not None:
        started = snapshot(pair.torch)
        pair.torch.import_state(perturbed(started, PERTURBATION))
        vars(pair)["probes"] = probe_torch(pair.torch, pair.tokens), sound
        pair.torch.import_state(started)
    try:
        return first_failure(pair)
    finally:
        vars(pair).pop("probes", None)


def break_twin(pair: Pair, name: str, patch: pytest.MonkeyPatch) -> None:
    """Makes a fault in the PyTorch twin, which then starts from the seed's weights."""
    fault = FAULTS[name]
    fault.apply(pair.torch, patch)
    if fault.check == "initial_weights":
        anew = slm_torch.trainer.build(pair.config, pair.case.vocab_size)
        patch.setitem(pair.initial, "torch", snapshot(anew))
        pair.torch.import_state(pair.initial["torch"])


def record(record_property, name: str, proof: str) -> None:
    fault = FAULTS[name]
    told = {"section": SECTION[name], "about": fault.about, "check": fault.check, "module": fault.module}
    record_property("mutation", {"place": PLACE[name], "fault": name, "proof": proof, **told})


def assert_a_check_finds_it(pair: Pair, name: str) -> None:
    sound = sound_probe(pair)
    with pytest.MonkeyPatch.context() as patch:
        break_twin(pair, name, patch)
        assert first_failure_of_a_broken_twin(pair, sound) == FAULTS[name].check


def assert_the_bisector_names_its_module(pair: Pair, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        break_twin(pair, name, patch)
        divergence = bisect_pair(pair)
        assert divergence is not None and divergence.module == FAULTS[name].module


@pytest.mark.parametrize("name", SAMPLED.values(), ids=str)
@pytest.mark.parametrize("pair", ["dense"], indirect=True)
def test_one_fault_per_check_is_found_and_named(pair, name):
    assert_a_check_finds_it(pair, name)
    pair.start()
    assert_the_bisector_names_its_module(pair, name)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "name"), CASES, indirect=["pair"])
def test_a_check_finds_a_fault(pair, name, record_property):
    record(record_property, name, "caught")
    assert_a_check_finds_it(pair, name)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "name"), CASES, indirect=["pair"])
def test_the_bisector_names_the_module_of_a_fault(pair, name, record_property):
    record(record_property, name, "named")
    assert_the_bisector_names_its_module(pair, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_FLAX)
def test_a_fault_of_the_flax_twin_is_found_and_named(name, monkeypatch, record_property):
    record(record_property, name, "caught")
    record(record_property, name, "named")
    fault = FAULTS[name]
    built.cache_clear()  # the Flax twin of a pair that is built is compiled already
    try:
        with monkeypatch.context() as patch:
            fault.apply(None, patch)
            pair = built(fault.pair)
            assert first_failure(pair) == fault.check
            pair.start()
            divergence = bisect_pair(pair)
        assert divergence is not None and divergence.module == fault.module
        assert divergence.detail == "only under memory.remat, in Flax"
    finally:
        built.cache_clear()


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_a_sound_pair_passes_every_check(pair):
    assert first_failure(pair) is None


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_a_sound_pair_has_nothing_to_name(pair):
    assert bisect_pair(pair) is None


@pytest.mark.parametrize("pair", ["dense"], indirect=True)
def test_other_initial_weights_fail_the_first_check(pair):
    name, parameter = next(iter(pair.torch.params.items()))
    with torch.no_grad():
        parameter.view(-1)[0] += 1e-16 + parameter.view(-1)[0].abs() * 1e-15
    assert first_failure(pair) == "initial_weights"
    assert isinstance(parameter, nn.Parameter) and name


@pytest.mark.parametrize("pair", ["dense"], indirect=True)
def test_initial_zeros_would_hide_a_missing_bias(pair, monkeypatch):
    """The weights are perturbed for this reason: with those of the seed, logits agree without the bias."""
    with monkeypatch.context() as patch:
        sound = probe_torch(pair.torch, pair.tokens)
        FAULTS["no bias of the output"].apply(pair.torch, patch)
        assert of_order_one(probe_torch(pair.torch, pair.tokens).logits, sound.logits) == 0


def subjects() -> set[str]:
    """Lists the subjects that must have a fault: every component, choice, field with arithmetic, and rule."""
    names = {rule for rules in RULES.values() for rule in rules}
    scaler = {name for name in field_table() if name.startswith("precision.loss_scale")}
    for name in numerics() | scaler:
        choices, leaf = field_table()[name].option.choices, name.rpartition(".")[2]
        short = name.removeprefix("model.")
        if name in REGISTRIES:
            names |= set(choices)
        elif choices:
            names |= {f"{leaf}={choice}" for choice in choices if choice not in OFF}
        elif short not in SIZES | SPLIT:
            names.add(short)
    return names


def test_everything_has_a_fault():
    silent = subjects() - {fault.about for fault in FAULTS.values()}
    require({name: "a fault in tests/parity/faults/ that the proof must find" for name in silent})


def test_every_fault_is_about_something_known():
    assert {fault.about for fault in FAULTS.values()} - subjects() == set()
    assert sum(len(faults) for faults in SECTIONS.values()) == len(FAULTS)
    assert {fault.pair for fault in FAULTS.values()} == set(CONFIGS)
