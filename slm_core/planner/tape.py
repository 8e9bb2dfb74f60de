"""A tape of operations that have sizes and no numbers, played as PyTorch's autograd would: what is alive, and when.

Forward, an operation makes its output, and a value is freed when nothing needs it any more: no operation to come, and
no operation that saved it for its backward. Backward, from the last operation to the first, an operation makes the
gradients of its inputs, then frees what it saved and the gradient that it was given. A checkpointed segment saves its
inputs alone and is played again, forward and backward, when its gradient is due.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Buffer:
    """Memory that is freed when nobody holds it; while an operation has it saved it counts as what that part keeps."""

    size: int
    part: str
    saving: str
    refs: int = 1
    saves: int = 0


class Memory:
    """Bytes that are alive, by part, now and when they were the most."""

    def __init__(self, live: dict[str, int]):
        self.live, self.peak, self.most = dict(live), dict(live), sum(live.values())

    def allocate(self, size: int, part: str, saving: str = "") -> Buffer:
        self._add(part, size)
        return Buffer(size, part, saving or part)

    def hold(self, buffer: Buffer) -> Buffer:
        buffer.refs += 1
        return buffer

    def release(self, buffer: Buffer) -> None:
        buffer.refs -= 1
        if not buffer.refs:
            self._add(buffer.part, -buffer.size)

    def save(self, buffer: Buffer) -> Buffer:
        buffer.saves += 1
        if buffer.saves == 1:
            self._swap(buffer)
        return self.hold(buffer)

    def unsave(self, buffer: Buffer) -> None:
        buffer.saves -= 1
        if not buffer.saves:
            self._swap(buffer)
        self.release(buffer)

    def briefly(self, size: int, part: str) -> None:
        """Counts what is made and freed at once."""
        if size:
            self.release(self.allocate(size, part))

    def relabel(self, buffer: Buffer, part: str) -> None:
        self._add(buffer.part, -buffer.size)
        buffer.part = part
        self._add(part, buffer.size)

    def _swap(self, buffer: Buffer) -> None:
        part, buffer.saving = buffer.saving, buffer.part
        self.relabel(buffer, part)

    def _add(self, part: str, size: int) -> None:
        self.live[part] = self.live.get(part, 0) + size
        if size > 0 and (total := sum(self.live.values())) > self.most:
            self.most, self.peak = total, dict(self.live)


@dataclass(eq=False)
class Value:
    """What an operation makes.

    Args:
      size: bytes.
      graded: whether it gets a gradient.
      weight: whether it is a parameter, or something made of one that is always there: no memory of its own.
    """

    size: int
    graded: bool = True
    weight: bool = False
    buffer: Buffer | None = None
    gradient: Buffer | None = None


@dataclass(eq=False)
class Op:
    """An operation.

    Args:
      inputs: values that it reads; those that are graded get a gradient of their size.
      output: the value that it makes.
      saved: values that its backward needs, inputs or its output.
      extra: bytes that it saves besides.
      passes: inputs whose gradient is the very one that it was given.
      forward, backward: bytes that it needs while it works.
      product: whether it is a product with a weight.
      reuses: whether the gradient takes the place of the extra bytes.
      view: whether its output is a piece of its input, without memory of its own.
      part: what it belongs to, "activations" or "logits".
    """

    inputs: tuple[Value, ...]
    output: Value
    saved: tuple[Value, ...] = ()
    extra: int = 0
    passes: tuple[Value, ...] = ()
    forward: int = 0
    backward: int = 0
    product: bool = False
    reuses: bool = False
    view: bool = False
    part: str = "activations"
    segment: "Tape | None" = None
    kept: list[Buffer] = field(default_factory=list)


class Tape:
    """A list of operations, in the order in which they are played.

    Args:
      part: what its operations belong to.
      keeps: of a checkpointed segment, whether results of products with weights are kept.
      exports: of a checkpointed segment, what it makes for others beside its last output.
    """

    def __init__(self, part: str = "activations", keeps: bool = False):
        self.ops: list[Op] = []
        self.part, self.keeps = part, keeps
        self.exports: list[Value] = []
        self.cache: dict[Op, Buffer] = {}

    def op(self, inputs: Iterable[Value], size: int, saved: Iterable[Value] = (), own: bool = False, **more) -> Value:
        """Adds an operation and returns its output. `own`: its output is saved as well."""
        inputs = tuple(inputs)
        output = Value(size, graded=any(value.graded for value in inputs))
        saved = (*saved, output) if own else tuple(saved)
        saved = tuple(value for value in saved if not value.weight) if output.graded else ()
        more["extra"] = more.get("extra", 0) if output.graded else 0
        self.ops.append(Op(inputs, output, saved, part=self.part, **more))
        return output

    def view(self, x: Value, size: int) -> Value:
        """Adds a piece of x, whose gradient is as large as x."""
        return self.op([x], size, view=True)

    def checkpoint(self, inputs: Iterable[Value], body: Callable[["Tape"], Value], keeps: bool = False) -> Value:
        """Adds what `body` writes on a tape as a segment of which only the inputs are kept."""
        segment = Tape(self.part, keeps)
        inputs, output = tuple(inputs), body(segment)
        weights = _weights(segment)
        self.ops.append(Op((*inputs, *weights), output, inputs, part=self.part, segment=segment))
        return output


def _weights(tape: Tape) -> list[Value]:
    found: dict[Value, None] = {}
    for op in tape.ops:
        found |= dict.fromkeys(value for value in op.inputs if value.weight)
    return list(found)


class Player:
    """Plays a tape.

    Args:
      memory: counts.
      accumulated: whether parameters have gradients already, which new ones are added to.
    """

    def __init__(self, memory: Memory, accumulated: bool):
        self.memory, self.accumulated = memory, accumulated
        self.pending: dict[Value, int] = {}

    def play(self, tape: Tape) -> None:
        """Plays a whole update's forward and backward; the last output is the loss."""
        self._count(tape)
        self.forward(tape, saving=True)
        last = tape.ops[-1].output
        last.gradient = self.memory.allocate(last.size, "workspace")
        self.memory.release(last.buffer)
        self.backward(tape)

    def forward(self, tape: Tape, saving: bool, again: bool = False) -> None:
        """`again`: for a segment's backward; it stops at the last value that is saved."""
        ops, stop = tape.ops, None
        if again:
            ops = ops[: max((i for i, op in enumerate(ops) if op.saved or op.extra), default=-1) + 1]
            stop = ops[-1] if ops and ops[-1].output not in ops[-1].saved else None
        last_use = {value: op for op in ops for value in op.inputs}
        made = {value for op in ops if op is not stop for value in _results(op)}
        kept = () if again else (tape.ops[-1].output, *tape.exports)
        for op in ops:
            if op is not stop:
                self._make(tape, op, again)
            if saving:
                self._save(op)
            for value in {*op.inputs, *_results(op)}:
                if value in made and value not in kept and value.buffer and last_use.get(value, op) is op:
                    self.memory.release(value.buffer)

    def _make(self, tape: Tape, op: Op, again: bool) -> None:
        memory = self.memory
        memory.briefly(op.forward, _working(op))
        if again and op in tape.cache:
            op.output.buffer = memory.hold(tape.cache[op])
            memory.unsave(tape.cache.pop(op))
        elif op.segment is not None:
            self.forward(op.segment, saving=False)
        elif op.view:
            held = op.inputs[0].buffer
            op.output.buffer = memory.hold(held) if held else None
        else:
            op.output.buffer = memory.allocate(op.output.size, _working(op), op.part)
            if tape.keeps and op.product and not again:
                tape.cache[op] = memory.save(op.output.buffer)

    def _save(self, op: Op) -> None:
        memory = self.memory
        op.kept = [memory.save(value.buffer) for value in op.saved if value.buffer]
        if op.extra:
            extra = memory.allocate(op.extra, _working(op), op.part)
            op.kept.append(memory.save(extra))
            memory.release(extra)

    def backward(self, tape: Tape) -> None:
        for op in reversed(tape.ops):
            if op.output.gradient is None:
                continue
            if op.segment is not None:
                self._again(op)
            else:
                self._grade(op)
            for buffer in op.kept:
                self.memory.unsave(buffer)
            op.kept = []

    def _grade(self, op: Op) -> None:
        given = op.output.gradient
        made = []
        for value in op.inputs:
            if value.graded and value in op.passes:
                made.append((value, self.memory.hold(given)))
            elif value.graded and op.reuses:
                made.append((value, self.memory.hold(op.kept[-1])))
            elif value.graded:
                made.append((value, self.memory.allocate(value.size, "workspace" if value.weight else _working(op))))
        self.memory.briefly(op.backward, _working(op))
        self.memory.release(given)
        op.output.gradient = None
        for value, gradient in made:
            self._give(value, gradient)

    def _again(self, op: Op) -> None:
        self.forward(op.segment, saving=True, again=True)
        self.backward(op.segment)
        for buffer in op.segment.cache.values():
            self.memory.unsave(buffer)
        op.segment.cache.clear()

    def _give(self, value: Value, gradient: Buffer) -> None:
        """Adds to the gradient of a value. PyTorch makes a new tensor for a sum (seen in 2.10: aten.add, not add_)."""
        if value.gradient is None:
            value.gradient = gradient
        else:
            total = self.memory.allocate(value.size, gradient.part)
            self.memory.release(value.gradient)
            self.memory.release(gradient)
            value.gradient = total
        if value.weight:
            self.pending[value] -= 1
            if not self.pending[value]:
                self._accumulate(value)

    def _accumulate(self, value: Value) -> None:
        if self.accumulated:
            self.memory.release(value.gradient)
        else:
            self.memory.relabel(value.gradient, "gradients")
        value.gradient = None

    def _count(self, tape: Tape) -> None:
        """Counts how many gradients each parameter will be given."""
        for op in tape.ops:
            if op.segment is not None:
                self._count(op.segment)
                continue
            for value in op.inputs if op.output.graded else ():
                if value.weight and value.graded:
                    self.pending[value] = self.pending.get(value, 0) + 1


def _results(op: Op) -> list[Value]:
    return [op.output, *(op.segment.exports if op.segment else ())]


def _working(op: Op) -> str:
    return "logits" if op.part == "logits" else "workspace"
