"""A GPU that is not there: tensors that say they are on one, compute on the CPU, and refuse what a GPU would refuse.

    with pretended_gpu() as gpu:
        session = Session(method, device="cuda")
        ...
    assert gpu.waits == ...
    assert gpu.launches < ...

So code takes the branches that it takes on a GPU, with values, gradients included. What is checked is where tensors
are, and what autocast makes of their precision; not what a GPU computes in another way: its kernels, their rounding,
and what is quick there. Nothing is asynchronous.

Refused, as by PyTorch's own CUDA tensors:
- operations on tensors of which some are on the CPU, but for single numbers in elementwise operations, indices, and
  what copies;
- NumPy's looks at a tensor;
- random numbers from a generator of the CPU;
- products of matrices of whole numbers.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda", 0)

# What asks a tensor only for its shape, or copies from one device to the other.
ANY_DEVICE = {"expand_as", "view_as", "reshape_as", "is_same_size", "type_as", "to", "copy_", "data", "new_tensor"}
ANY_DEVICE |= {"tensor", "as_tensor", "has_compatible_shallow_copy_type"}
TAKES_NUMBERS = {"where", "masked_fill", "index_put", "scalar_tensor"}  # of the CPU, besides elementwise operations
BY_NUMPY = {"numpy", "__array__", "__array_wrap__", "__dlpack__"}
PRODUCTS = {"mm", "bmm", "matmul", "linear", "einsum", "addmm", "baddbmm", "conv1d", "conv2d", "conv_transpose2d"}
# What a GPU's result must be waited for: values that Python needs, and shapes that depend on values.
WAITS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__contains__", "equal", "allclose"}
WAITS |= {"nonzero", "argwhere", "unique", "masked_select", "bincount", "unique_consecutive"}
# What autocast on "cuda" computes in the lower precision, in float32, and in the widest precision of the arguments.
LOWER = {"addbmm", "addmm", "addmv", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d"}
LOWER |= {"conv_transpose2d", "conv_transpose3d", "einsum", "linear", "matmul", "mm", "mv", "rmatmul"}
LOWER |= {"scaled_dot_product_attention"}
FULL = {"acos", "asin", "binary_cross_entropy_with_logits", "cdist", "cosh", "cosine_similarity", "cross_entropy"}
FULL |= {"cumprod", "cumsum", "dist", "exp", "expm1", "group_norm", "interpolate", "l1_loss", "layer_norm", "log"}
FULL |= {"log10", "log1p", "log2", "log_softmax", "logsumexp", "mse_loss", "nll_loss", "norm", "normalize", "pow"}
FULL |= {"prod", "reciprocal", "rpow", "rsqrt", "sinh", "smooth_l1_loss", "softmax", "softplus", "sum", "tan"}
FULL |= {"vector_norm"}
WIDEST = {"addcdiv", "addcmul", "atan2", "dot", "grid_sample", "index_put", "scatter_add"}


class Operations(TorchDispatchMode):
    """Counts operations, but for those that only look at a tensor in another way, or ask where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not operation.is_view and operation is not torch.ops.prim.device.default
        return operation(*args, **(kwargs or {}))


class OnGPU(Tensor):
    """A tensor of the CPU that passes for one of a GPU."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(function, args, kwargs or {}, PretendedGPU())


class PretendedGPU(TorchFunctionMode):
    """Makes tensors for the device "cuda", and counts what it costs a GPU before it computes anything.

    Attributes:
        waits: name of a function -> how often its result was waited for.
        launches: number of operations that ran there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._operations = Operations()

    @property
    def launches(self) -> int:
        return self._operations.number

    def clear(self) -> None:
        """Count anew."""
        self.waits.clear()
        self._operations.number = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(function, args, kwargs or {}, self)


