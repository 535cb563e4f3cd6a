"""What the commands share: how a model and its inputs are named, and how results are printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.compare.report import plain
from diptych.compare.subject import InputSpec, existing, parse_input, random_inputs
from diptych.errors import DiptychError, FormatError, InputError
from diptych.ir import Array, TensorType, dtype_of

__all__ = [
    "Named",
    "add_json",
    "add_model",
    "arrays_for",
    "emit",
    "load_arrays",
    "named",
    "open_source",
    "positive",
    "say",
    "types_for",
]

MODELS = """a model is one of
  X-symbol.json            an MXNet checkpoint (parameters beside it, or --params)
  model.pt2                a PyTorch program saved with torch.export.save
  package.module:factory   a PyTorch module, or a function that returns one (or the module and its example inputs)
  file.py:factory          the same, from a file"""


@dataclass(frozen=True, slots=True)
class Named:
    """The model that the arguments name: an MXNet checkpoint, a PyTorch model, or a file that diptych saved."""

    symbol: str = ""
    params: str = ""
    torch: str = ""
    saved: str = ""

    @property
    def title(self) -> str:
        path = self.symbol or self.saved or self.torch
        return Path(path).name.removesuffix("-symbol.json") if self.symbol else Path(path).name


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """An argument that is a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The arguments that name a model and its inputs."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="the model (see below)")
    parser.add_argument("--symbol", metavar="FILE", help="MXNet symbol file")
    parser.add_argument("--params", metavar="FILE", help="MXNet parameter file")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=SHAPE[:DTYPE]",
        help="an input's type, as in data=1x3x224x224 or ids=1x128:i64<30522; repeat for more",
    )
    parser.epilog = MODELS
    parser.set_defaults(model_required=required)


def tune_seconds(text: str) -> float:
    """An argument that is a number of seconds, zero or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def add_tune(parser: argparse.ArgumentParser) -> None:
    """`--tune [SECONDS]`."""
    parser.add_argument(
        "--tune", nargs="?", const=True, default=False, type=tune_seconds, metavar="SECONDS",
        help="measure the best few schedules of each layer first, and keep what is found (60 s without SECONDS)",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json [FILE]`."""
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON (to standard output without FILE)"
    )


def _params_beside(symbol: Path) -> str:
    stem = symbol.name.removesuffix(".json").removesuffix("-symbol")
    found = sorted(symbol.parent.glob(f"{stem}-[0-9]*.params"))
    if len(found) == 1:
        return str(found[0])
    what = "none" if not found else ", ".join(f.name for f in found)
    raise InputError(f"{symbol.name}: which parameters? Beside it there are: {what}. Name them with --params")


def named(args: argparse.Namespace) -> Named | None:
    """The model the arguments name; None when they name none and none is required."""
    model, symbol, params = args.model, args.symbol, args.params
    if model and symbol:
        raise InputError("name the model once: either MODEL or --symbol")
    if model and model.endswith(".json"):
        model, symbol = None, model
    if symbol:
        symbol = existing(symbol)
        return Named(symbol=symbol, params=existing(params) if params else _params_beside(Path(symbol)))
    if params:
        raise InputError("--params goes with an MXNet symbol file; name it with --symbol")
    if not model:
        if args.model_required:
            raise InputError("name a model: X-symbol.json, model.pt2, package.module:factory or file.py:factory")
        return None
    if ":" in model and not Path(model).exists():
        where, _, attribute = model.rpartition(":")
        return Named(torch=f"{existing(where)}:{attribute}" if where.endswith(".py") else model)
    return Named(torch=existing(model)) if model.endswith(".pt2") else Named(saved=existing(model))


def build_torch(name: str) -> tuple[Any, tuple[Any, ...] | None]:
    """The PyTorch module of that name and its example inputs, if it gives any."""
    from diptych.compare.workers.torch_model import build

    sys.path.insert(0, "")  # as `python -m` does: the user's own modules are in the working directory
    try:
        return build({"torch": name})
    except (ImportError, AttributeError, ValueError, OSError, TypeError) as e:
        raise InputError(f"{name}: cannot build the PyTorch model: {type(e).__name__}: {e}") from e


