"""The planner's choices fit, cost the least, and leave the given fields alone."""

import dataclasses

import pytest

from parity.memory import cases, planned
from slm_core.config import presets
from slm_core.config.fields import with_values
from slm_core.config.validation import validate
from slm_core.planner import PARTS, Prediction, predict
from slm_core.planner.declarations import matrix_weights_per_token, parameters
from slm_core.planner.report import advice, bars, picture, table
from slm_core.planner.resident import resident_memory
from slm_core.planner.search import ENOUGH, cheapest, enough, helpful, largest_micro_batch, resolved
from slm_core.runs.vocabulary import expected_vocabulary

TWINS = pytest.mark.parametrize("twin", [planned("torch"), planned("flax")], ids=["torch", "flax"])
VOCAB = 50257


def gpt2(**values):
    preset = presets.load("configs/gpt2.py:124m")[0]
    opened = {"memory.remat": "auto", "memory.loss_chunk": None, "train.micro_batch_size": 0}
    return with_values(preset, opened | {name.replace("__", "."): value for name, value in values.items()})


@TWINS
def test_plenty_of_memory_leaves_nothing_to_save(twin):
    chosen = cheapest(gpt2(), VOCAB, twin, 1e12)
    assert (chosen.memory.remat, chosen.memory.loss_chunk, chosen.train.micro_batch_size) == ("none", 0, 64)


@TWINS
@pytest.mark.parametrize("gigabytes", [3.5, 4.0, 6.0, 12.0, 24.0])
def test_what_is_chosen_fits_and_keeps_the_card_busy(twin, gigabytes):
    chosen = cheapest(gpt2(), VOCAB, twin, gigabytes * 1e9)
    assert predict(chosen, VOCAB, twin).total <= gigabytes * 1e9
    assert chosen.train.batch_size % chosen.train.micro_batch_size == 0
    assert chosen.train.micro_batch_size * 1024 >= ENOUGH
    validate(chosen)


@TWINS
def test_less_memory_never_costs_less(twin):
    order = ["none", "attention", "block", "full"]
    chosen = [cheapest(gpt2(), VOCAB, twin, gigabytes * 1e9) for gigabytes in (60, 24, 12, 8, 6, 5, 4, 3.5)]
    ranks = [order.index(config.memory.remat) for config in chosen]
    assert ranks == sorted(ranks)


@TWINS
def test_given_fields_are_kept(twin):
    config = gpt2(memory__remat="block", memory__loss_chunk=512, train__micro_batch_size=4)
    assert cheapest(config, VOCAB, twin, 6e9) == config
    assert cheapest(config, VOCAB, twin, 1e9) is None


@TWINS
def test_the_largest_micro_batch_fits_and_the_next_does_not(twin):
    config = gpt2(memory__remat="block", memory__loss_chunk=1024)
    size = largest_micro_batch(config, VOCAB, twin, 6e9)
    assert predict(resolved(config, micro_batch_size=size), VOCAB, twin).total <= 6e9
    assert predict(resolved(config, micro_batch_size=2 * size), VOCAB, twin).total > 6e9
    assert largest_micro_batch(config, VOCAB, twin, 1e9) == 0


@TWINS
def test_changes_save_memory_one_per_field_the_best_first(twin):
    config = gpt2()
    before = predict(resolved(config), VOCAB, twin).total
    changes = helpful(config, VOCAB, twin)
    totals = [change.total for change in changes]
    assert len(changes) >= 3 and totals == sorted(totals) and totals[-1] < before
    assert len({change.name for change in changes}) == len(changes)
    assert "train.micro_batch_size=1" in [change.text for change in changes]


LARGE = ["configs/gpt2.py:124m", "configs/llama.py:60m", "configs/llama.py:100m", "configs/llama.py:135m"]


def on_a_card(spec: str, **values):
    config = with_values(presets.load(spec)[0], {"precision.compute": "float32", "run.device": "cuda"})
    return with_values(config, {name.replace("__", "."): value for name, value in values.items()})


@TWINS
@pytest.mark.parametrize("spec", LARGE)
def test_presets_for_the_card_fit_it_at_a_context_of_1024(spec, twin):
    config = on_a_card(spec)
    chosen = cheapest(config, expected_vocabulary(config), twin, 6e9)
    assert chosen is not None and chosen.data.seq_len == 1024 and chosen.train.micro_batch_size == 8


@TWINS
def test_124m_parameters_take_what_is_promised(twin):
    config = on_a_card("configs/gpt2.py:124m", train__micro_batch_size=8)
    without_settings = on_a_card(
        "configs/gpt2.py:124m", train__micro_batch_size=8, memory__remat="none", memory__loss_chunk=0
    )
    assert predict(config, VOCAB, twin).total < 5.5e9
    assert predict(config, VOCAB, twin).total <= predict(without_settings, VOCAB, twin).total / 3


