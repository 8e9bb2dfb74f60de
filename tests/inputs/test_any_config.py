"""Any text on the command line, and any pattern, is a config that can be planned, or one line."""

from hypothesis import strategies as st

from parity.fields import selecting
from slm_core.cli.command_line import parse
from slm_core.config import Config
from slm_core.config.fields import base_type, field_table, is_optional
from slm_core.config.layers import layer_specs
from slm_core.config.pattern import layer_fields
from slm_core.data.task_data import TaskData
from slm_core.model.positions import frequencies, t5_buckets
from slm_core.training.schedules import learning_rates
from tests.inputs.answers import answer, for_all, tiers

EDGES = (
    ["", "0", "-1", "1", "2", "7", "1000000", "10000000000000000000", "-10000000000000000000", "9" * 5000, "1e3"]
    + ["0.5", "1e-300", "1e300", "-1e300", "nan", "inf", "-inf", "true", "false", "none", "0x10", "1_000", "१२"]
    + ["1,2", "0.9,0.95", "(0.9, 0.95)", "[1", "[[[]]]", "1,2,3", "'", '"', "é", "\x1b[31m", " ", ".", "..", "/", "a/b"]
    + ["file:", "file:/nowhere.json", "torch:x", "flax:", "~", "*", "[", "%s", "{}", "🦙" * 300]
)
ALL_CHOICES = sorted({choice for info in field_table().values() for choice in info.option.choices})


def values(name: str) -> st.SearchStrategy[str]:
    """Returns texts for a field: valid ones more often than others."""
    option = field_table()[name].option
    near = [str(bound) for bound in (option.low, option.above, option.high, option.below) if bound is not None]
    near += [*option.choices, *(["none"] if is_optional(field_table()[name].type) else [])]
    anything = st.one_of(
        st.sampled_from(EDGES), st.sampled_from(ALL_CHOICES), st.text(max_size=12), st.integers(-9, 999).map(str)
    )
    return st.one_of(st.sampled_from(near), anything) if near else anything


def flags() -> st.SearchStrategy[list[str]]:
    """Returns words that set some fields; a few names are no fields."""
    known = st.sampled_from(sorted(field_table())).flatmap(
        lambda name: values(name).map(lambda v: f"--config.{name}={v}")
    )
    odd = st.text(max_size=12).map(lambda text: f"--config.{text}=1")
    return st.lists(st.one_of(known, known, known, known, odd), min_size=1, max_size=5)


def entries() -> st.SearchStrategy[str]:
    """Returns patterns, most of them nearly right."""
    names = st.sampled_from([*layer_fields(), "attention.windw", "", "model.attention.window"])
    pair = names.flatmap(
        lambda name: (values(f"model.{name}") if name in layer_fields() else st.just("1")).map(lambda v: f"{name}={v}")
    )
    entry = st.one_of(st.just("."), st.just(""), pair, st.lists(pair, max_size=3).map(",".join), st.text(max_size=8))
    count = st.sampled_from(["", "2*", "0*", "-1*", "999999999999*", "x*", "*", "2*3*", "१*", "9" * 5000 + "*"])
    return st.lists(st.tuples(count, entry).map("".join), max_size=4).map(" | ".join)


def plan(words: list[str]) -> None:
    """Does what a script does with a config before it builds a model."""
    config = parse(words, needs_data=False)[0].config
    for layer in layer_specs(config.model):
        if layer.position.kind == "rope":
            frequencies(layer, config.data.seq_len)
        if layer.position.kind == "t5":
            t5_buckets(layer.position.buckets, layer.position.max_distance, min(config.data.seq_len, 1024))
    learning_rates(config.optim, min(config.train.steps, 100_000))  # a table of ten million takes a second
    if config.data.source == "task":
        TaskData(config.data).windows("train", config.data.seq_len)[0]


@tiers(30, 60, 600)
def test_overrides(count):
    answers = []
    for_all(count, lambda words: answers.append(answer(lambda: plan(words))), words=flags())
    assert "" in answers and len(set(answers)) > count // 4


@tiers(20, 40, 300)
def test_patterns(count):
    answers = []
    for_all(
        count, lambda text: answers.append(answer(lambda: plan([f"--config.model.pattern={text}"]))), text=entries()
    )
    assert "" in answers and len(set(answers)) > count // 4


def edge(name: str) -> list[str]:
    """Returns the smallest and the largest values of a numeric field, or its choices."""
    option, kind = field_table()[name].option, base_type(field_table()[name].type)
    if option.choices:
        return list(option.choices)
    if kind in (int, float):
        bounds = [option.low, option.high, option.above and option.above * 2, option.below and option.below / 2]
        near = [bound for bound in bounds if bound is not None] + ([1e-9] if option.above == 0 else [])
        return [str(kind(value)) for value in near]
    return ["true", "false"] if kind is bool else []


def neighbours() -> st.SearchStrategy[list[str]]:
    """Returns words that make fields of one section read, and set them to their smallest and largest values."""

    def section(name: str) -> st.SearchStrategy[list[str]]:
        beside = selecting(name, Config())
        others = [other for other in field_table() if selecting(other, Config()).items() <= beside.items()]
        inside = [other for other in others if other.rpartition(".")[0] == name.rpartition(".")[0] and edge(other)]
        chosen = st.lists(st.sampled_from(inside), max_size=3, unique=True) if inside else st.just([])
        values = chosen.flatmap(
            lambda names: st.fixed_dictionaries({each: st.sampled_from(edge(each)) for each in [name, *names]})
        )
        return values.map(lambda given: [f"--config.{each}={value}" for each, value in (beside | given).items()])

    return st.sampled_from([name for name in field_table() if edge(name)]).flatmap(section)


@tiers(40, 80, 500)
def test_numbers_at_their_limits(count):
    answers = []
    for_all(count, lambda words: answers.append(answer(lambda: plan(words))), words=neighbours())
    assert answers.count("") > count // 10