def open_source(model: Named, specs: Sequence[InputSpec]) -> Any:
    """The model read by its frontend, as a Source."""
    if model.symbol:
        from diptych.frontends.mxnet import load_source

        return load_source(model.symbol, model.params)
    if not model.torch:
        raise InputError(f"{model.title}: this command takes a symbol file, a .pt2 file or a PyTorch factory")
    from diptych.frontends.torch import source

    if model.torch.endswith(".pt2"):
        return source(model.torch, None)  # exported for its own shapes; other ones are refused with the types
    module, examples = build_torch(model.torch)
    if specs:
        import torch

        examples = tuple(torch.from_numpy(a) for a in random_inputs(specs).values())
    if examples is None:
        raise InputError(f"{model.title}: it gives no example inputs; state them with --input NAME=SHAPE[:DTYPE]")
    return source(module, examples)


def types_for(source: Any, given: Mapping[str, TensorType], symbolic: bool) -> dict[str, TensorType]:
    """The type of every input: as given, else as the model states it."""
    names = list(source.input_names)
    if not symbolic and len(given) == len(names):
        return dict(zip(names, given.values(), strict=True))  # PyTorch inputs go by position
    stated = source.default_types() or {}
    unknown = [n for n in given if n not in names]
    if unknown:
        raise InputError(f"{source.name} has no input {', '.join(map(repr, unknown))}; its inputs: {', '.join(names)}")
    types = {n: given[n] if n in given else stated.get(n) for n in names}
    missing = [n for n, t in types.items() if t is None]
    if missing:
        raise InputError(
            f"{source.name} does not state the shape of {', '.join(map(repr, missing))}; "
            f"add {' '.join(f'--input {n}=SHAPE' for n in missing)}"
        )
    return {n: t for n, t in types.items() if t is not None}


def load_arrays(items: Sequence[str]) -> tuple[dict[str, Array], list[Array]]:
    """Arrays by name (from NAME=FILE.npy and .npz files) and arrays in order (from FILE.npy)."""
    by_name: dict[str, Array] = {}
    in_order: list[Array] = []
    for item in items:
        name, equals, path = item.partition("=")
        path = path if equals else item
        existing(path)
        try:
            loaded = np.load(path, allow_pickle=False)
        except (ValueError, OSError) as e:
            raise FormatError(f"{path}: not an array file ({e}); give .npy or .npz without pickles") from e
        if isinstance(loaded, np.ndarray):
            if equals:
                by_name[name] = loaded
            else:
                in_order.append(loaded)
        elif equals:
            raise InputError(f"{item}: an .npz file names its own arrays; write the file alone")
        else:
            by_name.update({k: loaded[k] for k in loaded.files})
    return by_name, in_order


def arrays_for(names: Sequence[str], by_name: Mapping[str, Array], in_order: Sequence[Array]) -> dict[str, Array]:
    """One array for each input, by name first, the rest in order."""
    unknown = [n for n in by_name if n not in names]
    if unknown:
        raise InputError(f"the model has no input {', '.join(map(repr, unknown))}; its inputs: {', '.join(names)}")
    rest = [n for n in names if n not in by_name]
    if len(rest) != len(in_order):
        raise InputError(
            f"{len(in_order)} arrays in order for {len(rest)} inputs ({', '.join(rest) or 'all are named'})"
        )
    return {**by_name, **dict(zip(rest, in_order, strict=True))}


def specs_of(args: argparse.Namespace) -> list[InputSpec]:
    """The inputs stated with --input."""
    return [parse_input(text) for text in args.input]


def types_of(arrays: Mapping[str, Array]) -> dict[str, TensorType]:
    """The types of arrays."""
    return {k: TensorType(tuple(int(d) for d in a.shape), dtype_of(a)) for k, a in arrays.items()}


def emit(args: argparse.Namespace, data: Mapping[str, Any], text: str) -> None:
    """Print the text, or write the JSON that was asked for (both when the JSON goes to a file)."""
    if args.json != "-":
        print(text)
    if args.json:
        made = json.dumps(plain(data), indent=1)
        if args.json == "-":
            print(made)
        else:
            try:
                Path(args.json).write_text(made + "\n")
            except OSError as e:
                raise DiptychError(f"{args.json}: cannot be written: {e.strerror}") from e
