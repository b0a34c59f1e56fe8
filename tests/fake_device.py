"""A CUDA or MPS device for machines without one: its tensors compute on the CPU, and refuse what such a device refuses.

torch's own FakeTensorMode finds what is on the wrong device too, but its tensors hold no numbers, so that it stops at
the first check of values. These hold numbers, and an answer can be compared with the CPU's.
"""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map


class Elsewhere(Tensor):
    """A tensor of the fake device: in truth one of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class FakeDevice(TorchFunctionMode):
    """While it is entered, torch has the device ``kind:0``."""

    def __init__(self, kind: str):
        super().__init__()
        self.device = torch.device(kind, 0)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        here = is_elsewhere(args[0]) if args else False
        if function == Tensor.device.__get__:
            return self.device if here else function(*args)
        if function is torch._has_compatible_shallow_copy_type:  # a module's parameters become those of its new device
            return here == is_elsewhere(args[1])
        if function is Tensor.__deepcopy__ and here:
            return deep_copy(*args)
        if function is Tensor.__reduce_ex__ and here:  # how it is saved: as on a real device, without its Python class
            return function(plain(args[0]), *args[1:])
        if function in (Tensor.numpy, Tensor.__array__) and here:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy")
        if function in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self.moved(function, *args, **kwargs)
        goes_to = self.target(function, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = real(kwargs["device"])
        return self.labelled(function(*args, **kwargs), goes_to)

    def target(self, function, args: tuple, kwargs: dict) -> bool:
        """Whether the answer is on the fake device; an error where a real one would give one."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        any_elsewhere = any(map(is_elsewhere, tensors))
        on_cpu = [tensor for tensor in tensors if not is_elsewhere(tensor) and tensor.device.type == "cpu"]
        if function in (Tensor.copy_, Tensor.__setitem__, Tensor.__getitem__, Tensor.data.__set__):
            if function is Tensor.__getitem__ and any_elsewhere and not is_elsewhere(args[0]):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor")
            return is_elsewhere(args[0])
        if any_elsewhere and any(tensor.ndim for tensor in on_cpu):
            name = getattr(function, "__name__", function)
            raise RuntimeError(f"{name}: expected all tensors to be on one device, got {self.device} and cpu")
        device = kwargs.get("device")
        goes_to = any_elsewhere if device is None else torch.device(device).type == self.device.type
        generator = kwargs.get("generator")
        if generator is not None and goes_to:
            raise RuntimeError(f"expected a {self.device.type} generator, got {generator.device}")
        return goes_to

    def moved(self, function, tensor: Tensor, *args, **kwargs) -> Tensor:
        """``tensor.to(...)`` and its kin."""
        goes_to, args = is_elsewhere(tensor), list(args)
        if function is not Tensor.to:
            function, args = Tensor.to, ["cuda" if function is Tensor.cuda else "cpu"]
        for place in [*range(len(args)), *kwargs]:
            values = kwargs if isinstance(place, str) else args
            if isinstance(values[place], Tensor):
                goes_to = is_elsewhere(values[place])
                values[place] = plain(values[place])
            elif isinstance(values[place], str | torch.device):
                goes_to = torch.device(values[place]).type == self.device.type
                values[place] = real(values[place])
        answer = function(plain(tensor), *args, **kwargs)
        if goes_to != is_elsewhere(tensor):
            return self.labelled(answer.clone(), goes_to)
        return tensor if answer.data_ptr() == tensor.data_ptr() else self.labelled(answer, goes_to)

    def labelled(self, answer, goes_to: bool):
        """The answer, with its tensors on the device where they belong."""

        def label(leaf):
            if not isinstance(leaf, Tensor) or is_elsewhere(leaf) or not goes_to:
                return leaf
            if self.device.type == "mps" and leaf.dtype in (torch.float64, torch.complex128):
                raise TypeError(f"cannot have {leaf.dtype} on MPS")
            return leaf.as_subclass(Elsewhere)

        return tree_map(label, answer)


def is_elsewhere(value) -> bool:
    return isinstance(value, Elsewhere)


def plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor) if is_elsewhere(tensor) else tensor


def real(device):
    """The device that computes."""
    return device if torch.device(device).type == "meta" else "cpu"


def deep_copy(tensor: Tensor, memo: dict) -> Tensor:
    copied = plain(tensor).detach().clone().as_subclass(Elsewhere).requires_grad_(tensor.requires_grad)
    if hasattr(tensor, "_is_param"):
        copied._is_param = True
    return memo.setdefault(id(tensor), copied)
