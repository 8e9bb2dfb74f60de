"""Measures a run of either twin: its loss on validation text, or its answers to tasks of lm-evaluation-harness."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_core.cli.command_line import STEP, Flag, Invocation, main
from slm_core.errors import UserError

if TYPE_CHECKING:
    from slm_core.inference.evaluation import Measured
    from slm_core.protocols import Evaluator
    from slm_core.runs.saved import SavedRun

CONTEXT = 1024
"""Largest number of tokens per window without --seq_len."""

IMPORTED_BATCH = 4
"""Windows per batch of an imported run, which has no train.batch_size of its own."""

DATA = {
    "source": Flag("source", str, None, "kind of the text's source; --help of a trainer lists the sources"),
    "path": Flag("path", str, None, "file, folder, glob or dataset name"),
    "text_field": Flag("text_field", str, None, "column that holds the text"),
    "subset": Flag("subset", str, None, "configuration name of a Hugging Face dataset"),
    "split": Flag("split", str, None, "how validation text is held out: hash or tail"),
    "val_fraction": Flag("val_fraction", float, None, "share of the text that is validation text"),
    "dir": Flag("data_dir", str, None, "folder of prepared datasets"),
}
"""{field of the data section: flag}. None: as in the run; an imported run has the standard library's source."""

DOCUMENTS = Flag(
    "document_mask",
    bool,
    None,
    "whether documents are kept apart, as data.document_mask; leave it out for the run's own",
)

SIZES = (
    Flag("batches", int, 0, "largest number of validation batches; 0: the run's train.eval_batches"),
    Flag("batch_size", int, 0, "windows per batch; 0: the run's train.batch_size, of an imported run 4"),
    Flag("seq_len", int, 0, f"tokens per window; 0: the run's data.seq_len, at most {CONTEXT}"),
)

TASKS = (
    Flag("task_path", str, "", "with --tasks: folder that has the YAML files of more tasks"),
    Flag("num_fewshot", int, None, "with --tasks: solved examples before each question; none: as the task says"),
    Flag("limit", int, None, "with --tasks: largest number of questions per task; none: all"),
)

FLAGS = (
    Flag("run", str, "", "run folder: models/NAME", required=True),
    STEP,
    Flag("framework", str, "", "twin that computes; empty: the run's own", choices=("", "torch", "flax")),
    *DATA.values(),
    DOCUMENTS,
    *SIZES,
    Flag("tasks", str, "", "tasks of lm-evaluation-harness, instead of a text: names or YAML files, with commas"),
    *TASKS,
    Flag("device", str, "auto", "where to compute", choices=("auto", "cpu", "cuda")),
    Flag("json", str, "", "file to which the result is added as a line of JSON"),
)


def run(invocation: Invocation) -> None:
    from slm_core.runs.chosen import at_step
    from slm_core.runs.saved import load_run

    flags = invocation.flags
    _refuse_unread(flags)
    saved = _documents(at_step(load_run(flags["run"]), flags["step"]), flags["document_mask"])
    sizes = _sizes(flags, saved)
    if flags["json"] and not Path(flags["json"]).parent.is_dir():
        raise UserError(f"--json={flags['json']}: there is no folder {Path(flags['json']).parent}; make it")

    from slm_core.hardware.devices import spare_gpu

    spare_gpu(flags["framework"] or saved.framework)
    if flags["tasks"]:
        _answer(flags, saved)
    else:
        _evaluate(flags, saved, sizes)


def _refuse_unread(flags: dict[str, Any]) -> None:
    """Raises UserError if a flag is given that the others leave unread, or that is too small."""
    unread = (*DATA.values(), DOCUMENTS, *SIZES) if flags["tasks"] else TASKS
    for flag in unread:
        if flags[flag.name] != flag.default:
            reader = "without" if flags["tasks"] else "with"
            raise UserError(f"--{flag.name}={flags[flag.name]} is read only {reader} --tasks; leave it out")
    for name, least in (("num_fewshot", 0), ("limit", 1)):
        if flags[name] is not None and flags[name] < least:
            raise UserError(f"--{name}={flags[name]}: must be at least {least}; leave it out for all that there is")


def _documents(saved: "SavedRun", apart: bool | None) -> "SavedRun":
    """Returns the run with data.document_mask as given; None: its own. Raises UserError if its data has none."""
    from slm_core.config.fields import with_values
    from slm_core.config.validation import validate

    if apart is None:
        return saved
    config = with_values(saved.config, {"data.document_mask": apart})
    validate(config, ["data.document_mask"])
    return saved._replace(config=config)


