"""Opens tasks of lm-evaluation-harness and evaluates a model of either twin on them.

The harness is an optional extra. It loads no framework, and neither does this.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slm_core.errors import UserError, nearest
from slm_core.inference.harness import Adapter, generation

INSTALL = "uv sync --extra lm-eval"
FEWSHOT_SEED = 1234
"""Seed of the choice of examples, as the harness's own command has it."""

REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
"""What the harness asks of a model: methods of its class for models, and of the adapter."""

RESAMPLES = 1000
"""Resamples for the standard error of metrics that have no formula for it."""


def open_tasks(names: str, folder: str, num_fewshot: int | None) -> dict[str, Any]:
    """Loads tasks and their data.

    Args:
      names: task names, groups, tags, globs or YAML files, separated by commas.
      folder: has YAML files of further tasks; "": there is none.
      num_fewshot: examples before each question; None: as many as the task names, else 0.

    Returns:
      What the harness's `TaskManager.load` returns.

    Raises:
      UserError: the harness is not installed, a task is not there or not valid, or its data cannot be loaded.
    """
    wanted = _wanted(names, folder)
    _prepare()
    manager, found = _find(wanted, folder)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in found:
        for part, entries in _load(manager, name).items():
            loaded[part].update(entries)
    for name, task in loaded["tasks"].items():
        _check(name, task)
        _set_fewshot(task, num_fewshot)
    return loaded


def evaluate(
    adapter: Adapter, tasks: Mapping[str, Any], limit: int | None = None, log_samples: bool = False
) -> dict[str, Any]:
    """Evaluates a model on tasks.

    Args:
      tasks: from `open_tasks`.
      limit: largest number of questions per task; None: all.
      log_samples: whether the result has each question with its answer, too.

    Returns:
      What the harness's `evaluate` returns.
    """
    answers = {name: staticmethod(getattr(adapter, name)) for name in REQUESTS}
    model = type("Model", (import_module("lm_eval.api.model").LM,), answers)()
    run = import_module("lm_eval.evaluator").evaluate
    results = run(model, dict(tasks), limit=limit, bootstrap_iters=RESAMPLES, log_samples=log_samples)
    return dict(results or {})


def as_lines(results: Mapping[str, Any]) -> list[str]:
    """Writes each number of `evaluate` on a line, for the user to read."""
    lines = []
    for task, values in results["results"].items():
        questions, examples = results["n-samples"].get(task, {}).get("effective"), results["n-shot"].get(task)
        about = f"  ({questions} questions, {examples}-shot)" if questions else ""
        for key, value in _numbers(values).items():
            name, _, how = key.partition(",")
            error = values.get(f"{name}_stderr,{how}")
            error = f" ± {error:.4f}" if isinstance(error, int | float) else ""
            lines.append(f"{task}: {name}{'' if how == 'none' else f' ({how})'} {value:.4f}{error}{about}")
    return lines


def as_json(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a line of JSON keeps of the results of `evaluate`, under the names that the harness has for it."""
    kept = {name: results[name] for name in ("n-shot", "n-samples", "versions")}
    numbers = {task: _numbers(values, errors=True) for task, values in results["results"].items()}
    return {"results": numbers} | kept | {"lm_eval_version": version("lm_eval")}


def _numbers(values: Mapping[str, Any], errors: bool = False) -> dict[str, float]:
    """Returns {"metric,filter": number} of a task, with or without the standard errors."""
    named = {key: value for key, value in values.items() if "," in key and isinstance(value, int | float)}
    return {key: float(value) for key, value in named.items() if errors or "_stderr," not in key}


def _prepare() -> None:
    """Imports the harness, quietly. Raises UserError if it is not there."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # a fork of a process that runs JAX may hang
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import_module("lm_eval.evaluator")
    except ImportError as error:
        raise UserError(f"--tasks needs lm-evaluation-harness ({error}); install it: {INSTALL}") from None
    logging.getLogger("lm_eval").setLevel(os.environ.get("LMEVAL_LOG_LEVEL", "ERROR"))


def _wanted(names: str, folder: str) -> list[str]:
    """Splits the names. Raises UserError if there is none, or if a file or the folder is not there."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UserError(f"--tasks={names!r} names no task; give names or YAML files, separated by commas")
    for name in wanted:
        if _is_file(name) and not Path(name).is_file():
            raise UserError(f"--tasks={name}: there is no such file")
    if folder and not Path(folder).is_dir():
        raise UserError(f"--task_path={folder}: there is no such folder; give one that has YAML files of tasks")
    return wanted


def _find(wanted: Sequence[str], folder: str) -> tuple[Any, list[str]]:
    """Returns a task manager and the names that it knows. The harness's own tasks are read only if one is asked for."""
    manage = import_module("lm_eval.tasks").TaskManager
    manager = manage(include_path=folder or None, include_defaults=False)
    if not all(_matches(manager, name) for name in wanted):
        manager = manage(include_path=folder or None)
    found = []
    for name in wanted:
        matches = _matches(manager, name)
        if not matches:
            raise _unknown(name, folder, manager.all_tasks)
        found += [match for match in matches if match not in found]
    return manager, found


def _matches(manager: Any, name: str) -> list[str]:
    return [name] if _is_file(name) else manager.match_tasks([name])


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _unknown(name: str, folder: str, known: Sequence[str]) -> UserError:
    place = f"the folder {folder} nor in the harness" if folder else "the harness; --task_path names a folder of others"
    return UserError(f"--tasks={name}: there is no such task in {place}{nearest(name, known)}")


def _load(manager: Any, name: str) -> dict[str, Any]:
    try:
        return manager.load([name])
    except Exception as error:  # a broken task file, or data that is not there, raises anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"--tasks={name} cannot be loaded ({reason}); mend its file, or, if its data is on a hub, see that the hub "
            "can be reached or that the data is in the cache already"
        ) from None


def _check(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(f"--tasks={name} runs code that the model writes, which is not offered here; leave it out")
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"--tasks={name} asks about more than text; leave it out")
    if task.OUTPUT_TYPE == "generate_until":
        try:
            generation(task.get_config("generation_kwargs") or {})
        except UserError as error:
            raise UserError(f"--tasks={name}: {error}") from None


def _set_fewshot(task: Any, number: int | None) -> None:
    """Sets the number of examples, as the harness's own command does: a task that asks for none gets none."""
    named = task.get_config("num_fewshot")
    if named != 0:
        task.set_config("num_fewshot", (named or 0) if number is None else number)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
