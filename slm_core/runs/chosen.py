"""Finds a checkpoint of a run by what it is: the best, or that of a step."""

from collections.abc import Iterable
from pathlib import Path

from slm_core.errors import UserError
from slm_core.json_files import Broken
from slm_core.logging import say_once
from slm_core.runs.checkpoints import checkpoint_path, checkpoint_step, list_entries, read_loop
from slm_core.runs.fingerprints import Identity
from slm_core.runs.progress import Progress
from slm_core.runs.saved import SavedRun
from slm_core.runs.whole import check_whole, damage

BEST = "best"
MEASURING = ("data.", "train.batch_size", "train.eval_batches")
"""Prefixes of the fields on which the validation batches depend. data.dir, where they are stored, does not matter."""


def same_measure(changed: Iterable[str]) -> bool:
    """Tells whether the validation batches stay the same if these fields change."""
    return not any(name.startswith(MEASURING) and name != "data.dir" for name in changed)


def at_step(saved: SavedRun, step: str) -> SavedRun:
    """Returns a run at one of its checkpoints.

    Args:
      saved: at its newest whole one.
      step: completed updates; "best": of the evaluation with the lowest loss; "": the newest.

    Raises:
      UserError: that checkpoint was not kept, or is damaged.
    """
    if not step:
        return saved
    root = saved.folder / "checkpoints"
    if step == BEST:
        checkpoint = best_checkpoint(root, saved.identity, read_loop(saved.checkpoint).progress)
        if checkpoint is None:
            raise UserError(f"--step=best: {saved.folder} has no best checkpoint; train.keep_best=True keeps one")
        return saved._replace(checkpoint=checkpoint)
    if not step.isdecimal() or len(step) > 8:
        raise UserError(f"--step={step}: give the step of a checkpoint of {saved.folder}, or best; {_kept(root)}")
    checkpoint = checkpoint_path(root, int(step))
    if checkpoint not in list_entries(root):
        raise UserError(f"--step={step}: {saved.folder} has no checkpoint of it; {_kept(root)}")
    check_whole(checkpoint, saved.identity)
    return saved._replace(checkpoint=checkpoint)


def best_checkpoint(root: Path, identity: Identity, progress: Progress) -> Path | None:
    """Finds the best whole checkpoint; None: there is none. Says which damaged ones it passed over, and why.

    If the best one is damaged, the next best of those that were the best when they were saved takes its place.

    Args:
      root: the run's `checkpoints` folder.
      identity: of the run.
      progress: of its newest checkpoint, which names the best one.
    """
    if not progress.best_step:
        return None
    damaged = []
    if not checkpoint_path(root, progress.best_step).exists():
        damaged.append(f"{checkpoint_path(root, progress.best_step).name}, the best one, is missing")
    for checkpoint in _by_loss(root):
        wrong = damage(checkpoint, identity)
        if not wrong:
            _tell(root, damaged, f"{checkpoint.name} is the best of the others")
            return checkpoint
        damaged.append(f"{checkpoint.name} is damaged ({wrong[0]})")
    _tell(root, damaged, "no other was the best of its time")
    return None


def mend_best(progress: Progress, root: Path, identity: Identity, keeps: bool) -> None:
    """Makes a run's progress name the best checkpoint that is whole; none if the run does not keep it.

    Args:
      progress: of the checkpoint that the run goes on from. It is changed.
      keeps: whether the run keeps its best checkpoint, and evaluates on the same batches as before.
    """
    best = best_checkpoint(root, identity, progress) if keeps else None
    progress.best_step, progress.best_loss = 0, None
    if best:
        found = read_loop(best).progress
        progress.best_step, progress.best_loss = found.best_step, found.best_loss


def _by_loss(root: Path) -> list[Path]:
    """Lists the checkpoints that were the best when they were saved, the lowest loss first. Reads no large file."""
    losses = []
    for entry in list_entries(root):
        try:
            progress = read_loop(entry).progress
        except Broken:
            continue
        if progress.best_step == checkpoint_step(entry) and progress.best_loss is not None:
            losses.append((progress.best_loss, entry))
    return [entry for _, entry in sorted(losses)]


def _tell(root: Path, damaged: list[str], instead: str) -> None:
    for line in damaged:
        say_once(f"{root}: {line}; {instead}")


def _kept(root: Path) -> str:
    """Names the steps of the checkpoints, at most the newest five of them."""
    steps = [str(checkpoint_step(entry)) for entry in list_entries(root)]
    return "it has " + ("..., " if len(steps) > 5 else "") + ", ".join(steps[-5:])
