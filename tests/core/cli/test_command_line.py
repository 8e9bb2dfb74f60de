"""The command line: overrides, presets, notes, errors of one line and status 2, help."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slm_core.cli.command_line import Flag, main, parse
from slm_core.cli.help import lines, painter
from slm_core.config import Config, presets
from slm_core.config.fields import fields, with_values
from slm_core.config.values import value_text
from slm_core.errors import UserError
from slm_core.runs.description import describe, write_description

ROOT = Path(__file__).resolve().parents[3]
FLAGS = (
    Flag("max-tokens", int, 200, "tokens to write"),
    Flag("framework", str, "torch", "which twin", choices=("torch", "flax")),
    Flag("greedy", bool, False, "take the likeliest token"),
)


def _config(*words):
    return parse(words)[0].config


def _fail(capsys, *words, flags=FLAGS, **options):
    with pytest.raises(SystemExit) as caught:
        main(lambda invocation: None, "Tests.", flags, argv=words, **options)
    captured = capsys.readouterr()
    assert caught.value.code == 2 and captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").strip()


def test_no_arguments_give_the_default():
    invocation, notes = parse([])
    assert (invocation.config, invocation.preset, invocation.config_given) == (Config(), "default", False)
    assert invocation.overrides == {} and notes == []


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--config.train.steps=70"], {"train.steps": 70}),
        (["--config.train.steps", "70"], {"train.steps": 70}),
        (["-config.train.steps=70"], {"train.steps": 70}),
        (["--", "--config.train.steps=70"], {"train.steps": 70}),
        (["--config.train.steps=70", "--config.train.steps=80"], {"train.steps": 80}),
        (["--config.optim.betas=0.5,0.75"], {"optim.betas": (0.5, 0.75)}),
        (["--config.optim.betas", "(0.5, 0.75)"], {"optim.betas": (0.5, 0.75)}),
        (["--config.optim.betas=0.5,0.75", "--config.optim.betas=0,0.25"], {"optim.betas": (0.0, 0.25)}),
        (["--config.optim.lr=1"], {"optim.lr": 1.0}),
        (["--config.model.mlp.hidden=96"], {"model.mlp.hidden": 96}),
        (["--config.model.mlp.hidden=96", "--config.model.mlp.hidden=none"], {"model.mlp.hidden": None}),
        (["--config.run.compile"], {"run.compile": True}),
        (["--config.run.compile", "--config.seed=1"], {"run.compile": True, "seed": 1}),
        (["--config.run.resume", "false"], {"run.resume": False}),
        (["--config.run.resume=0"], {"run.resume": False}),
        (["--noconfig.run.resume"], {"run.resume": False}),
        (["--config.run.name=a=b c"], {"run.name": "a=b c"}),
        (["--config.run.name="], {"run.name": ""}),
        (["--config.model.pattern=5*attention.window=256 | ."], {"model.pattern": "5*attention.window=256 | ."}),
        (["--config.data.tokenizer=file:a/b.json"], {"data.tokenizer": "file:a/b.json"}),
    ],
)
def test_overrides(words, values):
    invocation, notes = parse(words)
    assert invocation.overrides == values and notes == []
    assert invocation.config == with_values(Config(), values)


def test_without_a_preset_a_continued_run_gives_its_settings(tmp_path):
    """Those of its config.json, but for where and how it ran; overrides come on top."""
    config = with_values(Config(), {"optim.lr": 0.5, "train.steps": 700, "run.name": "first", "run.threads": 3})
    write_description(tmp_path, describe(tmp_path, config, "torch", "default", "print", 256))
    folder = str(tmp_path)
    by_name = [f"--config.run.dir={tmp_path.parent}", f"--config.run.name={tmp_path.name}"]
    for words in ([f"--config.run.resume_from={folder}"], [*by_name, "--config.run.branch=b"]):
        invocation, notes = parse([*words, "--config.train.steps=800"])
        assert invocation.preset == tmp_path.name and notes == []
        expected = with_values(config, {"train.steps": 800, "run": invocation.config.run})
        assert invocation.config == expected and invocation.config.run.threads == 0
    preset = parse(["--config=configs/llama.py:tiny", f"--config.run.resume_from={folder}"])[0]
    assert (preset.config.optim.lr, preset.preset) == (3e-3, "llama-tiny")
    assert parse(by_name)[0].config.optim == Config().optim


def test_a_run_without_settings_is_one_line(tmp_path, capsys):
    message = _fail(capsys, f"--config.run.resume_from={tmp_path / 'none'}")
    assert message.startswith("run.resume_from: ") and "not a run" in message


def test_overrides_may_stand_before_the_preset():
    config = _config("--config.model.attention.n_kv_heads=1", "--config", "configs/llama.py:tiny")
    assert (config.model.d_model, config.model.attention.n_kv_heads) == (64, 1)


@pytest.mark.parametrize("name", [info.name for info in fields()])
def test_every_field_can_be_set(name):
    """Whatever its type, a field takes its own default back from the command line; unread ones say so."""
    default = {info.name: info.default for info in fields()}[name]
    text = value_text(default)
    try:
        invocation, _ = parse([f"--config.{name}={text}"])
    except UserError as error:
        assert f"{name}={text} is not read by" in str(error)
    else:
        assert invocation.overrides == {name: default} and invocation.config == Config()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.model.attention.n_kv_head=2"], "did you mean model.attention.n_kv_heads?"),
        (["--noconfig.run.resum"], "did you mean run.resume?"),
        (["--config.model.attention=2"], "model.attention is a section"),
        (["--config.lr=2"], "did you mean optim.lr?"),
        (["--config.train.steps=1e3"], "train.steps=1e3 is of the wrong type: give a whole number, such as 1000"),
        (["--config.run.resume=maybe"], "run.resume=maybe is of the wrong type: give true or false"),
        (["--config.optim.betas=0.9"], "optim.betas=0.9 is of the wrong type: give 2 numbers"),
        (["--config.optim.betas=a,b"], "optim.betas=a,b is of the wrong type"),
        (["--config.optim.betas="], "optim.betas= is of the wrong type"),
        (["--config.optim.lr=fast"], "optim.lr=fast is of the wrong type: give a number"),
        (["--config.model.mlp.hidden=x"], "give a whole number or none"),
        (["--config.model.position.kind=rop"], "did you mean rope?"),
        (["--config.model.position.kind=learned", "--config.model.position.theta=10000"], "theta=10000.0 is not"),
        (["--config.train.steps"], "--config.train.steps has no value"),
        (["--config.train.steps", "--config.seed=1"], "--config.train.steps has no value"),
        (["--config"], "--config has no value"),
        (["--confg=x"], "did you mean --config?"),
        (["--steps=3"], "did you mean --config.train.steps?"),
        (["--max-token=3"], "did you mean --max_tokens?"),
        (["train.steps=3"], "unexpected argument 'train.steps=3'"),
        (["--config.train.steps=70", "80"], "unexpected argument '80'"),
        (["-x"], "--x is not a flag of this command"),
        (["--max-tokens=many"], "--max-tokens=many is of the wrong type"),
        (["--framework=flx"], "--framework=flx is not one of torch, flax (did you mean flax?)"),
        (["--config=configs/lama.py"], "did you mean configs/llama.py?"),
        (["--config=configs/llama.py:6m"], "did you mean 60m?"),
        (["--config=configs/llama.py:"], "'' is not a variant"),
        (["--config=configs/default.py:big"], "configs/default.py has no variants"),
        (["--config=configs"], "--config=configs is not a file"),
        (["--config=configs/gpt2.py:nanogpt_cpu"], "data.path is empty"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(capsys, words, message):
    assert message in _fail(capsys, *words)


def _preset(tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(f"from slm_core.config import *\nfrom slm_core.config.conversion import to_config_dict\n{body}\n")
    return str(path)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("get_config = 3", "has no get_config"),
        ("", "has no get_config"),
        ("def get_config(:", "fails: SyntaxError: invalid syntax, line 3"),
        ("import missing_module", "fails: ModuleNotFoundError: No module named 'missing_module'"),
        ("def get_config():\n  raise KeyError('x\\ny')", "fails: KeyError: 'x\\ny' (mine.py, line 4)"),
        ("def get_config():\n  raise ValueError('x\\ny')", "fails: ValueError: x y (mine.py, line 4)"),
        ("def get_config(variant): pass", "needs a variant"),
        ("def get_config(): return {'model': {'d_modl': 3}}", "did you mean model.d_model?"),
        ("def get_config(): return {'train': {'steps': 'x'}}", "train.steps='x' is of the wrong type"),
        ("def get_config(): return None", "did not return a ConfigDict"),
        ("def get_config(): return to_config_dict(Config(mlp=3))", "fails: TypeError"),
        ("def get_config(): return to_config_dict(Config(model=Model(position=Position(kind='none', theta=5.0))))",
         "model.position.theta=5.0 is not read by model.position.kind=none"),
    ],
)  # fmt: skip
def test_a_preset_that_fails_is_one_line(capsys, tmp_path, body, message):
    assert message in _fail(capsys, "--config", _preset(tmp_path, body))


def test_presets_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse(["--config=configs/llama.py"])[0].preset == "llama-tiny"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "llama.py").write_text("def get_config(v='mine/1'): return {'seed': 7}")
    invocation, _ = parse(["--config=configs/llama.py"])
    assert (invocation.preset, invocation.config.seed) == ("llama-mine_1", 7)
    assert parse([])[0].preset == "default"


def test_names_of_presets():
    assert [parse(["--config", spec])[0].preset for spec in ("configs/llama.py:60m", "configs/default.py")] == [
        "llama-60m",
        "default",
    ]


def test_a_preset_field_left_unread_by_an_override_is_noted(capsys):
    seen = []
    main(seen.append, "Tests.", argv=["--config=configs/gpt2.py:tiny", "--config.model.mlp.kind=swiglu"])
    assert seen[0].config.model.mlp.gelu == "erf"
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == (
        "note: model.mlp.gelu=tanh of the preset is not read by model.mlp.kind=swiglu; left at its default\n"
    )


def test_a_scripts_own_flags():
    words = ["--max_tokens", "7", "--greedy", "--framework=flax"]
    assert parse(words, FLAGS)[0].flags == {"max_tokens": 7, "framework": "flax", "greedy": True}
    assert parse(["--nogreedy"], FLAGS)[0].flags == {"max_tokens": 200, "framework": "torch", "greedy": False}


def test_a_command_without_config(capsys):
    required = (Flag("run", str, None, "folder of the run", required=True),)
    assert _fail(capsys, "--config=x", flags=required, takes_config=False).startswith("--config is not a flag")
    assert _fail(capsys, flags=required, takes_config=False) == "--run is missing: folder of the run"
    assert parse(["--run=models/a"], required, takes_config=False)[0].flags == {"run": "models/a"}


def test_errors_inside_the_script(capsys):
    def fail(invocation):
        raise UserError("data.path=x is not there:\ngive another")

    with pytest.raises(SystemExit) as caught:
        main(fail, "Tests.", argv=[])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: data.path=x is not there: give another\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "a file: No space left on device; make room on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "x.json"), "x.json: Permission denied; check its perm"),
        (OSError(errno.EMFILE, "Too many open files", "y"), "y: Too many open files; let the process open more"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "standard output: Broken pipe; its reader ended"),
        (OSError(errno.EFBIG, "File too large", "z"), "z: File too large; the file system or ulimit -f allows no"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "a file: Cannot allocate memory; close other programs"),
        (MemoryError(), "the memory is full: close other programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "the memory is full"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes."), "the memory is full"),
        (RuntimeError("can't start new thread"), "the memory is full"),
    ],
)
def test_what_the_machine_refuses_is_one_line(capsys, error, line):
    def run(invocation):
        raise error

    with pytest.raises(SystemExit) as caught:
        main(run, "Tests.", FLAGS, argv=[])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith(f"error: {line}") and said.count("\n") == 1


@pytest.mark.parametrize("letters", [1, 100_000])
@pytest.mark.parametrize("where", ["/dev/full", "a closed pipe"])
def test_output_that_cannot_be_written_is_one_line(where, letters, tmp_path):
    """A short one is written only at the end."""
    code = (
        "from slm_core.cli.command_line import main\n"
        f"main(lambda invocation: print('x' * {letters}), 'Tests.', argv=[])\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    if where == "/dev/full":
        output = os.open(where, os.O_WRONLY)
    else:
        reader, output = os.pipe()
        os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=output, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("stream", [1, 2])
def test_without_an_output_no_file_gets_what_is_printed(stream, tmp_path):
    """The shell's `>&-` and `2>&-`: the file that is opened next would have the stream's number."""
    code = (
        "import os\n"
        "from slm_core.cli.command_line import main\n"
        "def run(invocation):\n"
        " with open('file', 'w') as file:\n"
        f"  os.write({stream}, b'from a library'); print('x', flush=True)\n"
        "main(run, 'Tests.', argv=[])\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = ["sh", "-c", f'exec "$0" -c "$1" {stream}>&-', sys.executable, code]
    done = subprocess.run(command, env=environment, cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "file").read_text() == ""


def test_ctrl_c_is_quiet(capsys):
    def interrupt(invocation):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        main(interrupt, "Tests.", argv=[])
    assert caught.value.code == 130 and capsys.readouterr().err == ""


def test_other_exceptions_are_not_hidden():
    def fail(invocation):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main(fail, "Tests.", argv=[])


def test_help_names_everything(capsys):
    with pytest.raises(SystemExit) as caught:
        main(lambda invocation: None, "Tests.", FLAGS, argv=["--config.x=1", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    words = set(text.split())
    for info in fields():
        assert info.name.rpartition(".")[2] in words
        assert set(info.option.doc.split()) | set(info.option.choices) <= words, info.name
    for listed in presets.listing():
        assert listed.path in words and {f":{variant}" for variant in listed.variants} <= words
    assert "--max-tokens" in words and "\033" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_help_fits_the_terminal(width):
    printed = list(lines("scripts/x.py", "Tests.", FLAGS, True, painter(False), width))
    too_long = [line for line in printed if len(line) > width and not line.startswith("  uv run")]
    assert not [line for line in too_long if " " in line.strip()]  # a word longer than a narrow screen stays whole
    assert all(line == line.rstrip() for line in printed)


def _help(capsys, *words, **options):
    with pytest.raises(SystemExit) as caught:
        main(lambda invocation: None, "Tests.", FLAGS, argv=words, **options)
    return caught.value.code, capsys.readouterr()


@pytest.mark.parametrize(
    "words", [["--help", "optim"], ["--help=optim"], ["-h", "config.optim"], ["--help", "optim.lr"]]
)
def test_help_of_one_section(capsys, words):
    code, shown = _help(capsys, *words)
    assert code == 0 and shown.out.startswith("--config.optim.   The optimizer") and "min_lr_ratio" in shown.out
    assert "n_heads" not in shown.out


def test_help_of_a_section_that_is_not_there(capsys):
    code, shown = _help(capsys, "--help", "optimizer")
    assert code == 2 and "--help optimizer: the sections are seed, model," in shown.err
    assert "did you mean optim?" in shown.err and shown.err.count("\n") == 1
    code, shown = _help(capsys, "--help", "optim", takes_config=False)
    assert code == 2 and "has no sections" in shown.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_printed_as_its_escape(encoding, tmp_path):
    code = (
        "import sys; from slm_core.cli.command_line import main\n"
        "from slm_core.errors import UserError\n"
        "def run(invocation):\n print('\\u2192'); raise UserError('\\u2192 \\udcff')\n"
        "main(run, 'Tests.', argv=[])\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING=encoding)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, cwd=tmp_path)
    arrow = b"\xe2\x86\x92" if encoding == "utf-8" else b"\\u2192"
    assert (done.returncode, done.stdout, done.stderr) == (2, arrow + b"\n", b"error: " + arrow + b" \\udcff\n")


def test_a_word_that_is_not_utf_8_is_an_error(capsys):
    message = _fail(capsys, "--config.data.path=\udcff.txt")
    assert "has bytes that are not UTF-8" in message and "\\udcff.txt" in message


def test_help_without_config_has_no_config():
    text = "\n".join(lines("scripts/x.py", "Tests.", FLAGS, False, painter(False), 100))
    assert "--config" not in text


@pytest.mark.parametrize("script", ["train_torch.py", "train_flax.py"])
def test_scripts_answer_mistakes_without_heavy_imports(script, tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--config.train.steps=0']\n"
        f"try: runpy.run_path({str(ROOT / 'scripts' / script)!r}, run_name='__main__')\n"
        "except SystemExit as e: status = e.code\n"
        "print(status, *sorted({'torch', 'jax', 'flax', 'grain', 'rich', 'numpy'} & set(sys.modules)))\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2\n"
    assert done.stderr == "error: train.steps=0 must be at least 1\n"
