"""torchvision, also where its build is not for the PyTorch at hand (as a CPU PyTorch beside a torchvision from PyPI)."""

from __future__ import annotations

import importlib.util
from typing import Any

_declared: list[Any] = []


def torchvision() -> Any:
    """torchvision, or None when it is not installed.

    A build for another PyTorch cannot load its native operators. Only detection needs those, but importing torchvision
    refers to two of them: they are declared, without an implementation.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        import torchvision
    except (ImportError, RuntimeError):
        import torch

        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)  # the declarations live as long as this does
        import torchvision
    return torchvision
