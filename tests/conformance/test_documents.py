"""Documents of packed sequences are kept apart: each knows nothing of the others, and is computed as if alone."""

import sys

import numpy as np
import pytest

from parity.fields import choices
from parity.state_transfer import perturbed
from slm_core.config import Attention, Config, Data, Mixer, Model, Precision, Run, Train
from slm_core.config.fields import with_values
from slm_core.config.mixer import RECURRENT
from slm_core.protocols import IGNORE, first_of_document, unscored
from tests.conformance.kernel_cases import TILE, TOLERANCE, check_gradients, problem

VOCAB, TIME, BORDER = 29, 22, 9
CONFIG = Config(
    model=Model(
        d_model=16,
        n_layers=2,
        attention=Attention(n_heads=4, n_kv_heads=2, kernel="dot_product"),
        mixer=Mixer(n_heads=2, chunk=4, convolution=3),
    ),
    data=Data(seq_len=TIME, document_mask=True),
    train=Train(batch_size=2, micro_batch_size=2),
    precision=Precision(params="float64", compute="float64"),
    run=Run(device="cpu"),
)
FLOAT32 = {"precision.params": "float32", "precision.compute": "float32"}
EVERYTHING = {"attention.window": 7, "attention.sinks": True, "attention.softcap": 2.0, "position.kind": "t5"}
MODELS = {
    **{kernel: {"attention.kernel": kernel} for kernel in choices("model.attention.kernel")},
    **{
        f"{kernel}, everything": {"attention.kernel": kernel} | EVERYTHING
        for kernel in choices("model.attention.kernel")
    },
    "fused, float32": {"attention.kernel": "fused"} | FLOAT32,  # JAX's own kernel has no float64
    "fused, window, alibi, float32": {
        "attention.kernel": "fused", "attention.window": 7, "position.kind": "alibi", **FLOAT32,
    },
    "flash, float32": {"attention.kernel": "flash"} | FLOAT32,
    "mla": {"attention.kind": "mla", "attention.kernel": "flash", "attention.value_residual": True},
    "differential": {"attention.kind": "differential", "attention.kernel": "fused"},
    "alibi": {"position.kind": "alibi", "attention.kernel": "flash"},
    "learned": {"position.kind": "learned"},
    "sinusoidal": {"position.kind": "sinusoidal"},
    "no position": {"position.kind": "none"},
    **{kind: {"mixer.kind": kind} for kind in RECURRENT},
    "gated_delta, float32": {"mixer.kind": "gated_delta"} | FLOAT32,
    "hybrid, stacked, chunks": {
        "n_layers": 5, "pattern": "mixer.kind=gla | .", "memory.remat": "full", "memory.loss_chunk": 7,
    },
}  # fmt: skip
"""{name: overrides}. Every kernel, kind of attention, position and mixer."""

FEW_IN_FLAX = ("flash, everything", "fused, float32", "gated_delta")


def models(few_in_flax=FEW_IN_FLAX):
    for name in MODELS:
        yield pytest.param("torch", name, id=f"torch-{name}")
        marks = [] if name in few_in_flax else [pytest.mark.slow]
        yield pytest.param("flax", name, id=f"flax-{name}", marks=marks)


@pytest.fixture(autouse=True)
def small_tiles(twin, monkeypatch):
    """Several tiles, blocks and segments in a sequence; some of them hold no key of the query's document."""
    monkeypatch.setattr(sys.modules[f"slm_{twin.NAME}.layers.flash"], "TILE", TILE)
    monkeypatch.setattr(sys.modules[f"slm_{twin.NAME}.layers.recurrence"], "MATRICES", 8)
    if twin.NAME == "flax":
        monkeypatch.setattr(sys.modules["slm_flax.layers.fused"], "SMALLEST_BLOCK", 4)


def configured(name, **values):
    overrides = {
        key if key.startswith(("memory.", "precision.")) else f"model.{key}": value
        for key, value in MODELS[name].items()
    }
    return with_values(CONFIG, overrides | values)


def ready(twin, config):
    """Returns the pass of an engine, from weights that hide nothing."""
    engine = twin.build(config, VOCAB)
    engine.import_state(perturbed(engine.export_state(), 1))
    return twin.passing(engine)