@contextmanager
def pretended_gpu() -> Iterator[PretendedGPU]:
    """Let "cuda" be such a device, also in threads that start within."""
    gpu, run = PretendedGPU(), threading.Thread.run

    def with_gpu(self: threading.Thread) -> None:
        with gpu:
            run(self)

    with pytest.MonkeyPatch.context() as patched, gpu:
        patched.setattr(torch.cuda, "device", lambda device: nullcontext())
        patched.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        patched.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patched.setattr(threading.Thread, "run", with_gpu)
        patched.setattr(torch, "vmap", _in_turn)
        yield gpu


def is_on_gpu(value: Any) -> bool:
    """Whether a value is a tensor that passes for one of a GPU."""
    return isinstance(value, OnGPU)


def _called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], gpu: PretendedGPU) -> Any:
    """What a function of torch gives, or raises, where some tensors are on the GPU."""
    name = _name(function)
    if name == "__deepcopy__":
        return _deep_copy(*args)
    given = list(_tensors((args, kwargs)))
    on_gpu = any(map(is_on_gpu, given))
    if on_gpu and name in ("device", "is_cuda", "is_cpu"):
        return {"device": CUDA, "is_cuda": True, "is_cpu": False}[name]
    asked, args, kwargs = _device_asked(name, args, kwargs)
    to_gpu = on_gpu if asked is None else asked.type == "cuda"
    if on_gpu:
        _refuse(name, args, kwargs, given)
    if to_gpu and (generator := kwargs.get("generator")) is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{name}: expected a 'cuda' device type for generator but found 'cpu'")
    if on_gpu and (name in WAITS or not to_gpu or _by_mask(name, args)):
        gpu.waits[name] += 1
    with torch._C.DisableTorchFunctionSubclass():
        if on_gpu and torch.is_autocast_enabled("cuda"):
            args, kwargs = _autocast(name, args, kwargs)
        with gpu._operations if to_gpu else nullcontext():
            result = function(*args, **kwargs)
        if asked is not None and any(result is tensor and is_on_gpu(tensor) != to_gpu for tensor in given):
            result = result.clone()  # moved
    if name == "__set__ data" and is_on_gpu(args[0]) != is_on_gpu(args[1]):
        (_put_on_gpu if is_on_gpu(args[1]) else _take_from_gpu)(args[0])
    if name == "__iter__":
        result = list(result)
    for tensor in _tensors(result):
        if to_gpu and not any(tensor is one for one in given):
            _put_on_gpu(tensor)
    return iter(result) if name == "__iter__" else result


