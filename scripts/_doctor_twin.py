"""Examines one twin for scripts/doctor.py, in a process of its own: prints what was found as a line of JSON."""

import importlib
import json
import sys
from typing import Any

import numpy as np

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.presets import load
from slm_core.hardware.devices import Device, spare_gpu
from slm_core.planner.report import gigabytes
from slm_core.protocols import Engine

SHAPES = ((512, 128, 512), (512, 768, 3072), (2048, 768, 768))
"""(m, k, n) of products like those of the default model's MLP, of GPT-2's, and of its attention."""
COPIED = 2**28
"""Bytes of the array that is copied: larger than the caches of most machines."""
UPDATES = 4
VOCAB = 256


def examine(twin: str, device: str) -> dict[str, Any]:
    """Measures what a twin does on a device.

    Returns:
      version, device, platform, capability, memory and attention for people to read; gflops {shape: {dtype: 1e9
      operations per second}}; copy_gb_per_s, read and written; losses of UPDATES updates of a tiny model.
    """
    spare_gpu(twin)
    config = with_values(
        load("configs/llama.py:tiny")[0],
        {"run.device": device, "precision.compute": "float32", "optim.warmup_steps": 1},
    )
    engine = importlib.import_module(f"slm_{twin}.trainer").build(config, VOCAB)
    facts = _probe(twin, config)
    return {
        "version": engine.facts()["framework"],
        "device": facts.name,
        "platform": facts.platform,
        "capability": facts.capability,
        "memory": f"{gigabytes(facts.free)} of {gigabytes(facts.total)} free",
        "attention": facts.fused,
        "gflops": {" x ".join(map(str, shape)): _rates(facts, shape) for shape in SHAPES},
        "copy_gb_per_s": 2 * COPIED / facts.copy_seconds(COPIED) / 1e9,
        "losses": _losses(engine),
    }


def _probe(twin: str, config: Config) -> Device:
    module = importlib.import_module(f"slm_{twin}.device")
    device = module.prepare_device(config)
    return module.probe(device) if twin == "torch" else module.probe(device, config.run.threads)


def _rates(facts: Device, shape: tuple[int, int, int]) -> dict[str, float]:
    """Returns {dtype: 1e9 operations per second} of a matrix product."""
    m, k, n = shape
    dtypes = ("float32", "float16", "bfloat16", "float64")
    return {dtype: 2 * m * k * n / facts.matmul_seconds(dtype, [shape]) / 1e9 for dtype in dtypes}


def _losses(engine: Engine) -> list[float]:
    """Trains an engine on random tokens, and returns its loss before each update."""
    generator, config = np.random.default_rng(0), engine.config
    shape = (UPDATES, config.train.batch_size, config.data.seq_len + 1)
    batches = generator.integers(0, VOCAB, shape, dtype=np.int32)
    return [float(engine.train_step(batch, 1e-3, step)["loss"]) for step, batch in enumerate(batches)]


if __name__ == "__main__":
    print(json.dumps(examine(*sys.argv[1:])))
