"""Overrides: what each spelling of a value means, for every type of the schema, as `config_flags` reads it."""

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import config_flags

from slm_core.cli.command_line import override, parse
from slm_core.config import Config
from slm_core.config.conversion import from_config_dict, to_config_dict
from slm_core.config.fields import fields, flatten, is_optional, with_values
from slm_core.errors import UserError

INF, NAN = float("inf"), float("nan")
WRONG = "of the wrong type"

# {field: {text: value}}, as `config_flags` of ml_collections 1.1 reads them: the values are not ours to choose.
SPELLINGS = {
    "run.resume": {
        "true": True,
        "True": True,
        "TRUE": True,
        "t": True,
        "T": True,
        "1": True,
        "false": False,
        "False": False,
        "f": False,
        "F": False,
        "0": False,
        "yes": WRONG,
        "no": WRONG,
        "on": WRONG,
        "off": WRONG,
        "y": WRONG,
        "n": WRONG,
        "2": WRONG,
        "-1": WRONG,
        "1.0": WRONG,
        "01": WRONG,
        " true": WRONG,
        "true ": WRONG,
        "": WRONG,
        "none": WRONG,
        "None": WRONG,
    },
    "model.attention.output_bias": {
        "true": True,
        "T": True,
        "1": True,
        "false": False,
        "0": False,
        "none": None,
        "None": None,
        "NONE": None,
        " none": WRONG,
        "yes": WRONG,
        "": WRONG,
        "null": WRONG,
    },
    "train.steps": {
        "7": 7,
        "+7": 7,
        "-7": -7,
        "007": 7,
        "1_000": 1000,
        "1__000": WRONG,
        "0x10": 16,
        "0X10": WRONG,
        "0o17": 15,
        "0O17": WRONG,
        "0b11": WRONG,
        "-0x10": WRONG,
        " 5": 5,
        "5 ": 5,
        "\t5\n": 5,
        "1e3": WRONG,
        "1.0": WRONG,
        "1.": WRONG,
        "": WRONG,
        "none": WRONG,
        "None": WRONG,
        "true": WRONG,
        "٣": 3,
        "inf": WRONG,
        "5,6": WRONG,
        "0x": WRONG,
        "00": 0,
        "999999999999999999999999999999": 999999999999999999999999999999,
    },
    "model.mlp.hidden": {
        "96": 96,
        "0x60": 96,
        " 96": 96,
        "none": None,
        "None": None,
        "nOnE": None,
        " none": WRONG,
        "null": WRONG,
        "": WRONG,
        "96.0": WRONG,
        "'96'": WRONG,
    },
    "optim.lr": {
        "1": 1.0,
        "1e-3": 0.001,
        "1E-3": 0.001,
        ".5": 0.5,
        "5.": 5.0,
        "+.5": 0.5,
        "-0.0": -0.0,
        "1_0.5": 10.5,
        "inf": INF,
        "-inf": -INF,
        "+Infinity": INF,
        "nan": NAN,
        "NaN": NAN,
        " 0.1 ": 0.1,
        "0x10": WRONG,
        "1e400": INF,
        "1/2": WRONG,
        "0,1": WRONG,
        "": WRONG,
        "none": WRONG,
        "None": WRONG,
        "true": WRONG,
        "1d3": WRONG,
        "٠.٥": 0.5,
    },
    "model.attention.scale": {
        "0.125": 0.125,
        "1": 1.0,
        "inf": INF,
        "none": None,
        "None": None,
        "NONE": None,
        " none": WRONG,
        "": WRONG,
        "true": WRONG,
    },
    "run.name": {
        "a": "a",
        "": "",
        " ": " ",
        "a=b": "a=b",
        "=": "=",
        "a,b": "a,b",
        "'a'": "'a'",
        '"a b"': '"a b"',
        "none": "none",
        "None": "None",
        "true": "true",
        "1": "1",
        "é": "é",
        "a\\nb": "a\\nb",
        "a\nb": "a\nb",
        "--x": "--x",
        "$HOME": "$HOME",
        "(1, 2)": "(1, 2)",
    },
    "data.source": {
        "text": "text",
        "Text": "Text",
        " text": " text",
        "'text'": "'text'",
        "none": "none",
        "": "",
    },
    "model.pattern": {
        "5*attention.window=256 | .": "5*attention.window=256 | .",
        "attention.window=256,position.theta=1e4|.": "attention.window=256,position.theta=1e4|.",
        "none": "none",
    },
    "optim.betas": {
        "0.9,0.95": (0.9, 0.95),
        "0.9, 0.95": (0.9, 0.95),
        " 0.9,0.95": (0.9, 0.95),
        "0.9 ,0.95 ": (0.9, 0.95),
        "(0.9, 0.95)": (0.9, 0.95),
        "(0.9,0.95,)": (0.9, 0.95),
        "0.9,0.95,": (0.9, 0.95),
        "[0.9,0.95]": (0.9, 0.95),
        "((0.9,0.95))": (0.9, 0.95),
        "((0.9,0.95),)": WRONG,
        "1,0": (1.0, 0.0),
        "0x1,0": (1.0, 0.0),
        "1_0,2": (10.0, 2.0),
        "True,False": WRONG,
        "1e-1,.5": (0.1, 0.5),
        "-0.5,+0.5": (-0.5, 0.5),
        "0.5+0.5,1": WRONG,
        "1/2,1": WRONG,
        "1j,2": WRONG,
        "inf,nan": WRONG,
        "1e400,0": (INF, 0.0),
        "'0.9','0.95'": WRONG,
        "0.9;0.95": WRONG,
        "0.9 0.95": WRONG,
        "0.9": WRONG,
        "0.9,": WRONG,
        "0.9,0.95,0.99": WRONG,
        "": WRONG,
        "()": WRONG,
        "[]": WRONG,
        "none": WRONG,
        "None": WRONG,
        "(0.9,0.95": WRONG,
        "0.9,0.95)": WRONG,
        "{0.25: 1, 0.5: 2}": (0.25, 0.5),
        "{0.5, 0.5}": WRONG,
        "{1: 2}": WRONG,
        "'ab'": WRONG,
        "b'ab'": (97.0, 98.0),
        "a,b": WRONG,
        "a": WRONG,
        "{[]: 1}": WRONG,
        "x=1,2": WRONG,
        "0.9,None": WRONG,
        "(0.9,0.95) # note": (0.9, 0.95),
        "\n0.9,0.95": (0.9, 0.95),
        "0.9,\n0.95": WRONG,
        "lambda: 1": WRONG,
        "007,1": WRONG,
    },
}
CASES = [(name, text, value) for name, texts in SPELLINGS.items() for text, value in texts.items()]
TYPES = {info.name: info.type for info in fields()}


