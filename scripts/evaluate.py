"""Measures the loss of a run of either twin on validation text: its own, or any that the flags name."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

if TYPE_CHECKING:
    from slm_core.runs.folder import SavedRun

CONTEXT = 1024
"""Tokens a window at most, where --seq_len says nothing."""

TOKENS_AT_ONCE = 4096
LOGITS_AT_ONCE = 2**24

DATA = {
    "source": Flag("source", str, None, "where the text comes from; --help of a trainer lists the sources"),
    "path": Flag("path", str, None, "file, folder, glob or dataset name"),
    "text_field": Flag("text_field", str, None, "column that holds the text"),
    "subset": Flag("subset", str, None, "configuration name of a Hugging Face dataset"),
    "split": Flag("split", str, None, "how validation is held out: hash or tail"),
    "val_fraction": Flag("val_fraction", float, None, "share of the text that is validation text"),
    "dir": Flag("data_dir", str, None, "folder of prepared datasets"),
}
"""{field of the data section: flag}. None: as in the run; an imported one has the standard library's source."""

FLAGS = (
    Flag("run", str, "", "run folder: models/NAME", required=True),
    Flag("framework", str, "", "twin that computes; empty: that of the run", choices=("", "torch", "flax")),
    *DATA.values(),
    Flag("batches", int, 0, "validation batches at most; 0: the run's train.eval_batches"),
    Flag("batch_size", int, 0, "windows a batch; 0: the run's train.batch_size, of an imported run 4"),
    Flag("seq_len", int, 0, f"tokens a window; 0: the run's data.seq_len, at most {CONTEXT}"),
    Flag("device", str, "auto", "where to compute", choices=("auto", "cpu", "cuda")),
    Flag("json", str, "", "file to which the result is added as a line of JSON"),
)


def run(invocation: Invocation) -> None:
    from slm_core.runs.folder import load_run

    flags = invocation.flags
    saved = load_run(flags["run"])
    sizes = _sizes(flags, saved)
    if flags["json"] and not Path(flags["json"]).parent.is_dir():
        raise UserError(f"--json={flags['json']}: there is no folder {Path(flags['json']).parent}; make it")

    from scripts._runs import evaluator_of, spare_gpu

    spare_gpu(flags["framework"] or saved.framework)
    from slm_core.data import validation_batches
    from slm_core.inference.evaluation import measure, open_text
    from slm_core.training.loop import VALIDATION_SEED
    from slm_core.training.metrics import finite

    given = {field: flags[flag.name] for field, flag in DATA.items() if flags[flag.name] is not None}
    dataset = open_text(saved, given, sizes["seq_len"])
    rows = min(sizes["batch_size"], max(1, TOKENS_AT_ONCE // sizes["seq_len"]))
    chunk = LOGITS_AT_ONCE // saved.vocab_size
    whole = saved.config.memory.loss_chunk or rows * sizes["seq_len"] <= chunk
    evaluator = evaluator_of(saved, flags["framework"], flags["device"], {} if whole else {"memory.loss_chunk": chunk})
    facts = {"run": str(saved.checkpoint), "data": str(dataset.folder), **evaluator.facts()}
    for name, fact in facts.items():
        print(f"{name:{max(map(len, facts))}}  {fact}", flush=True)

    start = time.monotonic()
    windows = list(validation_batches(dataset, **sizes, seed=VALIDATION_SEED))
    total = sum(int((batch[:, 1:] >= 0).sum()) for batch in windows)
    found = measure(evaluator, windows, dataset.tokenizer, rows, _reporter(total))
    seconds = time.monotonic() - start
    print(
        f"validation loss {found.loss:.4f} nats/token, {found.bits_per_byte:.4f} bits/byte, "
        f"perplexity {found.perplexity:,.2f}"
    )
    print(f"{found.tokens:,} tokens of {found.text_bytes:,} bytes in {seconds:.1f} s, windows of {sizes['seq_len']}")
    if flags["json"]:
        line = {"run": str(saved.folder), "checkpoint": saved.checkpoint.name, "framework": evaluator.framework}
        line |= {"compute": facts["compute"], "data": dataset.folder.name, "seq_len": sizes["seq_len"]}
        line |= {name: finite(getattr(found, name)) for name in ("loss", "bits_per_byte", "perplexity")}
        line |= {"tokens": found.tokens, "bytes": found.text_bytes, "seconds": seconds}
        line |= {"peak_memory_bytes": evaluator.peak_memory_bytes()}
        with open(flags["json"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _sizes(flags: dict[str, Any], saved: "SavedRun") -> dict[str, int]:
    """Returns seq_len, batch_size and max_batches, as `validation_batches` takes them."""
    context, train = saved.config.data.seq_len, saved.config.train
    own = {
        "seq_len": min(context, CONTEXT),
        "batch_size": 4 if saved.imported else train.batch_size,
        "batches": train.eval_batches,
    }
    sizes = {name: flags[name] or value for name, value in own.items()}
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"--{name}={value}: must be at least 1; leave it out for the run's own")
    if sizes["seq_len"] > context:
        raise UserError(f"--seq_len={sizes['seq_len']}: this run's context is {context} tokens; give at most that")
    return {"seq_len": sizes["seq_len"], "batch_size": sizes["batch_size"], "max_batches": sizes["batches"]}


def _reporter(total: int, every: float = 5.0) -> Callable:
    """Returns what says on stderr, every few seconds, how far an evaluation of `total` tokens is."""
    start = last = time.monotonic()

    def report(so_far) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every and so_far.tokens:
            last = now
            left = (now - start) * (total - so_far.tokens) / so_far.tokens
            line = f"{so_far.tokens:,} of {total:,} tokens, loss {so_far.loss:.4f} so far, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    return report


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False)
