"""Writes a page about the inside of a run of either twin: its heads, attention, logit lens, norms and modules."""

from slm_core.cli.command_line import STEP, Flag, Invocation, main
from slm_core.cli.output_file import output_file
from slm_core.logging import say

FLAGS = (
    Flag("run", str, "", "run folder: models/NAME", required=True),
    Flag("prompt", str, None, "text that the model reads; none: a line of its validation text"),
    STEP,
    Flag("out", str, "", "file to write, .html; empty: inspect.html in the run folder"),
    Flag("framework", str, "", "twin that computes; empty: the run's own", choices=("", "torch", "flax")),
    Flag("device", str, "auto", "where to compute", choices=("auto", "cpu", "cuda")),
)


def run(invocation: Invocation) -> None:
    from slm_core.runs.chosen import at_step
    from slm_core.runs.saved import load_run
    from slm_core.studies.inspection.measure import measure

    flags = invocation.flags
    saved = at_step(load_run(flags["run"]), flags["step"])
    out = output_file("out", flags["out"] or str(saved.folder / "inspect.html"), (".html",))

    from slm_core.hardware.devices import spare_gpu

    spare_gpu(flags["framework"] or saved.framework)

    from slm_core.inference.evaluator import open_evaluator
    from slm_core.studies.inspection import write_page
    from slm_core.studies.inspection.prompt import open_prompt

    prompt, tokenizer = open_prompt(saved, flags["prompt"])
    # The reference kernel: the others would say that they cannot give weights, and compute the same.
    model = open_evaluator(saved, flags["framework"], flags["device"], {"model.attention.kernel": "dot_product"})
    write_page(measure(saved, model, prompt, tokenizer, say), out)
    print(f"written: {out}")


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False)