def _override(name, text):
    try:
        config, values = override(Config(), {name: text})
    except UserError as error:
        assert str(error).startswith(f"{name}={text} is of the wrong type: give ")
        return WRONG
    assert repr(flatten(config)[name]) == repr(values[name]) and set(values) == {name}
    return values[name]


def _override_by_config_flags(name, text):
    argv = ["", f"--config.{name}={text}"]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", to_config_dict(Config()), flag_values=values, sys_argv=argv)
        values(argv)
        return flatten(from_config_dict(values["config"].value))[name]
    except (flags.Error, ValueError, TypeError, UserError):
        return WRONG


def _is_our_none(name, text):
    """Says whether the text is "none" for a field that may be unset: `config_flags` has no word for it."""
    return is_optional(TYPES[name]) and text.lower() == "none"


def test_the_table_covers_every_type_of_the_schema():
    assert {str(TYPES[name]) for name in SPELLINGS} == {str(annotation) for annotation in TYPES.values()}


@pytest.mark.parametrize(("name", "text", "value"), CASES)
def test_a_spelling_means_what_it_always_did(name, text, value):
    assert repr(_override(name, text)) == repr(value)  # repr: nan, -0.0 and 1 beside True


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, text, _ in CASES if not _is_our_none(name, text)])
def test_a_spelling_means_what_config_flags_says(name, text):
    assert repr(_override(name, text)) == repr(_override_by_config_flags(name, text))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SPELLINGS)), st.text(alphabet="0125.,-+_xoe ()[]'\"=nainftrue", max_size=9))
