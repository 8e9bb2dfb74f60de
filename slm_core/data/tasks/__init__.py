"""Synthetic tasks that tell architectures apart: one file per task, with its paper, its layout and its rule."""

from slm_core.data.tasks import (
    compression,
    copying,
    dyck,
    grammar,
    in_context_recall,
    induction,
    memorization,
    modular_addition,
    mqar,
    noisy_recall,
    parity,
    repetition,
    selective_copying,
)
from slm_core.data.tasks.task import Task

TASKS = {
    "copying": Task(copying.words, copying.least, copying.sample),
    "selective_copying": Task(selective_copying.words, selective_copying.least, selective_copying.sample),
    "induction": Task(induction.words, induction.least, induction.sample),
    "repetition": Task(repetition.words, repetition.least, repetition.sample),
    "mqar": Task(mqar.words, mqar.least, mqar.sample),
    "in_context_recall": Task(in_context_recall.words, in_context_recall.least, in_context_recall.sample),
    "noisy_recall": Task(noisy_recall.words, noisy_recall.least, noisy_recall.sample),
    "compression": Task(compression.words, compression.least, compression.sample),
    "memorization": Task(memorization.words, memorization.least, memorization.sample),
    "modular_addition": Task(modular_addition.words, modular_addition.least, modular_addition.sample),
    "parity": Task(parity.words, parity.least, parity.sample),
    "dyck": Task(dyck.words, dyck.least, dyck.sample),
    "grammar": Task(grammar.words, grammar.least, grammar.sample),
}
"""{data.task: its functions}."""
