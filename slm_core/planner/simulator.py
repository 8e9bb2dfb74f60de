"""Runs a graph of sizes as PyTorch's autograd would, and counts which buffers are alive at which moment.

Forward, an operation allocates its output. A value is freed when no later operation reads it and no operation has saved
it for its backward pass. Backward, from the last operation to the first, an operation allocates the gradients of its
inputs, then frees what it saved and the gradient of its output. A checkpointed segment saves its inputs alone. It runs
again, forward and backward, when the gradient of its output is there.
"""

from slm_core.planner.allocator import Allocator, Buffer
from slm_core.planner.graph import Graph, Operation, Value


class Simulator:
    """Runs a graph of one micro-batch.

    Args:
      allocator: counts the memory.
      accumulated: whether parameters have gradients already, which new ones are added to.
    """

    def __init__(self, allocator: Allocator, accumulated: bool):
        self.allocator, self.accumulated = allocator, accumulated
        self.pending: dict[Value, int] = {}  # {parameter: gradients that it will still be given}

    def run(self, graph: Graph) -> None:
        """Runs the forward and the backward pass. The output of the last operation is the loss."""
        self._count_gradients(graph)
        self._forward(graph, saving=True)
        loss = graph.ops[-1].output
        loss.gradient = self.allocator.allocate(loss.size, "workspace")
        self._release_value(loss)
        self._backward(graph)

    def _forward(self, graph: Graph, saving: bool, again: bool = False) -> None:
        """`again`: for the backward pass of a segment. It then stops at the last value that is saved."""
        ops, stop = graph.ops, None
        if again:
            ops = ops[: max((i for i, op in enumerate(ops) if op.saved or op.extra), default=-1) + 1]
            stop = ops[-1] if ops and ops[-1].output not in ops[-1].saved else None
        last_use = {value: op for op in ops for value in op.inputs}
        made = {value for op in ops if op is not stop for value in op.results}
        results = () if again else (graph.ops[-1].output, *graph.exports)
        for op in ops:
            if op is not stop:
                self._compute(graph, op, again)
            if saving:
                self._save(op)
            for value in {*op.inputs, *op.results}:
                if value in made and value not in results and last_use.get(value, op) is op:
                    self._release_value(value)

    def _compute(self, graph: Graph, op: Operation, again: bool) -> None:
        allocator = self.allocator
        allocator.allocate_briefly(op.forward, op.working_part)
        if again and op in graph.cache:
            op.output.buffer = allocator.retain(graph.cache[op])
            allocator.unsave(graph.cache.pop(op))
        elif op.segment is not None:
            self._forward(op.segment, saving=False)
        elif op.view:
            source = op.inputs[0].buffer
            op.output.buffer = allocator.retain(source) if source else None
        else:
            op.output.buffer = allocator.allocate(op.output.size, op.working_part, op.part)
            if graph.keeps and op.product and not again:
                graph.cache[op] = allocator.save(op.output.buffer)

    def _save(self, op: Operation) -> None:
        allocator = self.allocator
        op.kept = [allocator.save(value.buffer) for value in op.saved if value.buffer]
        if op.extra:
            extra = allocator.allocate(op.extra, op.working_part, op.part)
            op.kept.append(allocator.save(extra))
            allocator.release(extra)

    def _backward(self, graph: Graph) -> None:
        for op in reversed(graph.ops):
            gradient = op.output.gradient
            if gradient is None:
                continue
            if op.segment is not None:
                self._run_again(op.segment)
            else:
                self._grade(op, gradient)
            for buffer in op.kept:
                self.allocator.unsave(buffer)
            op.kept = []

    def _grade(self, op: Operation, gradient: Buffer) -> None:
        """Makes the gradients of an operation's inputs from that of its output."""
        graded = [(value, self._gradient(op, value, gradient)) for value in op.inputs if value.graded]
        self.allocator.allocate_briefly(op.backward, op.working_part)
        self.allocator.release(gradient)
        op.output.gradient = None
        for value, its_gradient in graded:
            self._add_gradient(value, its_gradient)

    def _gradient(self, op: Operation, value: Value, gradient: Buffer) -> Buffer:
        """Returns the buffer of an input's gradient: one that is there already, or a new one."""
        if value in op.passes:
            return self.allocator.retain(gradient)
        if op.reuses:
            return self.allocator.retain(op.kept[-1])
        return self.allocator.allocate(value.size, "workspace" if value.weight else op.working_part)

    def _run_again(self, segment: Graph) -> None:
        self._forward(segment, saving=True, again=True)
        self._backward(segment)
        for buffer in segment.cache.values():
            self.allocator.unsave(buffer)
        segment.cache.clear()

    def _add_gradient(self, value: Value, gradient: Buffer) -> None:
        """Adds to the gradient of a value. PyTorch makes a new tensor for a sum (seen in 2.10: aten.add, not add_)."""
        if value.gradient is None:
            value.gradient = gradient
        else:
            total = self.allocator.allocate(value.size, gradient.part)
            self.allocator.release(value.gradient)
            self.allocator.release(gradient)
            value.gradient = total
        if value.weight:
            self.pending[value] -= 1
            if not self.pending[value]:
                self._finish_gradient(value, value.gradient)

    def _finish_gradient(self, value: Value, gradient: Buffer) -> None:
        """Adds a parameter's gradient of this micro-batch to that of the earlier ones, or keeps it as the first."""
        if self.accumulated:
            self.allocator.release(gradient)
        else:
            self.allocator.relabel(gradient, "gradients")
        value.gradient = None

    def _release_value(self, value: Value) -> None:
        if value.buffer:
            self.allocator.release(value.buffer)

    def _count_gradients(self, graph: Graph) -> None:
        """Counts how many gradients each parameter will be given."""
        for op in graph.ops:
            if op.segment is not None:
                self._count_gradients(op.segment)
                continue
            for value in op.inputs if op.output.graded else ():
                if value.weight and value.graded:
                    self.pending[value] = self.pending.get(value, 0) + 1
