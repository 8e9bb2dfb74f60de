"""Imports a Hugging Face checkpoint into a run, exports a run as one, or shows what is inside a checkpoint."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_core.cli.command_line import STEP, Flag, Invocation, drop_output, main
from slm_core.errors import UserError

if TYPE_CHECKING:
    from slm_core.runs.saved import SavedRun

DESCRIPTION = """Imports a Hugging Face checkpoint into a run, with --import=FOLDER (config.json and safetensors; no
network is needed), or exports the newest checkpoint of a run to a folder that AutoModelForCausalLM of
transformers loads, with --export=FOLDER. --format=peft writes the adapters of a run alone, and --format=orbax an Orbax
tree. docs/huggingface.md lists the families. --show=PATH prints what is inside a run, one of its checkpoints, a Hugging
Face folder or a safetensors file: names, shapes, dtypes and norms."""

FLAGS = [
    Flag("run", str, "", "run folder, to import into or to export from: models/NAME"),
    Flag("import", str, "", "checkpoint to import: a folder, a PEFT adapter, a GGUF file, or a name on the Hub"),
    Flag("revision", str, "main", "branch, tag or commit of a checkpoint that is imported by its name"),
    Flag("base", str, "", "folder of the checkpoint that an adapter is of; empty: the one that it names"),
    Flag(
        "adapter",
        str,
        "merged",
        "a PEFT adapter is merged into the matrices, or becomes LoRA that can go on training",
        choices=("merged", "lora"),
    ),
    Flag("export", str, "", "new folder for the Hugging Face checkpoint to write"),
    STEP,
    Flag("show", str, "", "run, checkpoint, folder or file whose contents to print"),
    Flag("json", bool, False, "with --show: one JSON object in place of the table"),
    Flag("framework", str, "torch", "twin of the imported run; either can read it", choices=("torch", "flax")),
    Flag("context", int, 0, "tokens of context of the imported run; 0: the checkpoint's, at most 2048"),
    Flag("format", str, "huggingface", "what is exported", choices=("huggingface", "peft", "orbax")),
    Flag("family", str, "", "model_type of the export, such as llama; empty: the first that fits"),
    Flag(
        "dtype", str, "float32", "type of the exported tensors", choices=("float32", "bfloat16", "float16", "float64")
    ),
]


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    chosen = [name for name in _ACTIONS if flags[name]]
    if len(chosen) != 1:
        raise UserError("give one of --import FOLDER, --export FOLDER and --show PATH")
    if not flags["run"] and chosen != ["show"]:
        raise UserError("--run is missing: give the run folder, models/NAME")
    if flags["step"] and chosen != ["export"]:
        raise UserError(f"--step is not read beside --{chosen[0]}: leave it out")
    if flags["json"] and chosen != ["show"]:
        raise UserError(f"--json is not read beside --{chosen[0]}: leave it out")
    _ACTIONS[chosen[0]](flags)


def _import(flags: dict[str, Any]) -> None:
    from slm_core.hf.hub import find_checkpoint
    from slm_core.hf.run import import_run

    if flags["context"] < 0:
        raise UserError(f"--context={flags['context']} must be at least 0")
    run = Path(flags["run"])
    source = find_checkpoint(flags["import"], flags["revision"])
    read_bin = _reader_of_bin() if flags["framework"] == "torch" else None
    as_lora = flags["adapter"] == "lora"
    imported = import_run(
        source, run, flags["framework"], flags["context"], _progress, flags["base"], read_bin, as_lora
    )
    for note in imported.notes:
        print(f"note: {note}")
    model = imported.config.model
    shape = f"{model.n_layers} layers of {model.d_model}, vocabulary {imported.vocab_size}"
    print(f"imported: {imported.family.model_type}, {shape}")
    print(f"run folder: {run}")
    print(f'text from it: uv run scripts/generate.py --run {run} --prompt "The "')
    print(f"its loss on a text: uv run scripts/evaluate.py --run {run} --source text --path FILE")
    print(f"to fine-tune it: uv run scripts/train_torch.py --config configs/finetune.py:{run} --config.data.path=FILE")


def _reader_of_bin() -> Any:
    """Returns what opens pytorch_model.bin files. PyTorch is imported when there is such a file."""

    def read(files: list[Path]) -> Any:
        from slm_torch.bin_files import read_bin

        return read_bin(files)

    return read


def _export(flags: dict[str, Any]) -> None:
    from slm_core.hardware.devices import quiet_jax
    from slm_core.hf.run import export_run
    from slm_core.runs.chosen import at_step
    from slm_core.runs.saved import load_run
    from slm_core.runs.weights import run_weights

    quiet_jax()
    saved = at_step(load_run(flags["run"]), flags["step"])
    target = Path(flags["export"])
    if flags["format"] != "huggingface":
        return _FORMATS[flags["format"]](saved, target, flags)
    family = export_run(saved, run_weights(saved), target, flags["family"], flags["dtype"], _progress)
    print(f"exported: {family.model_type} in {flags['dtype']}, from {saved.checkpoint}")
    print(f'load it: transformers.AutoModelForCausalLM.from_pretrained("{target}")')


def _export_orbax(saved: "SavedRun", target: Path, flags: dict[str, Any]) -> None:
    from slm_core.hf.run import export_folder
    from slm_core.runs.weights import run_weights
    from slm_flax.orbax_export import FOLDER, write_orbax

    if flags["family"] or flags["dtype"] != "float32":
        raise UserError("--format=orbax keeps the names and the dtype of the run: leave --family and --dtype out")
    with export_folder(saved, target) as folder:
        write_orbax(folder, run_weights(saved))
    print(f"exported: Orbax tree of the parameters, from {saved.checkpoint}")
    print(f'load it: orbax.checkpoint.StandardCheckpointer().restore("{(target / FOLDER).absolute()}")')


def _export_peft(saved: "SavedRun", target: Path, flags: dict[str, Any]) -> None:
    from slm_core.hf.run import export_adapter

    family, count = export_adapter(saved, target, flags["family"], flags["dtype"], flags["base"])
    print(f"exported: adapter of a {family.model_type} model, adapted modules: {count}, from {saved.checkpoint}")
    base = flags["base"] or "the checkpoint that it was trained on"
    print(f'load it: peft.PeftModel.from_pretrained(model, "{target}"), with the model of {base}')


def _show(flags: dict[str, Any]) -> None:
    from slm_core.hf.contents import as_json, open_contents, table

    contents = open_contents(Path(flags["show"]))
    lines = [json.dumps(as_json(contents), indent=1)] if flags["json"] else table(contents)
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `--show ... | head`
        drop_output()


def _progress(items: Iterator[Any], action: str) -> Iterator[Any]:
    """Yields the items, and counts them on a terminal."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(action + " {task.completed} tensors"), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as progress:
        yield from progress.track(items)


_FORMATS = {"peft": _export_peft, "orbax": _export_orbax}
"""{--format: what writes it}, beside huggingface."""
_ACTIONS = {"import": _import, "export": _export, "show": _show}
"""{flag: what it does}."""


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
