"""The trainer's choices on a device, with an invented planner: what fits, why, and the error if nothing fits."""

import pytest

from slm_core import planner
from slm_core.config import Attention, Config, Data, Memory, Model, Precision, Run, Train
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.hardware import devices
from slm_core.hardware.compute import matmul_shapes
from slm_core.hardware.devices import Device
from slm_core.model.initialization import Spec
from slm_core.planner import Prediction, Twin, search
from slm_core.planner.resolve import differences, memory_limit, resolve_auto

VOCAB = 1000
CONFIG = Config(
    model=Model(d_model=64, n_layers=4, attention=Attention(kernel="dot_product")),
    data=Data(seq_len=100),
    train=Train(batch_size=8),
    run=Run(device="cpu"),
)
TOKENS = 1e6  # bytes per token of the activations without rematerialisation, and of the logits


def predict(config: Config, vocab_size: int, twin: Twin) -> Prediction:
    """Activations fall with remat and by half in float16, logits with chunks."""
    assert config.memory.remat != "auto" and config.memory.loss_chunk is not None and config.train.micro_batch_size
    tokens = config.train.micro_batch_size * config.data.seq_len
    part = {"none": 1.0, "attention": 0.6, "block": 0.3, "full": 0.2}[config.memory.remat]
    half = 0.5 if config.precision.compute in ("float16", "bfloat16") else 1.0
    chunk = min(tokens, config.memory.loss_chunk or tokens)
    return Prediction(10**8, 10**8, 10**8, int(tokens * TOKENS * part * half), int(chunk * TOKENS), 0)


@pytest.fixture(autouse=True)
def small_planner(monkeypatch):
    monkeypatch.setattr(planner, "predict", predict)
    monkeypatch.setattr(search, "predict", predict)
    monkeypatch.setattr(search, "CHUNK", 50)


def never(*_: object) -> float:
    raise AssertionError("nothing should be timed")


TWIN = Twin("torch", lambda config, vocab_size: {"layers.0.attention.q_proj.weight": ((64, 64), Spec("matrix"))}, never)


def times(**seconds: float):
    return lambda dtype, shapes: seconds[dtype]


def gpu(name, capability, total, taken, fused="a kernel", matmul_seconds=never) -> Device:
    bfloat16 = capability >= (8, 0)
    return Device("gpu", name, capability, bfloat16, int(total), int(total - taken), fused, matmul_seconds, never)


def turing(float16: float = 8e-3, float32: float = 1e-3, taken: float = 1e9, fused: str = "a kernel") -> Device:
    return gpu("GTX 1660 Ti", (7, 5), 6.2e9, taken, fused, times(float16=float16, float32=float32, bfloat16=2e-3))


CPU = Device("cpu", "CPU", None, False, 64 * 10**9, 32 * 10**9, "a kernel", never, never)
AMPERE = gpu("RTX 3090", (8, 6), 24e9, 0, matmul_seconds=times(float16=0.9e-3, float32=4e-3, bfloat16=1e-3))


def resolved(values: dict, device: Device = CPU, trains: bool = True) -> tuple[Config, dict[str, str]]:
    return resolve_auto(with_values(CONFIG, values), VOCAB, TWIN, device, trains)


def choices(config: Config) -> tuple:
    return (
        config.precision.compute, config.memory.remat, config.memory.loss_chunk, config.train.micro_batch_size
    )  # fmt: skip


def test_what_fits_is_not_made_smaller():
    config, lines = resolved({})
    assert choices(config) == ("float32", "none", 0, 8)
    assert lines == {
        "precision.compute": "float32 (a CPU gains nothing from fewer bits)",
        "memory.remat": "none (fits)",
        "memory.loss_chunk": "0 (fits)",
        "train.micro_batch_size": "8 (fits)",
        "memory.limit_gb": "1.90 of 6.00 GB predicted: weights 0.10, gradients 0.10, optimizer 0.10, "
        "activations 0.80, logits 0.80, workspace 0.00",
    }


def test_what_does_not_fit_is_made_smaller_and_says_why():
    config, lines = resolved({"memory.limit_gb": 0.7})
    assert choices(config) == ("float32", "block", 50, 8)
    assert lines["memory.remat"] == "block (none would take 1.15 of 0.70 GB)"
    assert lines["memory.loss_chunk"] == "50 (0 would take 1.34 of 0.70 GB)"
    assert lines["train.micro_batch_size"] == "8 (fits)"


