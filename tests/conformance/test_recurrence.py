"""Recurrences in chunks against the formula, one position at a time, in float64: outputs, states and all gradients."""

import sys

import numpy as np
import pytest

from tests.reference import recurrence as reference

TOLERANCE = dict(rtol=1e-12, atol=1e-12)
BATCH, HEADS, WIDTH, V_WIDTH = 2, 3, 5, 4
KINDS = {
    "linear": dict(decay=0, erase=""),
    "retnet": dict(decay=1, erase=""),
    "gla": dict(decay=WIDTH, erase=""),
    "delta": dict(decay=0, erase="shared"),
    "gated_delta": dict(decay=1, erase="shared"),
    "kimi_delta": dict(decay=WIDTH, erase="shared"),
    "rwkv7": dict(decay=WIDTH, erase="own"),
    "delta with its own writes": dict(decay=0, erase="own"),
    "gated_delta with its own writes": dict(decay=1, erase="own"),
}
LENGTHS = [(5, 1), *((time, chunk) for chunk in (16, 64) for time in (1, 2, 5, 16, 37, 64, 130))]
DOCUMENTS = np.repeat([[0, 1, 2, 7], [0, 3, 3, 4]], [6, 10, 2, 19], axis=1)
"""Documents of 37 positions that end inside a chunk of 8, and at the end of one."""


@pytest.fixture(autouse=True)
def small_segments(twin, monkeypatch):
    """Two chunks of all heads are a segment, so that there are several of them."""
    monkeypatch.setattr(sys.modules[f"slm_{twin.NAME}.layers.recurrence"], "MATRICES", 2 * BATCH * HEADS)
    monkeypatch.setattr(sys.modules[f"slm_{twin.NAME}.layers.scan"], "CHUNK", 8)


def problem(kind, time, seed=0):
    """Makes {input: array} and gradients of the outputs and of the last state."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape)

    each = (BATCH, time, HEADS)
    inputs = {name: normal(*each, width) for name, width in dict(q=WIDTH, k=WIDTH, v=V_WIDTH).items()}
    inputs["state"] = normal(BATCH, HEADS, WIDTH, V_WIDTH)
    if KINDS[kind]["decay"]:
        inputs["log_decay"] = -np.abs(normal(*each, KINDS[kind]["decay"]))
    if KINDS[kind]["erase"]:
        inputs["erase"] = normal(*each, WIDTH)
        inputs["erase"] /= np.linalg.norm(inputs["erase"], axis=-1, keepdims=True)
        inputs["k"] = inputs["erase"] * rng.random((*each, 1))
    if KINDS[kind]["erase"] == "own":
        inputs["erase_write"] = inputs["k"] + 0.1 * normal(*each, WIDTH)
        inputs["k"] = normal(*each, WIDTH)
    return inputs, normal(*each, V_WIDTH), normal(BATCH, HEADS, WIDTH, V_WIDTH)


def check(twin, name, inputs, dy, dlast, tolerance=TOLERANCE, dtype="float64", **options):
    """Compares outputs, the last state and every gradient with the formula."""
    expected = getattr(reference, name)(**inputs, dy=dy, **last_gradient(name, dlast), **options)
    y, last, gradients = twin.recurrent(name, inputs, dy, dlast, dtype=dtype, **options)
    np.testing.assert_allclose(y, expected[0], err_msg="y", **tolerance)
    np.testing.assert_allclose(last, expected[1], err_msg="last state", **tolerance)
    assert gradients.keys() == expected[2].keys() == inputs.keys()
    for key, gradient in expected[2].items():
        np.testing.assert_allclose(gradients[key], gradient, err_msg=key, **tolerance)


def last_gradient(name, dlast):
    return {"dtail" if name == "short_convolution" else "dlast": dlast}


def gradient_cases():
    """Yields every kind and length in PyTorch. XLA compiles each for seconds: most of Flax's are slow tests."""
    for kind in KINDS:
        for time, chunk in LENGTHS:
            yield pytest.param("torch", kind, time, chunk, id=f"torch-{kind}-{time}-{chunk}")
        for time, chunk in ((1, 16), (13, 4), (37, 16), (130, 64)):
            slow = [pytest.mark.slow] if time > 13 else []
            yield pytest.param("flax", kind, time, chunk, id=f"flax-{kind}-{time}-{chunk}", marks=slow)


@pytest.mark.parametrize(("twin", "kind", "time", "chunk"), list(gradient_cases()), indirect=["twin"])
def test_chunks_are_the_formula(twin, kind, time, chunk):
    check(twin, "recurrence", *problem(kind, time), chunk=chunk)


@pytest.mark.parametrize("kind", ["linear", "rwkv7"])
def test_without_a_state_it_is_zero(twin, kind):
    inputs, dy, dlast = problem(kind, 13)
    del inputs["state"]
    check(twin, "recurrence", inputs, dy, dlast, chunk=4)


@pytest.mark.parametrize("kind", ["delta", "gla", "rwkv7"])
def test_a_state_is_reset_where_a_document_begins(twin, kind):
    check(twin, "recurrence", *problem(kind, 37), chunk=8, documents=DOCUMENTS)


