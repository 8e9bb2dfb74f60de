"""Why the proof does not reach some lines of the twins, and what checks them instead."""

from collections.abc import Mapping, Sequence

REASONS: dict[str, tuple[str, ...]] = {
    "a method that each kind of MLP or optimizer replaces": (
        "layers/dense.py: DenseMLP.activation()",
        "layers/dense.py: GatedMLP.activation()",
        "optim/base.py: Optimizer.update()",
    ),
    "an evaluation; test_loss.py and test_evaluator.py of tests/conformance compare it with the formula": (
        "loss.py: batch_scores()",
        "loss.py: scores()",
        "loss.py: token_scores()",
        "loss.py: piece_scores()",
        "trainer.py: Engine.eval_step()",
    ),
    "what a run shows of an update; tests/conformance/test_details.py compares it with the update's own numbers": (
        "trainer.py: Engine.details()",
        "trainer.py: Engine._measure()",
        "slm_torch/trainer.py: Engine._gradients()",
    ),
    "facts about a run: text, no number of the model": (
        "trainer.py: Engine.facts()",
        "trainer.py: Engine.peak_memory_bytes()",
    ),
    "names what is not finite, after a run failed; tests/conformance/test_engine.py makes runs fail": (
        "trainer.py: Engine.non_finite_parameter()",
        "trainer.py: are_finite()",
    ),
    "only the bisector and the tests ask for it": (
        "trainer.py: Engine.parameters()",
        "slm_flax/params.py: moving()",
    ),
    "an earlier copy of the state, written over; tests/conformance/test_engine_state.py does that": (
        "slm_torch/params.py: if into is None: never false",
    ),
    "a user's optimizer, which one twin alone has; test_library_optimizers.py of either twin runs it": (
        "slm_flax/optim/base.py: scheduled()",
        "slm_torch/optim/base.py: create_state()",
        'slm_torch/trainer.py: if ":" in self.config.optim.kind: never true',
        "slm_torch/trainer.py: create_state(self.optimizer, self.trained, optim)",
        'slm_torch/trainer.py: optim = {name.removeprefix("optim/"): state[name] for name in state'
        ' if name.startswith("optim/")}',
    ),
    "PyTorch's own interface to optimizers, which the engine does not use": (
        "slm_torch/optim/base.py: if closure is not None: never true",
        "slm_torch/optim/base.py: with torch.enable_grad():",
        "slm_torch/optim/base.py: loss = closure()",
    ),
    "a parameter of more than a million values; tests/conformance/test_optimizers.py has slices of a few": (
        "slm_flax/optim/adamw8bit.py: if whole: never true",
        "slm_flax/optim/adamw8bit.py: flat = lax.fori_loop(0, whole, lambda i, flat: step(i * n, n * block, flat),"
        " flat)",
    ),
    "a recurrence that erases elsewhere than it writes (RWKV-7), which no mixer has; test_recurrence.py of"
    " tests/conformance compares it with the formula": (
        "layers/recurrence.py: Segment._first_kind()",
        "layers/recurrence.py: if erase_write is None: never false",
        "slm_torch/layers/recurrence.py: state = state - erase_write[:, 0].to(dtype)[..., None] * erased[:, :, None]",
        "slm_flax/layers/recurrence.py: state = state - erase_write[:, 0].astype(dtype)[..., None]"
        " * erased[:, :, None]",
    ),
    "a caller's mistake, which the config refuses first; test_recurrence.py makes it": (
        "layers/recurrence.py: if chunk < 1 or chunk & (chunk - 1): never true",
        'layers/recurrence.py: raise ValueError(f"chunk={chunk} is not a power of two")',
    ),
    "on a GPU alone; the tests marked gpu compare it with the CPU": (
        "slm_torch/layers/fused.py: if heads != kv_heads and not shared: never true",
        "slm_torch/layers/fused.py: k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))",
        'slm_torch/layers/fused.py: if q.device.type == "cpu": never false',
        "slm_torch/layers/fused.py: half = q.dtype in (torch.float16, torch.bfloat16)",
        "slm_torch/layers/fused.py: return half and mask is None and"
        " torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY",
        "slm_flax/trainer.py: if not params.on_cpu(array): never true",
        "slm_flax/trainer.py: return views",
    ),
}
"""{why, and what checks it: what `covered` lists, "file: what", of both twins or, with its name, of one}."""


def reasons(missing: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], str]:
    """Returns {(file, what): why} of what is missing; "" if nobody wrote why.

    Args:
      missing: {file from the project's root: what the proof does not reach}.
    """
    why = {place: reason for reason, places in REASONS.items() for place in places}
    return {
        (file, what): why.get(f"{file}: {what}") or why.get(f"{file.partition('/')[2]}: {what}", "")
        for file, each in missing.items()
        for what in each
    }


def outdated(missing: Mapping[str, Sequence[str]]) -> set[str]:
    """Returns the places of REASONS that the proof reaches, or that are no longer there."""
    seen = {
        f"{name}: {what}" for file, each in missing.items() for what in each for name in (file, file.partition("/")[2])
    }
    return {place for places in REASONS.values() for place in places} - seen