def second_documents():
    """Makes the second document of each of two rows: of its length, and of one less."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, VOCAB, TIME + 1 - BORDER - row).astype(np.int32) for row in range(2)]


def packed(seed):
    """Makes two rows of two documents each. The first documents depend on the seed, and none of their targets counts.

    The second row's first document ends a token later, and there are two of it.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for row, second in enumerate(second_documents()):
        first = unscored(rng.integers(0, VOCAB, BORDER + row).astype(np.int32))
        if row:
            first[4] = first_of_document(unscored(first[4]))
        rows.append(np.concatenate([first, [first_of_document(second[0])], second[1:]]))
    return np.array(rows, np.int32)


def alone():
    """Makes two rows, each with the second document alone, then no token any more."""
    rows = np.full((2, TIME + 1), IGNORE, np.int32)
    for row, second in zip(rows, second_documents(), strict=True):
        row[: len(second)] = second
    return rows


def of_second(logits):
    return [logits[row, BORDER + row :] for row in range(2)]


@pytest.mark.parametrize(("twin", "name"), list(models()), indirect=["twin"])
def test_a_document_knows_nothing_of_the_one_before(twin, name):
    """Logits, loss and every gradient are the same bits whatever the first document is, and those of it alone.

    They are also those of it alone without the mask; XLA would compile that once more for every model.
    """
    config = configured(name)
    run = ready(twin, config)
    sound, other = run(packed(1)), run(packed(2))
    assert (sound[0][:, 1:BORDER] != other[0][:, 1:BORDER]).any()
    for a, b in zip(of_second(sound[0]), of_second(other[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(sound[1], other[1])
    for key, gradient in sound[2].items():
        np.testing.assert_array_equal(gradient, other[2][key], err_msg=key)
    assert all(np.abs(gradient).max() > 0 for gradient in sound[2].values())

    check_alone(config, sound, run(alone()))
    if twin.NAME == "torch" or name in FEW_IN_FLAX:
        plain = ready(twin, with_values(config, {"data.document_mask": False}))
        check_alone(config, sound, plain(alone()))
        mixed = plain(packed(1)), plain(packed(2))
        assert (of_second(mixed[0][0])[0] != of_second(mixed[1][0])[0]).any()


def check_alone(config, actual, expected):
    """Compares a pass over two documents with one over the second alone."""
    tolerance = 1e-12 if config.precision.compute == "float64" else 3e-5
    for row, logits in enumerate(of_second(actual[0])):
        check_close(logits, expected[0][row, : len(logits)], tolerance, "logits")
    check_close(actual[1], expected[1], tolerance, "loss")
    for key, gradient in expected[2].items():
        check_close(actual[2][key], gradient, tolerance, key)


def check_close(actual, expected, tolerance, name):
    """Compares an array with another, up to a share of its largest number."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


DOCUMENTS = np.array([[0] * 6 + [1] * 1 + [2] * 7, [3] * 2 + [5] * 12])
"""They begin at a tile, inside one, and last for several."""


def kernel_cases():
    for name in choices("model.attention.kernel"):
        for window, softcap, bias, sinks in ((0, 0.0, False, False), (3, 0.0, True, False), (5, 2.0, True, True)):
            case = dict(window=window, softcap=softcap, bias=bias, sinks=sinks)
            yield pytest.param("torch", name, case, id=f"torch-{name}-{case}")
            yield pytest.param("flax", name, case, id=f"flax-{name}-{case}")


@pytest.mark.parametrize(("twin", "name", "case"), list(kernel_cases()), indirect=["twin"])
def test_kernels_see_their_document(twin, name, case):
    """Outputs and all gradients are the formula's; those of a document are the same bits whatever the others are."""
    time, options = DOCUMENTS.shape[1], dict(start=0, window=case["window"], softcap=case["softcap"])
    inputs, dy = problem(keys=time, time=time, bias=case["bias"], sinks=case["sinks"])
    check_gradients(twin, name, inputs, dy, TOLERANCE, documents=DOCUMENTS, **options)
    options |= dict(scale=0.7, documents=DOCUMENTS)
    sound = twin.kernel_gradients(name, inputs, dy, **options)
    last = (DOCUMENTS[:, -1:] == DOCUMENTS)[:, :, None, None]
    changed = {key: np.where(last, x, 3 - 2 * x) if key in "qkv" else x for key, x in inputs.items()}
    other = twin.kernel_gradients(name, changed, np.where(last, dy, 2 * dy), **options)
    np.testing.assert_array_equal(np.where(last, sound[0], 0), np.where(last, other[0], 0))
    assert (sound[0] != other[0]).any()
    for key in "qkv":
        np.testing.assert_array_equal(np.where(last, sound[1][key], 0), np.where(last, other[1][key], 0), err_msg=key)
