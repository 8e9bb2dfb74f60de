"""The adapter plan names the linear layers that get an adapter, and no others."""

import numpy as np
import pytest

from slm_core.config import Finetune
from slm_core.errors import UserError
from slm_core.model.initialization import Spec, initial_value
from slm_core.quantization.lora import adapter, alternatives, frozen, plan_adapters, starting
from slm_core.training.summary import adapter_summary

LINEARS = {
    f"layers.{i}.{path}": (8, 6) for i in range(2) for path in ("attention.q_proj", "attention.o_proj", "mlp.up_proj")
} | {"layers.0.mlp.router": (8, 5), "head": (8, 20)}


def plan(**fields):
    return plan_adapters(LINEARS, Finetune(kind="lora", **fields), ["layers.0.mlp.expert"])


def test_the_whole_name_is_matched():
    assert plan().adapted == tuple(path for path in LINEARS if path.endswith("_proj"))
    assert plan(targets=r"layers\.0\.attention\.q_proj").adapted == ("layers.0.attention.q_proj",)
    assert plan(targets=".*").adapted == tuple(LINEARS)


def test_every_layer_is_stored_one_way():
    for way in ("float", "int8", "nf4"):
        stored = plan(frozen=way)
        assert sorted([*stored.quantised, *stored.floating]) == sorted(LINEARS)
        assert "head" in stored.floating
    assert plan(frozen="float").quantised == ()
    assert set(LINEARS) - set(plan(frozen="int8").quantised) == {"head"}
    assert set(LINEARS) - set(plan(frozen="nf4").quantised) == {"head", "layers.0.mlp.router"}  # of an odd width


def test_the_summary_tells_them_all():
    finetune = Finetune(kind="lora", frozen="nf4", rank=4)
    assert adapter_summary(plan(frozen="nf4", rank=4), finetune) == (
        "adapters of rank 4 on 6 of 8 linear layers, none on layers.*.mlp.router, head; frozen: 6 in nf4,"
        " 2 as floats (layers.*.mlp.router, head), 1 of experts as floats"
    )


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("a", ["a"]),
        ("a|b", ["a", "b"]),
        (r"(a|b)c|d\|e", ["(a|b)c", r"d\|e"]),
        ("[|]|[]|]|[^]|]x", ["[|]", "[]|]", "[^]|]x"]),
        (r"a(b[)|]|(c|d))e|f", [r"a(b[)|]|(c|d))e", "f"]),
        ("a|", ["a", ""]),
        ("[ab|]|c", ["[ab|]", "c"]),
        (r"a\.|b", [r"a\.", "b"]),
    ],
)
def test_alternatives(expression, parts):
    assert alternatives(expression) == parts


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("q_proj", ("finetune.targets=q_proj matches the whole name of no linear layer", "layers.*.attention.q_proj")),
        (r"layers\.0\.mlp\.upproj", ("did you mean layers.0.mlp.up_proj?",)),
        (r".*q_proj|.*k_proj", ("its alternative '.*k_proj' matches",)),
        ("(", ("finetune.targets=( is not a regular expression", "write one such as")),
    ],
)
def test_mistakes(targets, words):
    with pytest.raises(UserError) as caught:
        plan(targets=targets)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_an_adapter_starts_at_zero_and_its_input_keeps_its_size():
    assert adapter((16, 6), 3) == {
        "lora_a": ((16, 3), Spec("matrix", std=0.25)), "lora_b": ((3, 6), Spec("matrix")),
    }  # fmt: skip


DECLARED = {
    "a.weight": ((16, 6), frozen(Spec("matrix", std=0.1))),
    **{f"a.{leaf}": declared for leaf, declared in adapter((16, 6), 3).items()},
}


def test_adapters_start_anew_unless_they_are_given():
    weight = np.ones((16, 6), np.float32)
    values = dict(starting({"a.weight": weight}, DECLARED, seed=5))
    assert list(values) == list(DECLARED) and values["a.weight"] is weight
    np.testing.assert_array_equal(values["a.lora_a"], initial_value("a.lora_a", *DECLARED["a.lora_a"], 5))
    assert values["a.lora_b"].shape == (3, 6) and not values["a.lora_b"].any()
    given = {"a.weight": weight, "a.lora_a": np.ones((16, 3)), "a.lora_b": np.ones((3, 6))}
    assert all(value is given[name] for name, value in starting(given, DECLARED, seed=5))
    with pytest.raises(UserError, match="a.weight"):
        list(starting({}, DECLARED, seed=5))
