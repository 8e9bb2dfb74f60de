"""The adapter plan names the linear layers that get an adapter, and no others."""

import pytest

from slm_core.config import Finetune
from slm_core.errors import UserError
from slm_core.quantization.lora import alternatives, plan_adapters
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
    for frozen in ("float", "int8", "nf4"):
        stored = plan(frozen=frozen)
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
