"""Recurrences in chunks against the formula, one position at a time, in float64: outputs, states and all gradients."""

import itertools
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
DELTAS = ["gated_delta", "kimi_delta", "rwkv7"]
LENGTHS = [(5, 1), (1, 16), (2, 16), (16, 16), (37, 16), (64, 16), (37, 64), (64, 64), (130, 64)]
TIME, CHUNK = 15, 4
DOCUMENTS = np.repeat([[0, 1, 2, 7], [0, 3, 3, 4]], [2, 6, 3, 4], axis=1)
"""They begin inside a chunk and at the start of one, and last for several chunks."""
ONE_DOCUMENT = np.zeros_like(DOCUMENTS)
"""XLA compiles the tests of a kind once if all of them have documents."""


def in_both(values, in_flax, slow_in_flax=()):
    """Lists every value in PyTorch, and some in Flax: XLA compiles each for seconds, and kinds share their code."""
    return [
        *(pytest.param("torch", value, id=f"torch-{value}") for value in values),
        *(pytest.param("flax", value, id=f"flax-{value}") for value in in_flax),
        *(pytest.param("flax", value, id=f"flax-{value}", marks=pytest.mark.slow) for value in slow_in_flax),
    ]


@pytest.fixture(autouse=True)
def small_segments(twin, monkeypatch):
    """Two chunks of all heads are a segment, so that there are several of them."""
    monkeypatch.setattr(sys.modules[f"slm_{twin.NAME}.layers.recurrence"], "MATRICES", 2 * BATCH * HEADS)
    monkeypatch.setattr(sys.modules[f"slm_{twin.NAME}.layers.scan"], "CHUNK", 4)


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


@pytest.mark.parametrize(
    ("twin", "kind"), in_both(KINDS, DELTAS, [kind for kind in KINDS if kind not in DELTAS]), indirect=["twin"]
)
def test_chunks_are_the_formula(twin, kind):
    """One sequence, and documents."""
    for documents in (ONE_DOCUMENT, DOCUMENTS):
        check(twin, "recurrence", *problem(kind, TIME), chunk=CHUNK, documents=documents)


LENGTH_CASES = in_both(
    list(itertools.product(KINDS, LENGTHS)),
    [("linear", (5, 1)), ("linear", (2, 16))],
    list(itertools.product(["retnet", "kimi_delta", "rwkv7"], [(37, 16), (130, 64)])),
)


@pytest.mark.parametrize(("twin", "case"), LENGTH_CASES, indirect=["twin"])
def test_any_length_and_chunk_is_the_formula(twin, case):
    kind, (time, chunk) = case
    check(twin, "recurrence", *problem(kind, time), chunk=chunk)


@pytest.mark.parametrize(("twin", "kind"), in_both(["gated_delta"], [], ["gated_delta"]), indirect=["twin"])
def test_one_head_is_the_formula(twin, kind):
    inputs, dy, dlast = problem(kind, TIME)
    one = {name: x[:, :1] if name == "state" else x[:, :, :1] for name, x in inputs.items()}
    check(twin, "recurrence", one, dy[:, :, :1], dlast[:, :1], chunk=CHUNK)


@pytest.mark.parametrize(("twin", "kind"), in_both(KINDS, ["linear"]), indirect=["twin"])
def test_without_a_state_it_is_zero(twin, kind):
    inputs, dy, dlast = problem(kind, TIME)
    del inputs["state"]
    check(twin, "recurrence", inputs, dy, dlast, chunk=CHUNK)


