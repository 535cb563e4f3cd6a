"""Where an fx node comes from: the user's layer and the user's line of source."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

__all__ = ["layer_of", "source_of", "user_frame"]

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


def layer_of(node: Any) -> str:
    """The path of the innermost module that made the node: "layer1.0.conv1", or "" at the top."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path = next(reversed(stack.values()))[0]
    return re.sub(r"^L\['self'\]\.?", "", str(path))


def source_of(node: Any) -> str:
    """The innermost line outside torch that made the node, as "file.py:12", or ""."""
    trace = node.meta.get("stack_trace")
    if not trace:
        return ""
    frames = [(m[1], int(m[2])) for m in _FRAME.finditer(trace)]
    return user_frame(frames)


def user_frame(frames: list[tuple[str, int]]) -> str:
    """The last frame that is not inside torch or this frontend (the last of all if every one is)."""
    inside = _internal_roots()
    own = [f for f in frames if not f[0].startswith(inside) and not f[0].startswith("<")]
    if not own:
        return ""
    return f"{own[-1][0]}:{own[-1][1]}"


@lru_cache(maxsize=1)
def _internal_roots() -> tuple[str, ...]:
    import os

    import torch

    return (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.abspath(__file__)) + os.sep)