@pytest.mark.parametrize("kind", ["linear", "gated_delta", "rwkv7"])
def test_documents_know_nothing_of_each_other(twin, kind):
    """Outputs and gradients of a document are the same bits, whatever the others are."""
    (inputs, dy, dlast), (others, other_dy, _) = problem(kind, 37), problem(kind, 37, seed=1)
    sound = twin.recurrent("recurrence", inputs, dy, dlast, chunk=8, documents=DOCUMENTS)
    within = DOCUMENTS == np.array([[1], [3]])  # neither the first nor the last document
    for at in (within, DOCUMENTS == DOCUMENTS[:, -1:]):

        def mixed(here, there, at=at):
            return np.where(at[:, :, None, None], here, 30 * there)

        changed = {n: others[n] * 30 if n == "state" else mixed(x, others[n]) for n, x in inputs.items()}
        y, _, gradients = twin.recurrent(
            "recurrence", changed, mixed(dy, other_dy), dlast, chunk=8, documents=DOCUMENTS
        )
        np.testing.assert_array_equal(y[at], sound[0][at])
        for name in inputs.keys() - {"state"}:
            np.testing.assert_array_equal(gradients[name][at], sound[2][name][at], err_msg=name)
            assert (gradients[name][~at] != sound[2][name][~at]).any()


@pytest.mark.parametrize("kind", ["linear", "kimi_delta", "rwkv7"])
def test_a_sequence_can_be_cut_anywhere(twin, kind):
    """Two calls, and a call per position, are one call."""
    inputs, dy, dlast = problem(kind, 7)
    whole, last, _ = twin.recurrent("recurrence", inputs, dy, dlast, chunk=4)
    for cuts in ((0, 3, 7), range(8)):
        y, state = [], inputs["state"]
        for start, stop in zip(cuts, cuts[1:], strict=False):
            piece = {n: x[:, start:stop] for n, x in inputs.items() if n != "state"} | {"state": state}
            out, state, _ = twin.recurrent("recurrence", piece, dy[:, start:stop], dlast, chunk=4)
            y.append(out)
        np.testing.assert_allclose(np.concatenate(y, 1), whole, **TOLERANCE)
        np.testing.assert_allclose(state, last, **TOLERANCE)


@pytest.mark.parametrize("kind", ["gated_delta", "kimi_delta"])
@pytest.mark.parametrize("strong", [-50.0, -1e4, -np.inf])
def test_strong_decays_cost_no_digits(twin, kind, strong):
    """A difference of cumulated decays would lose all digits of a mild decay after -1e4 in float32."""
    inputs, dy, dlast = problem(kind, 37)
    rng = np.random.default_rng(2)
    inputs["log_decay"][rng.random(inputs["log_decay"].shape) < 0.1] = strong
    check(twin, "recurrence", inputs, dy, dlast, chunk=16)
    check(twin, "recurrence", inputs, dy, dlast, dict(rtol=1e-4, atol=2e-5), "float32", chunk=16)
    inputs["log_decay"][:] = strong
    check(twin, "recurrence", inputs, dy, dlast, chunk=16)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_computed_wide(twin, dtype):
    """Outputs and gradients are those of float32 with inputs that are rounded, themselves rounded once."""
    inputs, dy, dlast = problem("kimi_delta", 13)
    bits = dict(float16=10, bfloat16=7)[dtype]
    rounded = {n: x if n == "state" else round_to(x, bits) for n, x in (inputs | {"dy": dy}).items()}
    dy = rounded.pop("dy")
    y, last, gradients = twin.recurrent("recurrence", rounded, dy, dlast, dtype=dtype, chunk=4)
    expected_y, expected_last, expected = twin.recurrent("recurrence", rounded, dy, dlast, dtype="float32", chunk=4)
    np.testing.assert_allclose(last, expected_last, rtol=1e-5, atol=1e-5)
    for name, x in ({"y": expected_y} | expected).items():
        np.testing.assert_allclose(({"y": y} | gradients)[name], x, rtol=2.0**-bits, atol=1e-4, err_msg=name)
    assert twin.recurrent_dtypes("recurrence", inputs, dtype) == [dtype, "float32"]
    assert twin.recurrent_dtypes("recurrence", {n: x[:, :1] for n, x in inputs.items() if n != "state"}, dtype) == [
        dtype,
        "float32",
    ]