@pytest.mark.parametrize(
    ("twin", "kind"), in_both(KINDS, ["gated_delta", "rwkv7"], ["linear", "gla"]), indirect=["twin"]
)
def test_documents_know_nothing_of_each_other(twin, kind):
    """Outputs and gradients of a document are the same bits, whatever the others are."""
    (inputs, dy, dlast), (others, other_dy, _) = problem(kind, TIME), problem(kind, TIME, seed=1)
    options = dict(chunk=CHUNK, documents=DOCUMENTS)
    sound = twin.recurrent("recurrence", inputs, dy, dlast, **options)
    for at in (DOCUMENTS == [[1], [3]], DOCUMENTS == [[7], [4]]):  # amid others, and the last

        def mixed(here, there, at=at):
            return np.where(at[:, :, None, None], here, 30 * there)

        changed = {n: others[n] if n == "state" else mixed(x, others[n]) for n, x in inputs.items()}
        y, _, gradients = twin.recurrent("recurrence", changed, mixed(dy, other_dy), dlast, **options)
        np.testing.assert_array_equal(y[at], sound[0][at])
        for name in inputs.keys() - {"state"}:
            np.testing.assert_array_equal(gradients[name][at], sound[2][name][at], err_msg=name)
            assert (gradients[name][~at] != sound[2][name][~at]).any()


@pytest.mark.parametrize(("twin", "kind"), in_both(KINDS, ["kimi_delta", "rwkv7"], ["linear"]), indirect=["twin"])
def test_token_by_token_is_the_parallel_form(twin, kind):
    inputs, dy, dlast = problem(kind, TIME)
    whole, last, _ = twin.recurrent("recurrence", inputs, dy, dlast, chunk=CHUNK, documents=ONE_DOCUMENT)
    check_pieces(twin, range(TIME + 1), inputs, dy, dlast, whole, last)


@pytest.mark.parametrize(("twin", "kind"), in_both(KINDS, [], ["kimi_delta"]), indirect=["twin"])
def test_a_sequence_can_be_cut_anywhere(twin, kind):
    inputs, dy, dlast = problem(kind, TIME)
    whole, last, _ = twin.recurrent("recurrence", inputs, dy, dlast, chunk=CHUNK, documents=ONE_DOCUMENT)
    check_pieces(twin, (0, 3, 9, TIME), inputs, dy, dlast, whole, last)


def check_pieces(twin, cuts, inputs, dy, dlast, whole, last):
    """Compares one call per piece, each from the last one's state, with the whole."""
    y, state = [], inputs["state"]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        piece = {n: state if n == "state" else x[:, start:stop] for n, x in inputs.items()}
        out, state, _ = twin.recurrent("recurrence", piece, dy[:, start:stop], dlast, chunk=CHUNK)
        y.append(out)
    np.testing.assert_allclose(np.concatenate(y, 1), whole, **TOLERANCE)
    np.testing.assert_allclose(state, last, **TOLERANCE)


@pytest.mark.parametrize("strong", [-50.0, -1e4, -np.inf])
@pytest.mark.parametrize(
    ("twin", "kind"),
    in_both(["retnet", "gla", "gated_delta", "kimi_delta"], ["kimi_delta"], ["retnet", "gla", "gated_delta"]),
    indirect=["twin"],
)
def test_strong_decays_cost_no_digits(twin, kind, strong):
    """A difference of cumulated decays would lose all digits of a mild decay after -1e4 in float32."""
    inputs, dy, dlast = problem(kind, TIME)
    options, log_decay = dict(chunk=CHUNK, documents=ONE_DOCUMENT), inputs["log_decay"]
    log_decay[np.random.default_rng(2).random(log_decay.shape) < 0.2] = strong
    check(twin, "recurrence", inputs, dy, dlast, **options)
    check(twin, "recurrence", inputs, dy, dlast, dict(rtol=1e-4, atol=2e-5), "float32", **options)
    log_decay[:] = strong
    check(twin, "recurrence", inputs, dy, dlast, **options)