@TWINS
def test_changes_that_are_enough_together(twin):
    config = on_a_card("configs/gpt2.py:124m")
    assert helpful(config, VOCAB, twin)[0].total > 2e9
    together = enough(config, VOCAB, twin, 2e9)
    assert len(together) >= 2 and together[-1].total <= 2e9 < together[-2].total
    assert enough(config, VOCAB, twin, 1e8) == []


@TWINS
def test_lines_name_what_does_not_fit(twin):
    given = {"memory__remat": "none", "memory__loss_chunk": 0, "train__micro_batch_size": 8}
    lines = advice(gpt2(**given), VOCAB, [twin], 6e9)
    assert "largest micro-batch that fits: " in lines[0]
    assert "cheapest settings that fit: train.micro_batch_size=" in lines[1]
    assert "does not fit; these changes save the most: " in lines[2]
    assert len(advice(gpt2(**given | {"memory__remat": "auto"}), VOCAB, [twin], 6e9)) == 2


def test_tables_and_bars_add_up(tmp_path):
    prediction = Prediction(*(int(1e9) * n for n in (1, 2, 3, 4, 5, 6)))
    assert prediction.total == 21e9 and [field.name for field in dataclasses.fields(prediction)] == [*PARTS, "snapshot"]
    lines = table({"torch": prediction, "flax": prediction}, 20e9)
    assert lines[-1].split() == ["total", "21.00", "21.00", "GB", "of", "20.00", "GB"]
    bar = bars({"torch": prediction}, 10.5e9)[0]
    assert bar.count("|") == 1 and len(bar) == 8 + 60 + 1 and bar.count("S") == pytest.approx(17, abs=1)
    picture(tmp_path / "bars.png", {"here": {"torch": prediction}}, 20e9)
    assert (tmp_path / "bars.png").stat().st_size > 1000
    copied = dataclasses.replace(prediction, snapshot=int(9e9))
    assert (copied.total, copied.update) == (30e9, 21e9)
    assert "C snapshot" in "".join(table({"torch": copied}, 20e9)) and "snapshot" not in "".join(lines)
    assert bars({"torch": copied}, 10.5e9)[0].count("C") == pytest.approx(18, abs=1)


@TWINS
def test_a_cpu_has_room_for_the_copy_that_a_checkpoint_is_written_from(twin):
    config = gpt2(run__device="cpu")
    beside = predict(config, VOCAB, twin)
    state = resident_memory(config, VOCAB, twin.declare)
    assert beside.snapshot == state.weights + state.optimizer > 1e9
    waiting = {
        "run__async_saving": False, "run__device": "cuda", "train__checkpoint_every": 0, "train__steps": 200,
    }  # fmt: skip
    for name, value in waiting.items():
        assert predict(gpt2(**{"run__device": "cpu", name: value}), VOCAB, twin) != beside
        assert predict(gpt2(**{"run__device": "cpu", name: value}), VOCAB, twin).snapshot == 0
    best = gpt2(run__device="cpu", train__checkpoint_every=0, train__keep_best=True)
    assert predict(best, VOCAB, twin).snapshot == beside.snapshot
    assert "run.async_saving" in [change.name for change in helpful(resolved(config), VOCAB, twin)]


def test_a_token_meets_the_matrices_of_its_own_experts():
    config, vocab_size = cases()["moe"]
    layer = (2 * 384 + 2 * 128) * 384 + 384 * config.model.mlp.experts
    hidden = -(-1024 // 16) * 8  # of each of the two experts that share a dense MLP's width
    weights = matrix_weights_per_token(config, vocab_size, planned("torch").declare)
    assert weights == 6 * (layer + 2 * 3 * 384 * hidden)


@pytest.mark.parametrize("name", ["base", "moe", "mla", "lora, nf4", "GPT-2's block", "adamw8bit", "float16"])
def test_parameters_are_remembered_by_all_that_changes_them(name):
    (config, vocab_size), declare = cases()[name], planned("torch").declare
    declared = {name: (shape, spec.role, spec.dtype) for name, (shape, spec) in declare(config, vocab_size).items()}
    assert parameters(config, vocab_size, declare) == declared
    longer = with_values(config, {"data.seq_len": 512, "model.position.kind": "learned"})
    assert parameters(longer, vocab_size, declare)["position.weight"].shape == (512, 384)


def test_a_model_is_built_once_for_a_whole_search():
    built = []

    def declare(config, vocab_size):
        built.append(config)
        return planned("torch").declare(config, vocab_size)

    assert cheapest(gpt2(), VOCAB, dataclasses.replace(planned("torch"), declare=declare), 6e9) is not None
    assert len(built) == 1
