"""What the engine says when a call cannot be right: the op, what it was given, what to do. One place, one style."""

from __future__ import annotations

from typing import Any

from kernels.arrays import is_array


class DeviceError(TypeError):
    """Arrays of two devices met in one op."""


class GraphError(RuntimeError):
    """The recorded graph cannot give the gradient that was asked for."""


class OutOfMemory(MemoryError):
    """An array did not fit into the GPU's memory."""


MEMORY_ADVICE = (
    "lower the batch size or the context, compute blocks again for their gradient (checkpoint_blocks), or train in "
    "16 bits (precision)"
)


def gpu_is_full(error: Exception) -> OutOfMemory | None:
    """CuPy's OutOfMemoryError in a sentence; None for any other error."""
    if type(error).__name__ != "OutOfMemoryError" or type(error).__module__.split(".")[0] != "cupy":
        return None
    from .cuda.pool import out_of_memory

    return OutOfMemory(out_of_memory(error))


def describe(x: Any) -> str:
    """`float32 (3, 4) on cpu` for arrays and tensors, the value itself for settings.

    >>> import numpy as np
    >>> describe(np.zeros((3, 4), np.float32))
    'float32 (3, 4) on cpu'
    """
    from .device import device_of

    data: Any = getattr(x, "data", None) if not is_array(x) else x
    if is_array(data):
        return f"{data.dtype} {tuple(data.shape)} on {device_of(data)}"
    text = repr(x)
    return text if len(text) <= 60 else text[:57] + "..."


def _listing(call: Any, args: tuple) -> str:
    names = [f"{call.variadic}[{i}]" for i in range(len(args))] if call.variadic else call.names
    return "".join(f"\n  {n}: {describe(a)}" for n, a in zip(names, args))


def explain(call: Any, args: tuple, settings: dict, error: Exception) -> Exception:
    """The error that a forward raised, with the op's name, its arguments and a hint; of the same class where users
    catch it."""
    from .device import device_of

    arrays = [a.data if hasattr(a, "node") else a for a in args]
    devices = sorted({device_of(a) for a in arrays if is_array(a)})
    listing = _listing(call, args)
    if len(devices) > 1:
        return DeviceError(
            f"{call.__name__}: its arguments are on different devices ({', '.join(devices)}):{listing}\n"
            f"  move one of them first: x.to({devices[0]!r}) or x.to({devices[1]!r})"
        )
    if (full := gpu_is_full(error)) is not None:
        return OutOfMemory(f"{call.__name__.lstrip('_')}: {full}{listing}")
    hint = ""
    if call.broadcasting and "broadcast" in str(error):
        hint = (
            "\n  broadcasting aligns shapes from the right, sizes must be equal or 1: reshape or unsqueeze one of them"
        )
    message = f"{call.__name__.lstrip('_')}: {error}{listing}{hint}"
    if isinstance(error, (DeviceError, GraphError, OutOfMemory)):
        return type(error)(message)
    kind = next(
        (k for k in (IndexError, ValueError, TypeError, NotImplementedError, MemoryError) if isinstance(error, k)), None
    )
    return (kind or RuntimeError)(message)


def nearest(word: str, words: Any) -> str:
    """` Did you mean 'dim'?`, or nothing."""
    import difflib

    close = difflib.get_close_matches(word, list(words), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def bad_argument(op: str, key: str, names: list[str], twice: bool) -> TypeError:
    if twice:
        return TypeError(f"{op}() got {key!r} twice")
    return TypeError(f"{op}() has no argument {key!r}; it takes ({', '.join(names)}).{nearest(key, names)}")


def no_rule(op: Any) -> GraphError:
    return GraphError(
        f"{op.__name__} has no gradient rule: register one with @{op.__name__}.vjp, call it under no_grad(), "
        "or declare it @op(differentiable=False)"
    )


def freed(node: Any) -> GraphError:
    return GraphError(
        f"{node.op.__name__} (output {node.dtype} {node.shape}{_made_at(node)}): an earlier backward() through it "
        "freed the "
        "arrays it had saved. Pass retain_graph=True to the first backward, or compute the forward again"
    )


def written(node: Any, name: str, array: Any) -> GraphError:
    return GraphError(
        f"{node.op.__name__} saved its {name!r} ({describe(array)}{_made_at(node)}) for the gradient, and it was "
        "written in place "
        "since (by an optimizer's step, x += 1 or x[...] = y): the gradient would be wrong. Compute the forward again "
        "after the write, write to a copy (x.clone()), use an out-of-place op (x = x + 1), or do the write "
        "after backward()"
    )


def wrong_gradient_shape(node: Any, parent: Any, gradient: Any) -> GraphError:
    return GraphError(
        f"the gradient rule of {node.op.__name__} returned shape {tuple(gradient.shape)} for an input of shape "
        f"{parent.shape}. "
        "A rule returns one gradient per input, in order, each of its input's shape; declare @op(broadcasting=True) if "
        "the "
        "inputs broadcast"
    )


def too_few_gradients(node: Any, grads: Any) -> GraphError:
    return GraphError(
        f"the gradient rule of {node.op.__name__} returned {len(grads)} gradient(s), and one of its "
        f"{len(node.parents)} arguments beyond those needs one. A rule returns one gradient per input, in order, None "
        "where there is none"
    )


def unknown_needs(op: Any, known: Any) -> GraphError:
    wrong = [n for n in op.needs if n not in known]
    return GraphError(
        f"the gradient rule of {op.__name__} asks for {', '.join(map(repr, wrong))}, which is neither an argument of "
        f"the forward nor an extra that it returned; it can have {', '.join(known)}"
    )


def check_hook(node: Any, new: Any) -> None:
    """What a hook returned in place of a gradient must be a Tensor of the gradient's shape."""
    shape = getattr(new, "shape", None) if hasattr(new, "node") else None
    if shape != node.shape:
        raise GraphError(
            f"a hook on a tensor of shape {node.shape} returned {describe(new)} in place of its gradient: return a "
            "Tensor "
            "of the same shape, or None to leave the gradient as it is"
        )


def no_composite(op: Any, name: str) -> GraphError:
    return GraphError(
        f"{op.__name__} has no second derivative here: its rule uses {name!r}, which the forward computed and the "
        "graph does not "
        "know how to differentiate. Give the op a composite=, the same function written with other ops"
    )


def _made_at(node: Any) -> str:
    return f", called at {node.where}" if node.where else ""