@pytest.mark.parametrize(
    ("twin", "dtype"), in_both(["float16", "bfloat16"], ["bfloat16"], ["float16"]), indirect=["twin"]
)
def test_halves_are_computed_wide(twin, dtype):
    """Outputs and gradients are those of float32 with inputs that are rounded, themselves rounded once."""
    inputs, dy, dlast = problem("kimi_delta", TIME)
    bits = dict(float16=10, bfloat16=7)[dtype]
    inputs, dy = {n: x if n == "state" else round_to(x, bits) for n, x in inputs.items()}, round_to(dy, bits)
    options = dict(chunk=CHUNK, documents=ONE_DOCUMENT)
    y, last, gradients = twin.recurrent("recurrence", inputs, dy, dlast, dtype=dtype, **options)
    expected_y, expected_last, expected = twin.recurrent("recurrence", inputs, dy, dlast, dtype="float32", **options)
    np.testing.assert_allclose(last, expected_last, rtol=1e-5, atol=1e-5)
    for name, x in ({"y": expected_y} | expected).items():
        np.testing.assert_allclose(({"y": y} | gradients)[name], x, rtol=2.0**-bits, atol=1e-5, err_msg=name)
    for time in (1, TIME):
        inputs, *_ = problem("kimi_delta", time)
        assert twin.recurrent_dtypes("recurrence", inputs, dtype) == [dtype, "float32"]


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


@pytest.mark.parametrize(("time", "taps"), [(1, 4), (2, 4), (9, 4), (9, 1)])
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


@pytest.mark.parametrize(("twin", "time"), in_both([1, 2, 5, 8, 37], [2, 37], [8]), indirect=["twin"])
def test_a_scan_is_the_formula(twin, time):
    inputs, dy, dlast = scanned(time)
    inputs["a"][:, ::3] = 0
    check(twin, "scan", inputs, dy, dlast)


@pytest.mark.parametrize(("twin", "time"), in_both([5], [5]), indirect=["twin"])
def test_a_scan_of_one_channel_is_the_formula(twin, time):
    inputs, dy, dlast = scanned(time)
    check(twin, "scan", {name: x[..., :1] for name, x in inputs.items()}, dy[..., :1], dlast[..., :1])


def test_a_scan_without_a_state_starts_at_0(twin):
    inputs, dy, dlast = scanned(5)
    del inputs["state"]
    check(twin, "scan", inputs, dy, dlast)


def test_a_scan_is_reset_where_a_document_begins(twin):
    inputs, dy, dlast = scanned(TIME)
    check(twin, "scan", inputs, dy, dlast, documents=DOCUMENTS)
    sound, _, gradients = twin.recurrent("scan", inputs, dy, dlast, documents=DOCUMENTS)
    late = DOCUMENTS[:, -1:] == DOCUMENTS
    changed = {n: x * 3 if n == "state" else np.where(late[:, :, None], x, 3 * x) for n, x in inputs.items()}
    dy = np.where(late[:, :, None], dy, 3 * dy)
    y, _, changed = twin.recurrent("scan", changed, dy, dlast, documents=DOCUMENTS)
    np.testing.assert_array_equal(y[late], sound[late])
    for name in ("a", "b"):
        np.testing.assert_array_equal(changed[name][late], gradients[name][late])
        assert (changed[name][~late] != gradients[name][~late]).any()


def test_a_scan_can_be_cut_anywhere(twin):
    inputs, dy, dlast = scanned(18)
    whole, last, _ = twin.recurrent("scan", inputs, dy, dlast)
    for cuts in ((0, 9, 18), range(19)):
        state = inputs["state"]
        for start, stop in zip(cuts, cuts[1:], strict=False):
            piece = {n: inputs[n][:, start:stop] for n in "ab"} | {"state": state}
            y, state, _ = twin.recurrent("scan", piece, dy[:, start:stop], dlast)
            np.testing.assert_allclose(y, whole[:, start:stop], **TOLERANCE)
        np.testing.assert_allclose(state, last, **TOLERANCE)


@pytest.mark.parametrize("name", ["scan", "short_convolution"])
def test_halves_of_scans_and_convolutions_are_computed_wide(twin, name):
    inputs, dy, dlast = scanned(9) if name == "scan" else convolution(9, 4)
    inputs = {n: x if n == "state" else round_to(x, 7) for n, x in inputs.items()}
    tolerance = dict(rtol=2.0**-7, atol=1e-2)
    check(twin, name, inputs, round_to(dy, 7), dlast, tolerance, "bfloat16")
    last = "float32" if name == "scan" else "bfloat16"
    assert twin.recurrent_dtypes(name, inputs, "bfloat16") == ["bfloat16", last]