def round_to(x, bits):
    """Rounds to numbers of so many bits after the first."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)


def test_a_chunk_is_a_power_of_two(twin):
    inputs, dy, dlast = problem("linear", 5)
    with pytest.raises(ValueError, match="chunk=12 is not a power of two"):
        twin.recurrent("recurrence", inputs, dy, dlast, chunk=12)


# --- short convolutions


def convolution(time, taps, seed=0, **given):
    rng = np.random.default_rng(seed)
    shapes = dict(x=(BATCH, time, WIDTH), weight=(taps, WIDTH), bias=(WIDTH,), tail=(BATCH, taps - 1, WIDTH))
    inputs = {n: rng.standard_normal(shape) for n, shape in shapes.items() if given.get(n, True)}
    return inputs, rng.standard_normal(shapes["x"]), rng.standard_normal(shapes["tail"])


@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("time", [1, 2, 9])
def test_a_convolution_is_the_formula(twin, time, taps):
    check(twin, "short_convolution", *convolution(time, taps))
    check(twin, "short_convolution", *convolution(time, taps, bias=False, tail=False))


def test_a_convolution_stays_in_its_document(twin):
    documents = np.array([[0, 0, 1, 1, 1, 1, 1, 5, 5], [0, 0, 0, 0, 0, 0, 0, 0, 2]])
    inputs, dy, dtail = convolution(9, 4)
    check(twin, "short_convolution", inputs, dy, dtail, documents=documents)
    sound, _, gradients = twin.recurrent("short_convolution", inputs, dy, dtail, documents=documents)
    inputs["x"][:, :2], inputs["tail"][:], dy[:, :2] = np.nan, np.nan, np.nan
    y, _, changed = twin.recurrent("short_convolution", inputs, dy, dtail, documents=documents)
    np.testing.assert_array_equal(y[0, 2:], sound[0, 2:])
    np.testing.assert_array_equal(changed["x"][0, 2:], gradients["x"][0, 2:])


def test_a_convolution_decodes(twin):
    """A call per position is one call, documents included."""
    documents = np.array([[0, 0, 0, 1, 1, 1, 1, 5, 5]] * BATCH)
    inputs, dy, dtail = convolution(9, 4)
    whole, last, _ = twin.recurrent("short_convolution", inputs, dy, dtail, documents=documents)
    x, tail = inputs.pop("x"), inputs.pop("tail")
    for t in range(9):
        new = t and documents[0, t] != documents[0, t - 1]
        piece = inputs | {"x": x[:, t : t + 1], "tail": np.zeros_like(tail) if new else tail}
        y, tail, _ = twin.recurrent("short_convolution", piece, dy[:, t : t + 1], dtail)
        np.testing.assert_allclose(y[:, 0], whole[:, t], **TOLERANCE)
    np.testing.assert_array_equal(tail, last)


# --- scans


def scanned(time, seed=0):
    rng = np.random.default_rng(seed)
    inputs = dict(a=rng.uniform(-1, 1, (BATCH, time, WIDTH)), b=rng.standard_normal((BATCH, time, WIDTH)))
    inputs["state"] = rng.standard_normal((BATCH, WIDTH))
    return inputs, rng.standard_normal((BATCH, time, WIDTH)), rng.standard_normal((BATCH, WIDTH))


@pytest.mark.parametrize("time", [1, 5, 8, 37])
def test_a_scan_is_the_formula(twin, time):
    inputs, dy, dlast = scanned(time)
    inputs["a"][:, ::3] = 0
    check(twin, "scan", inputs, dy, dlast)
    del inputs["state"]
    check(twin, "scan", inputs, dy, dlast)


def test_a_scan_is_reset_where_a_document_begins(twin):
    inputs, dy, dlast = scanned(37)
    check(twin, "scan", inputs, dy, dlast, documents=DOCUMENTS)
    sound, _, gradients = twin.recurrent("scan", inputs, dy, dlast, documents=DOCUMENTS)
    late = DOCUMENTS == DOCUMENTS[:, -1:]
    changed = {n: x * 3 if n == "state" else np.where(late[:, :, None], x, 3 * x) for n, x in inputs.items()}
    dy = np.where(late[:, :, None], dy, 3 * dy)
    y, _, changed = twin.recurrent("scan", changed, dy, dlast, documents=DOCUMENTS)
    np.testing.assert_array_equal(y[late], sound[late])
    for name in ("a", "b"):
        np.testing.assert_array_equal(changed[name][late], gradients[name][late])
        assert (changed[name][~late] != gradients[name][~late]).any()


def test_a_scan_can_be_cut_anywhere(twin):
    inputs, dy, dlast = scanned(11)
    whole, last, _ = twin.recurrent("scan", inputs, dy, dlast)
    for cuts in ((0, 9, 11), range(12)):
        state = inputs["state"]
        for start, stop in zip(cuts, cuts[1:], strict=False):
            piece = {n: inputs[n][:, start:stop] for n in "ab"} | {"state": state}
            y, state, _ = twin.recurrent("scan", piece, dy[:, start:stop], dlast)
            np.testing.assert_allclose(y, whole[:, start:stop], **TOLERANCE)
        np.testing.assert_allclose(state, last, **TOLERANCE)


@pytest.mark.parametrize(("name", "make"), [("scan", scanned), ("short_convolution", lambda time: convolution(time, 4))])
def test_halves_of_scans_and_convolutions_are_computed_wide(twin, name, make):
    inputs, dy, dlast = make(9)
    inputs = {n: x if n == "state" else round_to(x, 7) for n, x in inputs.items()}
    tolerance = dict(rtol=2.0**-7, atol=1e-2)
    check(twin, name, inputs, round_to(dy, 7), dlast, tolerance, "bfloat16")
    assert twin.recurrent_dtypes(name, inputs, "bfloat16")[0] == "bfloat16"
