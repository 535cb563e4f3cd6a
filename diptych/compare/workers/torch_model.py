"""How a PyTorch model is named and built: `package.module:factory`, `file.py:factory`, or an exported `.pt2` file."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from typing import Any

__all__ = ["build", "flatten", "is_convolutional", "tensors"]


def _resolve(name: str) -> Any:
    where, _, attribute = name.rpartition(":")
    if not where:
        raise ValueError(f"{name!r}: name a model as package.module:factory or file.py:factory")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location("diptych_user_model", where)
        if spec is None or spec.loader is None or not os.path.exists(where):
            raise FileNotFoundError(f"{where}: no such Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _no_initialisation() -> Any:
    """Leaves parameters as allocated: drawing random weights that are overwritten would count as loading time."""
    from torch.overrides import TorchFunctionMode

    class Skip(TorchFunctionMode):  # type: ignore[misc]  # PyTorch is optional, so mypy does not follow it
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(function, "__module__", None) == "torch.nn.init":
                return kwargs.get("tensor", args[0] if args else None)
            return function(*args, **kwargs)

    return Skip()


def build(spec: dict[str, Any]) -> tuple[Any, tuple[Any, ...] | None]:
    """The module in evaluation mode and, when its factory gives them, its example inputs.

    `spec`: `torch` is the name, `arguments` the keyword arguments of the factory, `state` a file of weights to load
    (so that every engine has the same ones even if the factory is not seeded).
    """
    import torch

    name = spec["torch"]
    if name.endswith(".pt2"):
        program = torch.export.load(name)
        args, _ = program.example_inputs or (None, None)
        return program.module(), args
    torch.manual_seed(0)
    made = _resolve(name)
    if not isinstance(made, torch.nn.Module) or isinstance(made, type):
        with _no_initialisation() if spec.get("state") else contextlib.nullcontext():
            made = made(**spec.get("arguments", {}))
    module, inputs = made if isinstance(made, tuple) else (made, None)
    if spec.get("state"):
        module.load_state_dict(torch.load(spec["state"], mmap=True, weights_only=True))
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if inputs is not None and not isinstance(inputs, (tuple, list)):
        inputs = (inputs,)
    return module, tuple(inputs) if inputs is not None else None


def tensors(arrays: dict[str, Any]) -> tuple[Any, ...]:
    """The input arrays as tensors, in order."""
    import torch

    return tuple(torch.from_numpy(a) for a in arrays.values())


def flatten(answer: Any) -> list[Any]:
    """The tensors of a module's answer, in order, whatever it is packed in."""
    import torch

    return [t for t in torch.utils._pytree.tree_leaves(answer) if isinstance(t, torch.Tensor)]


def is_convolutional(module: Any) -> bool:
    """Whether channels-last is worth trying: the module has a 2-D convolution."""
    import torch

    return any(isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) for m in module.modules()) or (
        isinstance(module, torch.fx.GraphModule)
        and any("conv2d" in str(n.target) or "convolution" in str(n.target) for n in module.graph.nodes)
    )