def test_what_the_user_chose_stays():
    given = {"memory.remat": "none", "memory.loss_chunk": 50, "memory.limit_gb": 0.8}
    config, lines = resolved(given)
    assert choices(config) == ("float32", "none", 50, 4)
    assert lines["train.micro_batch_size"] == "4 (8 would take 1.15 of 0.80 GB)"
    assert "memory.remat" not in lines and "memory.loss_chunk" not in lines


def test_one_sequence_that_does_not_fit_stops_with_what_helps():
    with pytest.raises(UserError) as caught:
        resolved({"memory.limit_gb": 0.36})
    assert str(caught.value) == (
        "memory.limit_gb=0.36: this run would take 0.37 GB at the least in PyTorch (weights 0.10, gradients 0.10, "
        "optimizer 0.10, activations 0.02, logits 0.05, workspace 0.00): set precision.compute=float16 (0.36 GB), "
        "or data.seq_len=50 (0.36 GB), or memory.limit_gb=0.4, which is free"
    )


def test_explicit_settings_that_do_not_fit_stop_with_what_helps():
    given = {"memory.remat": "none", "memory.loss_chunk": 0, "train.micro_batch_size": 8, "memory.limit_gb": 1.0}
    with pytest.raises(UserError, match=r"this run would take 1.90 GB in PyTorch .*: set ") as caught:
        resolved(given)
    assert str(caught.value).count(" or ") == 3 and "memory.loss_chunk=50 (1.15 GB)" in str(caught.value)


def test_memory_of_other_processes_is_not_free():
    free = turing(taken=5.5e9)
    assert memory_limit(CONFIG, free) == pytest.approx(0.95 * 0.7e9)
    config, lines = resolved({}, free)
    assert choices(config)[1:3] == ("block", 50)
    assert "of 0.67 GB predicted" in lines["memory.limit_gb"]
    with pytest.raises(UserError, match="and 0.30 GB of 6.20 GB are free: set"):
        resolved({}, turing(taken=5.9e9))
    assert memory_limit(with_values(CONFIG, {"memory.limit_gb": 0.0}), turing(taken=1e9)) == pytest.approx(0.95 * 5.2e9)


def test_a_gpu_with_bfloat16_computes_in_it():
    config, lines = resolved({}, AMPERE)
    assert config.precision.compute == "bfloat16"
    assert lines["precision.compute"] == (
        "bfloat16 (matrix products of a layer and the head take 4.00 ms in float32, 0.90 ms in float16, "
        "1.00 ms in bfloat16)"
    )


def test_a_gpu_whose_bfloat16_is_slow_computes_in_float32():
    slow = gpu("RTX 3090", (8, 6), 24e9, 0, matmul_seconds=times(float16=5e-3, float32=4e-3, bfloat16=4.5e-3))
    assert resolved({}, slow)[0].precision.compute == "float32"
    equal = gpu("RTX 3090", (8, 6), 24e9, 0, matmul_seconds=times(float16=5e-3, float32=4e-3, bfloat16=4.3e-3))
    assert resolved({}, equal)[0].precision.compute == "bfloat16"


def test_turing_computes_in_what_is_faster_there():
    config, lines = resolved({}, turing())
    assert config.precision.compute == "float32"
    assert lines["precision.compute"] == (
        "float32 (matrix products of a layer and the head take 1.00 ms in float32, 8.00 ms in float16, "
        "2.00 ms in emulated bfloat16)"
    )
    assert resolved({}, turing(float16=0.9e-3))[0].precision.compute == "float16"


def test_turing_computes_slowly_only_if_float32_does_not_fit_with_recomputation_either():
    given = {"memory.remat": "none", "memory.loss_chunk": 50, "train.micro_batch_size": 8, "memory.limit_gb": 1.0}
    config, lines = resolved(given, turing())
    assert config.precision.compute == "float16"
    assert lines["precision.compute"] == (
        "float16 (float32 would not fit; matrix products of a layer and the head take 1.00 ms in float32, "
        "8.00 ms in float16, 2.00 ms in emulated bfloat16)"
    )
    assert resolved({"memory.limit_gb": 1.0}, turing())[0].precision.compute == "float32"
    with pytest.raises(UserError, match="this run would take 0.75 GB"):  # float16 would not fit either
        resolved(given | {"memory.limit_gb": 0.5}, gpu("GTX 1660 Ti", (7, 5), 6.2e9, 0))  # nothing is timed


