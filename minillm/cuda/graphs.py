"""A step recorded once, as a CUDA graph, and launched as a whole: Python's time for it is gone.

    def step(x, y):                                     # forward, backward: what the GPU does
        loss = model.loss(x, y)
        loss.backward()
        return loss

    run = minillm.cuda.graph(step, x, y, parameters=model.parameters())
    for x, y in batches:
        loss = run(x, y)                                # copies x and y to their places and launches
        optimizer.step(clip_norm=1.0)

The GPU then repeats the very same launches on the same addresses. So what Python decides while the step is recorded is
decided for all of its runs, and these things are refused there, each with a sentence:

- random numbers (dropout): their seed and position would be those of the recording, the same mask in each step
- an optimizer's step: learning rate and step count are numbers of that launch. Take it after the graph; for all
  parameters it is one launch
- waiting for the GPU (.item(), `if` on a tensor, masks as indices): nothing runs yet that could be waited for; and
  copies from main memory (a mask made by NumPy, addresses of more than 8 arrays to join), which would be gone later

Arrays made by the step live in a memory pool of its own as long as the graph does, and their values stay until the next
run. Source: CUDA C++ programming guide, "CUDA Graphs" and "Creating a Graph Using Stream Capture".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from .. import capture
from ..device import array_module, to_device, to_numpy
from ..errors import GraphError
from ..ops.arrays import array_of
from ..tensor import Tensor
from ..writes import mark_written
from .found import find_cupy


def graph(step: Callable[..., Any], *inputs: Any, parameters: Iterable[Tensor] = (), warmup: int = 2) -> Graph:
    """The step, recorded for inputs of these shapes. `run(*inputs)` runs it and returns what the step returned.

    inputs      tensors or arrays on the GPU, as the step will be given them: their shapes and dtypes are recorded
    parameters  whose gradients the step fills: after each run they have their .grad. What they hold now is dropped
    warmup      runs before the recording, which compile kernels and fill the memory pool: real runs of the step
    GraphError, a sentence, for what cannot be recorded.
    """
    return Graph(step, inputs, list(parameters), warmup)


class Graph:
    """What `graph` returns. inputs: the tensors that are read; outputs: what the step returned, written by each run."""

    def __init__(self, step: Callable[..., Any], inputs: Iterable[Any], parameters: list[Tensor], warmup: int):
        cupy = find_cupy()
        self.inputs = tuple([Tensor(array_of(x).copy()) for x in inputs])
        self.parameters = parameters
        self._pool = cupy.cuda.MemoryPool()
        before, stream = cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)
        stream.wait_event(before.record())
        with stream, cupy.cuda.using_allocator(self._pool.malloc), capture.into_a_graph():
            for _ in range(warmup):
                self._forget_gradients()
                step(*self.inputs)
            self._forget_gradients()
            stream.begin_capture()
            try:
                with capture.begin():
                    outputs = step(*self.inputs)
            except BaseException as error:
                with suppress(Exception):  # the recording is broken; what broke it is said
                    stream.end_capture()
                self._forget_gradients()
                raise _explained(error) from error
            try:
                self._graph = stream.end_capture()
            except Exception as error:
                raise _explained(error) from error
        before.wait_event(stream.record())
        self.outputs = _detached(outputs)
        self._gradients = [(p, p.grad) for p in parameters if p.grad is not None]
        homes = [p.node.home for p in parameters if p.node is not None and p.node.home is not None]
        flats = {id(f): f for home in homes if (f := home.flat) is not None}
        self._rows = [(f, f.grad, list(f.grads)) for f in flats.values()]  # see optim/flat.py

    def __call__(self, *inputs: Any) -> Any:
        """Run the step on other inputs, of the recorded shapes; on CuPy's current stream, without waiting."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"graph: recorded with {len(self.inputs)} inputs, got {len(inputs)}")
        for i, (held, given) in enumerate(zip(self.inputs, inputs)):
            x = array_of(given)
            if x.shape != held.shape or x.dtype != held.dtype:
                raise ValueError(
                    f"graph: input {i} is {x.dtype} {x.shape}, and the step was recorded for {held.dtype} "
                    f"{held.shape}: record one for each shape"
                )
            held.data[...] = x if array_module(x) is array_module(held.data) else to_device(to_numpy(x), held.device)
            mark_written(held.data)
        self._graph.launch()
        for flat, grad, grads in self._rows:
            flat.grad, flat.grads = grad, list(grads)
        for p, g in self._gradients:
            p.grad = g
            mark_written(g.data)
        return self.outputs

    def _forget_gradients(self) -> None:
        """So that the first backward pass of a run writes gradients instead of adding to what is there."""
        for p in self.parameters:
            p.grad = None
            if p.node is not None and p.node.home is not None and (flat := p.node.home.flat) is not None:
                flat.forget_grad()


def _detached(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.detach()
    if isinstance(outputs, (list, tuple)):
        return type(outputs)([_detached(x) for x in outputs])
    return outputs


def _explained(error: BaseException) -> BaseException:
    if "StreamCapture" not in str(error):
        return error
    return GraphError(
        "graph: the step waits for the GPU (.item(), float(x), `if` on a tensor, a mask as an index, printing), which "
        "cannot be recorded; minillm.cuda.count_syncs() names the places. "
        f"CUDA says: {(str(error).splitlines() or ['?'])[-1]}"
    )
