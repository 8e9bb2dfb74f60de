"""Makes the sections of a page about a run, in order."""

from slm_core.studies.inspection import charts, maps, tables
from slm_core.studies.inspection.measure import Inside
from slm_core.studies.report import numbers
from slm_core.studies.report.sections import Section
from slm_core.studies.report.tables import Table

NO_WEIGHTS = "No layer of this model has softmax attention, so there are no attention weights to show."


def sections(inside: Inside) -> list[Section]:
    """Makes all sections."""
    return [_run(inside), _heads(inside), _attention(inside), _lens(inside), _norms(inside), _modules(inside)]


def _run(inside: Inside) -> Section:
    facts = {"run": inside.run, "step": f"{inside.step:,}"} | {n: f for n, f in inside.facts.items() if n != "memory"}
    kept = f"{len(inside.heads)} checkpoint{'s' if len(inside.heads) > 1 else ''} of it"
    table = Table("The run, and the model that computed this page", ("fact", "value"), tuple(facts.items()), (0, 1))
    prompt = f"The prompt has {len(inside.prompt.tokens)} tokens: {inside.prompt.origin}."
    return Section("run", "The run", paragraphs=(f"{prompt} The run's folder has {kept}.",), tables=(table,))


def _heads(inside: Inside) -> Section:
    title = "Induction heads"
    latest = inside.heads[inside.step]
    if not latest:
        return Section("heads", title, paragraphs=(NO_WEIGHTS,))
    best, name = max(
        (float(value), f"{tables.attention_name(path)}, head {head}")
        for path, scores in latest.items()
        for head, value in enumerate(scores.induction)
    )
    drawn = [
        *charts.head_charts(inside.heads, "induction", "Induction score"),
        *charts.head_charts(inside.heads, "previous", "Weight on the token before"),
    ]
    few = "" if drawn else " There is one checkpoint, so no score can be drawn over training."
    paragraphs = (
        "The model reads random tokens twice. An induction head looks, at each token of the second copy, at the token "
        "that followed the first one: what it finds there is what comes next. It needs a head of an earlier layer that "
        f"looks at the token before.{few}",
    )
    return Section(
        "heads",
        title,
        lead=f"The largest induction score is {best:.2f}: {name}.",
        paragraphs=paragraphs,
        charts=tuple(drawn),
        tables=(tables.heads_table(latest),),
    )


def _attention(inside: Inside) -> Section:
    title = "Attention on the prompt"
    missing = [each.layer for each in inside.lens if not any(p.startswith(f"{each.layer}.") for p in inside.maps)]
    if not inside.maps:
        return Section("attention", title, paragraphs=(NO_WEIGHTS,))
    paragraphs = [
        "Each map is one head. A row is the token that looks, a column the token that it looks at. A map opens if you "
        "select it; those with the largest induction scores are open."
    ]
    if missing:
        paragraphs.append(f"Without softmax attention, and so without maps: {', '.join(missing)}.")
    if any(path.endswith("_2") for path in inside.maps):
        paragraphs.append("Differential attention subtracts its map 2, times lambda, from its map 1.")
    return Section("attention", title, paragraphs=tuple(paragraphs), markup=maps.maps_markup(inside))


def _lens(inside: Inside) -> Section:
    text = (
        "The residual stream after each layer goes through the final norm and the head, as if the model ended there. "
        "The last layer gives the model's own prediction."
    )
    drawn = tuple(charts.lens_charts(inside))
    return Section("lens", "Logit lens", paragraphs=(text,), charts=drawn, markup=maps.lens_markup(inside))


def _norms(inside: Inside) -> Section:
    title = "Activations and gradients"
    if not inside.details:
        remedy = (
            "The run has no details.jsonl. A run that trains with --config.train.log_details_every=100 has one, and "
            "then activations and gradients of each layer are shown over training."
        )
        return Section("norms", title, paragraphs=(remedy,), tables=(tables.streams_table(inside),))
    text = "From details.jsonl: each line is about the batch of one update. The vertical axes are logarithmic."
    drawn = tuple(charts.norm_charts(inside))
    return Section("norms", title, paragraphs=(text,), charts=drawn, tables=(tables.norms_table(inside),))


def _modules(inside: Inside) -> Section:
    model = inside.modules[0]
    notes = (
        "FLOPs: a multiplication and an addition are 2. Matrix products count, and scores for all pairs of tokens. "
        "An update costs about three times the forward pass, per sequence.",
        "The memory of an output is that of one sequence. Training keeps many of them until the backward pass: "
        "scripts/plan_memory.py predicts its peak.",
        "Modules inside a module are included. Dropout is not listed.",
    )
    lead = f"One sequence of {inside.length} tokens takes {numbers.flops(model.flops)} forward."
    return Section("modules", "The modules", lead=lead, tables=(tables.modules_table(inside),), notes=notes)