def test_float64_parameters_compute_in_float64():
    assert resolved({"precision.params": "float64"}, turing())[0].precision.compute == "float64"


def test_bfloat16_that_would_be_emulated_is_refused():
    with pytest.raises(
        UserError, match=r"precision.compute=bfloat16: GTX 1660 Ti .*7.5.* set precision.compute=float16"
    ):
        resolved({"precision.compute": "bfloat16"}, turing())
    assert resolved({"precision.compute": "bfloat16"}, CPU)[0].precision.compute == "bfloat16"
    assert resolved({"precision.compute": "bfloat16"}, AMPERE)[1]["precision.compute"] == "bfloat16 (given)"


def test_the_library_of_fused_attention_is_reported():
    fused = {"model.attention.kernel": "fused"}
    assert resolved(fused, turing(fused="flash"))[1]["model.attention.kernel"] == "fused (flash)"
    assert "model.attention.kernel" not in resolved({}, AMPERE)[1]


def test_the_device_is_planned_for(monkeypatch):
    planned = []
    monkeypatch.setattr(
        planner, "predict", lambda config, *rest: planned.append(config.run.device) or predict(config, *rest)
    )
    for device in (CPU, AMPERE):
        resolved({"run.device": "auto"}, device)
    assert set(planned[: len(planned) // 2]) == {"cpu"} and set(planned[len(planned) // 2 :]) == {"cuda"}


def test_a_mixture_s_losses_are_means_over_the_whole_batch():
    mixture = {"model.mlp.kind": "moe", "memory.limit_gb": 0.55}
    assert choices(resolved(mixture)[0]) == ("float32", "full", 50, 8)
    less = mixture | {"memory.limit_gb": 0.45}
    assert resolved(less | {"model.mlp.balance_loss": 0.0})[0].train.micro_batch_size == 4
    with pytest.raises(UserError, match="train.micro_batch_size=1"):
        resolved(less)


def test_an_evaluator_only_resolves_how_it_computes():
    config, lines = resolved({"memory.limit_gb": 0.001}, AMPERE, trains=False)
    assert choices(config) == ("bfloat16", "none", 0, 0)
    assert lines.keys() == {"precision.compute"}


def test_what_was_resolved_is_resolved_already():
    config, _ = resolved({"memory.limit_gb": 0.7}, turing())
    changed = differences(CONFIG, config)
    assert changed == {"precision.compute": "float32", "memory.remat": "block", "memory.loss_chunk": 50,
                     "train.micro_batch_size": 8}  # fmt: skip
    again, lines = resolved(changed, AMPERE)
    assert differences(config, again) == {} and lines["precision.compute"] == "float32 (given)"


def test_products_to_time_have_the_models_sizes():
    shapes = matmul_shapes(with_values(CONFIG, {"model.mlp.hidden": 96}), VOCAB)
    assert {size for shape in shapes for size in shape[1:]} == {64, 256, 96, VOCAB}
    timed = []
    resolve_auto(
        CONFIG,
        100_000,
        TWIN,
        gpu("any", (7, 5), 99e9, 0, matmul_seconds=lambda _, given: timed.extend(given) or 1.0),
        True,
    )
    assert max(size for shape in timed for size in shape) == 8192  # the head alone might not fit
    assert Precision().compute == "auto" and Memory().remat == "auto"


def test_the_memory_of_this_machine():
    total, free = devices.cpu_memory()
    assert 2**28 < free <= total


def test_memory_if_the_system_reports_none(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_MEMINFO", tmp_path / "none")
    total, free = devices.cpu_memory()
    assert total == free > 2**28


def test_a_deep_model_that_is_much_too_large_is_refused_before_it_is_planned(monkeypatch):
    def declare(config, vocab_size):
        assert config.model.n_layers == 32
        return {f"layers.{i}.mlp.up_proj.weight": ((30_000, 30_000), Spec("matrix")) for i in range(32)}

    monkeypatch.setattr(planner, "predict", never)
    config = with_values(CONFIG, {"model.n_layers": 200, "precision.compute": "float32"})
    with pytest.raises(UserError, match="the first 32 of model.n_layers=200 alone take 115.20 GB"):
        resolve_auto(config, VOCAB, Twin("torch", declare, never), turing(), True)