def _answer(flags: dict[str, Any], saved: "SavedRun") -> None:
    from slm_core.data import load_tokenizer
    from slm_core.inference.evaluator import TOKENS_AT_ONCE, fitting, open_evaluator
    from slm_core.inference.harness import Adapter
    from slm_core.inference.harness_tasks import as_json, as_lines, evaluate, open_tasks
    from slm_core.training.summary import print_facts

    tasks = open_tasks(flags["tasks"], flags["task_path"], flags["num_fewshot"])
    tokenizer, context = load_tokenizer(saved.folder / "tokenizer"), saved.config.data.seq_len
    _, values = fitting(saved, TOKENS_AT_ONCE, context)
    evaluator = open_evaluator(saved, flags["framework"], flags["device"], values)
    facts = {"run": str(saved.checkpoint), "tasks": ", ".join(tasks["tasks"]), **evaluator.facts()}
    print_facts(facts)

    start = time.monotonic()
    said = _seldom(lambda done, total: f"{done:,} of {total:,} requests")
    adapter = Adapter(evaluator, tokenizer, context, saved.tokens, saved.imported is not None, said)
    results = evaluate(adapter, tasks, flags["limit"])
    seconds = time.monotonic() - start
    print("\n".join(as_lines(results)))
    print(f"in {seconds:.1f} s, context {context}")
    if flags["json"]:
        row = _origin(saved, evaluator) | {"seq_len": context} | as_json(results)
        _add_line(flags["json"], row | {"seconds": seconds, "peak_memory_bytes": evaluator.peak_memory_bytes()})


def _evaluate(flags: dict[str, Any], saved: "SavedRun", sizes: dict[str, int]) -> None:
    from slm_core.data import validation_batches
    from slm_core.inference.evaluation import VALIDATION_SEED, measure
    from slm_core.inference.evaluator import fitting, open_evaluator
    from slm_core.inference.text import open_text
    from slm_core.training.summary import print_facts

    given = {field: flags[flag.name] for field, flag in DATA.items() if flags[flag.name] is not None}
    dataset = open_text(saved, given, sizes["seq_len"])
    rows, values = fitting(saved, sizes["batch_size"], sizes["seq_len"])
    evaluator = open_evaluator(saved, flags["framework"], flags["device"], values)
    print_facts({"run": str(saved.checkpoint), "data": str(dataset), **evaluator.facts()})

    start = time.monotonic()
    windows = list(validation_batches(dataset, **sizes, seed=VALIDATION_SEED))
    total = sum(int((batch[:, 1:] >= 0).sum()) for batch in windows)
    measured = measure(evaluator, windows, dataset.tokenizer, rows, _reporter(total))
    seconds = time.monotonic() - start
    _print(measured, seconds, sizes["seq_len"])
    if flags["json"]:
        row = _origin(saved, evaluator) | {"data": dataset.name, "seq_len": sizes["seq_len"]} | _losses(measured)
        _add_line(flags["json"], row | {"seconds": seconds, "peak_memory_bytes": evaluator.peak_memory_bytes()})


def _print(measured: "Measured", seconds: float, seq_len: int) -> None:
    loss, time = f"validation loss {measured.loss:.4f} nats/token", f"in {seconds:.1f} s, windows of {seq_len}"
    if not measured.text_bytes:  # the answers of a task
        print(f"{loss}, accuracy {measured.accuracy:.4f}")
        print(f"{measured.tokens:,} answers {time}")
        return
    print(f"{loss}, {measured.bits_per_byte:.4f} bits/byte, perplexity {measured.perplexity:,.2f}")
    print(f"{measured.tokens:,} tokens of {measured.text_bytes:,} bytes {time}")


def _origin(saved: "SavedRun", evaluator: "Evaluator") -> dict[str, Any]:
    origin = {"run": str(saved.folder), "checkpoint": saved.checkpoint.name, "framework": evaluator.framework}
    return origin | {"compute": evaluator.facts()["compute"]}


def _losses(measured: "Measured") -> dict[str, Any]:
    from slm_core.training.metrics import finite

    losses = {name: finite(getattr(measured, name)) for name in ("loss", "accuracy", "bits_per_byte", "perplexity")}
    return losses | {"tokens": measured.tokens, "bytes": measured.text_bytes}


def _add_line(file: str, row: dict[str, Any]) -> None:
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")


def _sizes(flags: dict[str, Any], saved: "SavedRun") -> dict[str, int]:
    """Returns seq_len, batch_size and max_batches, as `validation_batches` takes them."""
    context, train = saved.config.data.seq_len, saved.config.train
    defaults = {
        "seq_len": min(context, CONTEXT),
        "batch_size": IMPORTED_BATCH if saved.imported else train.batch_size,
        "batches": train.eval_batches,
    }
    sizes = {name: flags[name] or value for name, value in defaults.items()}
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"--{name}={value}: must be at least 1; leave it out for the run's own")
    if sizes["seq_len"] > context:
        raise UserError(f"--seq_len={sizes['seq_len']}: this run's context is {context} tokens; give at most that")
    return {"seq_len": sizes["seq_len"], "batch_size": sizes["batch_size"], "max_batches": sizes["batches"]}


def _reporter(total: int) -> "Callable[[Measured], None]":
    """Makes a function that says how far an evaluation of `total` tokens is."""
    start = time.monotonic()

    def line(so_far: "Measured") -> str:
        left = (time.monotonic() - start) * (total - so_far.tokens) / max(1, so_far.tokens)
        return f"{so_far.tokens:,} of {total:,} tokens, loss {so_far.loss:.4f} so far, {left:.0f} s left"

    return _seldom(line)


def _seldom(line: Callable[..., str], every: float = 5.0) -> Callable[..., None]:
    """Makes a function that prints a line on stderr, at most once in `every` seconds."""
    last = time.monotonic()

    def say(*so_far: Any) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            print(line(*so_far), file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False)