def test_any_text_means_what_config_flags_says(name, text):
    if not _is_our_none(name, text):
        assert repr(_override(name, text)) == repr(_override_by_config_flags(name, text))


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--config.run.compile"], {"run.compile": True}),
        (["--config.run.compile="], "run.compile= is of the wrong type: give true or false"),
        (["--config.run.compile", "F"], {"run.compile": False}),
        (["--config.run.compile", "TRUE"], {"run.compile": True}),
        (
            ["--config.run.compile", "yes"],
            "unexpected argument 'yes': write flags as --name=value",
        ),
        (
            ["--config.run.compile", "none"],
            "unexpected argument 'none': write flags as --name=value",
        ),
        (["--noconfig.run.resume"], {"run.resume": False}),
        (
            ["--noconfig.run.resume=true"],
            "run.resume is not a field of the configuration",
        ),
        (
            ["--noconfig.run.resume", "true"],
            "unexpected argument 'true': write flags as --name=value",
        ),
        (["-noconfig.run.resume"], {"run.resume": False}),
        (["--config.run.compile", "--noconfig.run.compile"], {"run.compile": False}),
        (["--noconfig.run.resume", "--config.run.resume"], {"run.resume": True}),
        (["--config.model.attention.output_bias"], {"model.attention.output_bias": True}),
        (["--noconfig.model.attention.output_bias"], {"model.attention.output_bias": False}),
        (["--config.model.attention.output_bias", "1"], {"model.attention.output_bias": True}),
        (
            ["--config.model.attention.output_bias", "none"],
            "unexpected argument 'none': write flags as --name=value",
        ),
        (
            ["--noconfig.train.steps"],
            "train.steps is not a field of the configuration",
        ),
        (["--config.train.steps=70", "--config.train.steps", "0x50"], {"train.steps": 80}),
        (["---config.train.steps=70"], {"train.steps": 70}),
        (["--config.optim.betas", "[0.5, 0.75]"], {"optim.betas": (0.5, 0.75)}),
        (["--config.optim.betas=0.5,0.75", "--config.optim.betas=0.25,0.5"], {"optim.betas": (0.25, 0.5)}),
        (
            ["--config.optim.betas=0.5", "--config.optim.betas=0.75"],
            "optim.betas=0.75 is of the wrong type: give 2 numbers with a comma between them",
        ),
        (["--config.optim.betas", "0.5", "0.75"], "unexpected argument '0.75': write flags as --name=value"),
        (["--config.run.name", ""], {"run.name": ""}),
        (["--config.run.name", "-x"], {"run.name": "-x"}),
        (["--config.run.name", "--x"], "--config.run.name has no value: write --config.run.name=VALUE"),
        (["--config.run.name=--x"], {"run.name": "--x"}),
        (["--config.run.name=a=b"], {"run.name": "a=b"}),
        (["--config.run.name=a", "--config.run.name="], {"run.name": ""}),
        (
            ["--config.run-name=a"],
            "run-name is not a field of the configuration",
        ),
        (
            ["--config.RUN.name=a"],
            "RUN.name is not a field of the configuration",
        ),
        (
            ["--config.run.name =a"],
            "run.name  is not a field of the configuration",
        ),
        (["--config.=a"], " is not a field of the configuration; --help lists them"),
        (["--config..seed=1"], ".seed is not a field of the configuration"),
        (["--config.seed=1", "--config.train.steps=70", "--config.seed=2"], {"train.steps": 70, "seed": 2}),
    ],
)
def test_words_around_a_value(words, values):
    try:
        assert parse(words)[0].overrides == values
    except UserError as error:
        assert isinstance(values, str) and values in str(error)


PRESET = """
from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import placeholder
from slm_core.config import Config
from slm_core.config.conversion import to_config_dict

def changed():
    config = to_config_dict(Config())
    config.model.d_model = 64
    config.optim.lr = 1
    config.model.mlp.hidden = 96
    config.model.attention.update({"n_kv_heads": 2})
    config.update_from_flattened_dict({"optim.betas": (0.5, 0.75), "train.batch_size": 8})
    config.optim.warmup_steps = config.train.get_ref("steps") // 10
    return config

def written():
    config = ConfigDict({"model": {"mlp": {"hidden": placeholder(int)}}, "optim": {"betas": (0.5, 0.75), "lr": 1}})
    with config.unlocked():
        config.model.d_model = 64
        config.model.attention = ConfigDict({"n_kv_heads": 2})
        config.optim.warmup_steps = 60
        config.train = {"batch_size": 8}
    config.model.mlp.hidden = 96
    return config

def get_config(variant):
    return {"changed": changed, "written": written, "frozen": lambda: FrozenConfigDict(changed())}[variant]()
"""


@pytest.mark.parametrize("variant", ["changed", "written", "frozen"])
def test_overrides_of_a_preset_set_by_the_means_of_ml_collections(tmp_path, variant):
    (tmp_path / "mine.py").write_text(PRESET)
    spec = f"--config={tmp_path / 'mine.py'}:{variant}"
    preset = {
        "model.d_model": 64, "model.attention.n_kv_heads": 2, "model.mlp.hidden": 96, "optim.lr": 1.0,
        "optim.betas": (0.5, 0.75), "optim.warmup_steps": 60, "train.batch_size": 8,
    }  # fmt: skip
    assert parse([spec])[0].config == with_values(Config(), preset)
    values = {"model.attention.n_kv_heads": None, "model.mlp.hidden": 32, "train.steps": 500, "optim.lr": 2.0}
    words = [f"--config.{name}={value}" for name, value in values.items()]
    assert parse([spec, *words])[0].config == with_values(Config(), preset | values)