def _in_turn(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What `torch.vmap` computes, one row after another: its tensors would be of no class that is known here."""

    def mapped(*by_row: Any) -> Tensor:
        rows = range(len(by_row[0]))
        return torch.stack([function(*tree_map(lambda tensor, row=row: tensor[row], by_row)) for row in rows])

    return mapped


def _autocast(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as autocast on "cuda" casts them."""
    kinds = {tensor.dtype for tensor in _tensors((args, kwargs)) if tensor.dtype.is_floating_point} - {torch.float64}
    if name.endswith("_") or kwargs.get("mode") == "area" or not kinds:
        return args, kwargs
    lower = torch.get_autocast_dtype("cuda")
    if name in WIDEST and torch.float32 not in kinds and kinds != {lower}:
        raise RuntimeError(f"{name}: unexpected floating ScalarType in at::autocast::prioritize, {kinds}")
    if name in FULL or (name in WIDEST and torch.float32 in kinds):
        dtype = torch.float32
    elif name in LOWER:
        dtype = lower
    else:
        return args, kwargs

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.dtype in kinds else value

    cast_args, cast_kwargs = tree_map(cast, (args, kwargs))
    return cast_args, cast_kwargs


def _put_on_gpu(tensor: Tensor) -> None:
    """Let a tensor pass for one of the GPU from now on; no copy, and no view, which gradients would tell apart."""
    if isinstance(tensor, torch.nn.Parameter):
        tensor._is_param = True  # by which torch knows a parameter that is of another class
    tensor.__class__ = OnGPU


def _take_from_gpu(tensor: Tensor) -> None:
    tensor.__class__ = torch.nn.Parameter if isinstance(tensor, torch.nn.Parameter) else Tensor


def _deep_copy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if not is_on_gpu(tensor):
        return tensor.__deepcopy__(memo)
    if id(tensor) not in memo:
        copied = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        if isinstance(tensor, torch.nn.Parameter):
            copied._is_param = True
        memo[id(tensor)] = copied
    found: Tensor = memo[id(tensor)]
    return found


def _name(function: Any) -> str:
    """The plain name of a function, method, operator or property: "add" of `x += y`, "device" of `x.device`."""
    name = str(getattr(function, "__name__", function))
    if name == "__set__":
        return f"__set__ {function.__self__.__name__}"
    if name == "__get__":
        return str(function.__self__.__name__)
    if name in BY_NUMPY | WAITS | {"__deepcopy__", "__iter__", "__getitem__", "__setitem__"}:
        return name
    return name.strip("_") if name.startswith("_") else name


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _device_asked(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.device | None, tuple[Any, ...], dict[str, Any]]:
    """The device that is asked for, None: that of the other tensors; and the arguments with the CPU in its place."""
    asked: Any = kwargs.get("device")
    if asked is not None:
        kwargs = {**kwargs, "device": "cpu"}
    if name in ("cuda", "cpu"):
        asked = name
    elif name == "to" and len(args) > 1:
        if isinstance(args[1], Tensor):
            asked = CUDA if is_on_gpu(args[1]) else "cpu"
        elif isinstance(args[1], (str, torch.device, int)):
            asked, args = args[1], (args[0], "cpu", *args[2:])
    elif name == "type_as":
        asked = CUDA if is_on_gpu(args[1]) else "cpu"
    elif name == "tensor" and not isinstance(args[0], Tensor) and asked is None:
        asked = "cpu"
    return None if asked is None else torch.device(asked), args, kwargs


def _refuse(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> None:
    """Raise what CUDA raises."""
    if name in BY_NUMPY:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
    if name in PRODUCTS and not any(tensor.dtype.is_floating_point for tensor in given):
        raise RuntimeError(f'"{name}" not implemented for CUDA tensors of {given[0].dtype}')
    if name in ("__getitem__", "__setitem__"):
        refused = [tensor for tensor in _indexed(name, args) if not is_on_gpu(tensor)]
    elif name in ANY_DEVICE or name.startswith("__set__ data"):
        return
    else:
        refused = [tensor for tensor in given if not is_on_gpu(tensor)]
    if name.rstrip("_") in TAKES_NUMBERS or name == "__setitem__" or _is_elementwise(name):
        refused = [tensor for tensor in refused if tensor.ndim]
    if refused:
        kinds = [f"{'cuda' if is_on_gpu(t) else 'cpu'} {tuple(t.shape)}" for t in given]
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {', '.join(kinds)}")


def _indexed(name: str, args: tuple[Any, ...]) -> list[Tensor]:
    """The tensors of `x[index]`, or `x[index] = value`, that must be on the same device, where one is on the GPU."""
    values = [] if name == "__getitem__" else list(_tensors(args[2]))
    if name == "__setitem__" and not any(True for _ in _tensors(args[1])):
        values = []  # a copy into a view
    if is_on_gpu(args[0]):
        return [args[0], *values]  # indices may be anywhere
    return [args[0], *values] if any(map(is_on_gpu, _tensors(args[1]))) else [*values]


def _by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether elements are picked by a mask on the GPU, so that their number is unknown to Python."""
    if name not in ("__getitem__", "__setitem__"):
        return False
    masked = any(is_on_gpu(tensor) and tensor.dtype == torch.bool for tensor in _tensors(args[1]))
    return masked and (name == "__getitem__" or any(tensor.ndim for tensor in _tensors(args[2])))


def _is_elementwise(name: str) -> bool:
    """Whether an operation is elementwise: these take single numbers from the CPU."""
    plain = name.strip("_")
    for candidate in (plain, plain[1:]):  # "radd" of `1 + x`
        if packet := getattr(torch.ops.aten, candidate, None):
            return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
    return False
