"""TensorBoard: one event file per process, in `tensorboard/` of the run's folder."""

import os
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm_core.training.trackers.base import Values


class TensorBoard:
    """Writes scalars, texts, and what the HParams tab shows.

    It needs the record format of the `tensorboard` package alone: no framework and no writer thread.
    """

    replays = False  # the event that starts a session voids what older files say of later steps

    def __init__(self, folder: Path, step: int, hyperparameters: Values):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        events: Any = event_pb2  # protobuf makes the messages of these modules at import, unseen by a type checker
        summaries: Any = summary_pb2
        self._event, self._summary = events.Event, summaries.Summary
        path = folder / "tensorboard"
        path.mkdir(exist_ok=True)
        file = (path / f"events.out.tfevents.{time.time_ns() // 10**9}.{os.getpid()}.{step}").open("ab")
        self._writer = RecordWriter(file)
        self._put(file_version="brain.Event:2")
        # A session that starts at a step makes TensorBoard drop that step and later ones of older files.
        self._put(step=step + 1, session_log=events.SessionLog(status=events.SessionLog.START))
        self._describe(hyperparameters, folder.name)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one event."""
        entries = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._put(step=step, summary=self._summary(value=entries))

    def text(self, step: int, tag: str, text: str) -> None:
        """Writes one event. The text is indented: Markdown, which TensorBoard shows, then leaves it as it is."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._put(step=step, summary=text_pb(tag, textwrap.indent(text, "    ", lambda line: True)))

    def close(self) -> None:
        self._writer.close()

    def _describe(self, hyperparameters: Values, name: str) -> None:
        """Writes the hyperparameters. The HParams tab finds the metrics by itself: each scalar's last value.

        Runs with equal hyperparameters would be averaged there, so each is a trial of its own.
        """
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._put(summary=hparams_pb(hyperparameters, trial_id=name))

    def _put(self, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._writer.flush()
