"""Defines a graph of operations that have sizes but no numbers, in the order in which PyTorch runs them.

`slm_core.planner.simulator` runs it. `torch_layers`, `torch_mlp` and `torch_step` write the PyTorch twin down as one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from slm_core.planner.allocator import Buffer


@dataclass(eq=False)
class Value:
    """The result of an operation, or a parameter.

    Args:
      size: bytes.
      graded: whether it gets a gradient.
      weight: whether it is a parameter, or a table that is always there. It then has no buffer.
      buffer, gradient: its memory while the simulator runs.
    """

    size: int
    graded: bool = True
    weight: bool = False
    buffer: Buffer | None = None
    gradient: Buffer | None = None


@dataclass(eq=False)
class Operation:
    """One operation.

    Args:
      inputs: the values that it reads. Each graded one gets a gradient of its own size.
      output: the value that it makes.
      saved: the values that its backward pass needs, inputs or its output.
      extra: bytes that it saves beside them.
      passes: the inputs whose gradient is the output's gradient itself, not a new tensor.
      forward, backward: bytes that it needs only while it works.
      product: whether it is a product with a weight.
      reuses: whether the gradient takes the place of the extra bytes.
      view: whether its output is a part of its input, without memory of its own.
      part: "activations" or "logits", as in `slm_core.planner.prediction.PARTS`.
      segment: the operations of a checkpointed segment, for which this operation stands.
      kept: the buffers that it has saved, while the simulator runs.
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
    segment: "Graph | None" = None
    kept: list[Buffer] = field(default_factory=list)

    @property
    def results(self) -> list[Value]:
        """Its output, and the values that its segment makes for others."""
        return [self.output, *(self.segment.exports if self.segment else ())]

    @property
    def working_part(self) -> str:
        """The part of a prediction that counts what it needs while it works."""
        return "logits" if self.part == "logits" else "workspace"


class Graph:
    """A list of operations, in the order in which they run.

    Args:
      part: the part of a prediction that its operations belong to.
      keeps: of a checkpointed segment, whether the results of products with weights are kept.
    """

    def __init__(self, part: str = "activations", keeps: bool = False):
        self.ops: list[Operation] = []
        self.part, self.keeps = part, keeps
        self.exports: list[Value] = []  # of a checkpointed segment, what it makes for others beside its last output
        self.cache: dict[Operation, Buffer] = {}  # of a checkpointed segment, the kept results

    def op(
        self,
        inputs: Iterable[Value],
        size: int,
        saved: Iterable[Value] = (),
        saves_output: bool = False,
        passes: tuple[Value, ...] = (),
        extra: int = 0,
        forward: int = 0,
        backward: int = 0,
        product: bool = False,
        reuses: bool = False,
        view: bool = False,
    ) -> Value:
        """Adds an operation and returns its output of `size` bytes. An output without a gradient saves nothing."""
        inputs = tuple(inputs)
        output = Value(size, graded=any(value.graded for value in inputs))
        needed = (*saved, output) if saves_output else tuple(saved)
        kept = tuple(value for value in needed if not value.weight) if output.graded else ()
        extra = extra if output.graded else 0
        self.ops.append(
            Operation(inputs, output, kept, extra, passes, forward, backward, product, reuses, view, self.part)
        )
        return output

    def view(self, x: Value, size: int) -> Value:
        """Adds a part of x. Its gradient is as large as x."""
        return self.op([x], size, view=True)

    def checkpoint(self, inputs: Iterable[Value], body: Callable[["Graph"], Value], keeps: bool = False) -> Value:
        """Adds the operations that `body` writes as a segment, which keeps only its inputs for the backward pass."""
        segment = Graph(self.part, keeps)
        inputs, output = tuple(inputs), body(segment)
        self.ops.append(Operation((*inputs, *segment.weights()), output, inputs, part=self.part, segment=segment))
        return output

    def weights(self) -> list[Value]:
        """Returns the parameters that its operations read, each once."""
        return list(dict.fromkeys(value for op in self.ops for value in op.inputs if value.weight))
