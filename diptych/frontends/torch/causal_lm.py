"""Causal language models of transformers as Graphs over a cache of keys and values that the caller keeps.

The model is exported with an attention function of our own, which writes the keys and values of the given tokens into
the cache and attends to its valid part. So any model whose layers call transformers' attention interface will do.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.errors import GraphError, InputError, UnsupportedError
from diptych.frontends.torch.lower import Context, converts
from diptych.ir import TensorType, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diptych.ir import Graph

__all__ = ["CausalLM", "positions"]

_NAME = "diptych_cache"
_trace = threading.local()  # .layers: what the attention calls of the export on this thread write to and record
# Keywords of attention calls that say nothing beyond what is asked for here anyhow.
_HARMLESS = {
    "cache_position", "dropout", "head_mask", "is_causal", "logits_to_keep", "output_attentions", "output_hidden_states",
    "position_embeddings", "position_ids", "return_dict", "scaling", "use_cache",
}  # fmt: skip


@dataclass
class _Trace:
    """One run of the model: without caches it only records the shapes of each layer's keys and values."""

    limit: int
    start: Any = None
    extent: int = 0
    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    seen: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # layer -> heads, width of keys, of values


def _attention(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float | None = None,
               **more: Any) -> tuple[Any, None]:  # fmt: skip
    import torch

    trace: _Trace = _trace.now
    name = type(module).__name__
    layer = getattr(module, "layer_idx", None)
    if layer is None or layer in trace.seen:
        raise UnsupportedError(f"{name}: attention layers need a layer_idx of their own to be told apart")
    if not getattr(module, "is_causal", True):
        raise UnsupportedError(f"{name} of layer {layer} is not causal: only models that predict the next token generate")
    if mask is not None:
        raise UnsupportedError(f"{name} of layer {layer} has a mask of its own beside the causal one")
    for word, given in more.items():
        if word == "sliding_window" and given is not None and given < trace.limit:
            raise UnsupportedError(
                f"{name} of layer {layer} sees the last {given} tokens only; give max_length={given} or less"
            )
        if word not in _HARMLESS and word != "sliding_window" and given is not None:
            raise UnsupportedError(f"{name} of layer {layer} calls attention with {word}={given!r}, which is not known here")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    trace.seen[layer] = (key.shape[1], key.shape[3], value.shape[3])
    if not trace.keys:
        shared = query.shape[1] // key.shape[1]
        k, v = (t.repeat_interleave(shared, 1) for t in (key, value))
        out = torch.nn.functional.scaled_dot_product_attention(query, k, v, is_causal=True, scale=scale)
        return out.transpose(1, 2), None
    ops = torch.ops.diptych
    trace.keys[layer] = ops.cache_write(trace.keys[layer], key, trace.start)
    trace.values[layer] = ops.cache_write(trace.values[layer], value, trace.start)
    out = ops.cached_attention(query, trace.keys[layer], trace.values[layer], trace.start, scale, trace.extent)
    return out.transpose(1, 2), None


def _register() -> None:
    """The operators of the exported programs, and the attention function; once per process."""
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)
    if hasattr(torch.ops.diptych, "cache_write"):
        return
    library = torch.library.Library("diptych", "DEF")
    library.define("cache_write(Tensor cache, Tensor fresh, Tensor start) -> Tensor")
    library.define("cached_attention(Tensor q, Tensor k, Tensor v, Tensor start, float scale, int extent) -> Tensor")
    library.impl("cache_write", lambda cache, fresh, start: torch.empty_like(cache), "Meta")
    library.impl(
        "cached_attention",
        lambda q, k, v, start, scale, extent: q.new_empty((*q.shape[:3], v.shape[3])),
        "Meta",
    )
    _register.library = library  # type: ignore[attr-defined]  # the definitions live as long as this does


@converts("diptych.cache_write.default")
def _cache_write(c: Context, cache: Value, fresh: Value, start: Value) -> Value:
    return c.emit("slice_update_at", cache, fresh, start, axis=2)


@converts("diptych.cached_attention.default")
def _cached_attention(c: Context, q: Value, keys: Value, values: Value, start: Value, scale: float, extent: int) -> Value:
    """Query i stands at position start + i and sees the keys up to there; the first `extent` are looked at at all."""
    g, count = c.g, q.shape[2]
    places = g.constant(np.arange(extent, dtype=np.int64))
    own = g.add(g.reshape(start, (1, 1)), g.constant(np.arange(count, dtype=np.int64).reshape(-1, 1)))
    mask = g.where(c.ew("less_equal", places, own, dtype="i64"), g.scalar(0.0, q.dtype), g.scalar(-np.inf, q.dtype))
    near = (g.slice_axis(x, 2, 0, extent) for x in (keys, values))
    return c.emit("attention", q, *near, mask, scale=scale, causal=False)


def positions(model: Any) -> int | None:
    """How many positions a model of transformers was made for, where it says so."""
    config: Any = getattr(model, "config", None)
    found = getattr(config.get_text_config() if hasattr(config, "get_text_config") else config, "max_position_embeddings", None)
    return None if found is None else int(found)


class CausalLM:
    """A causal language model of transformers, ready to give Graphs for any number of tokens at a time.

    >>> lm = CausalLM(model, 256)  # doctest: +SKIP
    >>> graph = lm.graph(batch=1, tokens=1, extent=128, capacity=256)  # doctest: +SKIP
    """

    def __init__(self, model: Any, limit: int) -> None:
        """`limit`: the most positions that will ever be asked for. Raises UnsupportedError with what is in the way."""
        import inspect

        try:
            import transformers  # noqa: F401
        except ImportError as e:
            raise UnsupportedError("language models are taken from transformers: pip install transformers") from e
        config = getattr(model, "config", None)
        if config is None or not hasattr(model, "get_output_embeddings") or model.get_output_embeddings() is None:
            raise UnsupportedError(
                f"{type(model).__name__} is no language model of transformers with a head over the vocabulary:"
                " pass e.g. a GPT2LMHeadModel or a LlamaForCausalLM"
            )
        if getattr(config, "is_encoder_decoder", False):
            raise UnsupportedError(f"{type(model).__name__} has an encoder: only decoders on their own generate here")
        takes = inspect.signature(model.forward).parameters
        missing = [n for n in ("input_ids", "position_ids", "logits_to_keep") if n not in takes]
        if missing:
            raise UnsupportedError(f"{type(model).__name__}.forward does not take {', '.join(missing)}: its positions or its logits cannot be chosen")
        dtypes = sorted({str(p.dtype) for p in model.parameters()})
        if dtypes != ["torch.float32"]:
            raise UnsupportedError(f"{type(model).__name__} has weights of {', '.join(dtypes)}, and only float32 is there: convert it, model.float()")
        _register()
        self.model, self.limit, self.name = model.eval(), limit, type(model).__name__
        self.vocabulary = int(config.get_text_config().vocab_size)
        places = positions(model)
        if places is not None and limit > places:
            raise InputError(f"max_length={limit} is more than the {places} positions that {self.name} was made for")
        self.layers = self._probe()

    def _probe(self) -> list[tuple[int, int, int]]:
        """Heads, width of keys and width of values of each layer, from a run on two tokens."""
        import torch

        with self._run(_Trace(self.limit)) as trace, torch.no_grad():
            self.model(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=False)
        if not trace.seen or sorted(trace.seen) != list(range(len(trace.seen))):
            raise UnsupportedError(f"{self.name}: its attention does not go through transformers' attention interface")
        return [trace.seen[i] for i in range(len(trace.seen))]

    @contextmanager
    def _run(self, trace: _Trace) -> Iterator[_Trace]:
        """The model with our attention, for the calls inside."""
        config = self.model.config
        before = config._attn_implementation
        if getattr(_trace, "now", None) is not None:
            raise InputError("a model is being exported on this thread already")
        try:
            self.model.set_attn_implementation(_NAME)
            _trace.now = trace
            yield trace
        finally:
            _trace.now = None
            self.model.set_attn_implementation(before)

    def cache_types(self, batch: int, capacity: int) -> dict[str, TensorType]:
        """The inputs that hold keys and values, [batch, heads, capacity, width] each."""
        found = {}
        for i, (heads, wk, wv) in enumerate(self.layers):
            found[f"keys{i}"] = TensorType((batch, heads, capacity, wk))
            found[f"values{i}"] = TensorType((batch, heads, capacity, wv))
        return found

    def contents(self) -> tuple[dict[str, Any], tuple[object, ...]] | None:
        """Weights by name and all else that the Graphs follow from; None where code of the user's own may have a say."""
        import torch
        import transformers

        for m in self.model.modules():
            own = not type(m).__module__.startswith(("transformers.", "torch.nn."))
            if own or "forward" in vars(m) or m._forward_hooks or m._forward_pre_hooks:
                return None
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        arrays = {name: t.detach().contiguous().numpy() for name, t in tensors}
        config = self.model.config.to_json_string(use_diff=False)
        return arrays, (config, f"{type(self.model)}", torch.__version__, transformers.__version__)

    @property
    def in_place(self) -> tuple[tuple[str, str], ...]:
        """Which outputs of the Graphs are new contents of which inputs."""
        count = range(len(self.layers))
        return (*((f"output1.{i}", f"keys.{i}") for i in count), *((f"output2.{i}", f"values.{i}") for i in count))

    def graph(self, batch: int, tokens: int, extent: int, capacity: int) -> Graph:
        """The Graph that reads `tokens` tokens per sequence.

        Inputs: ids[batch, tokens] i64, start i64 (the position of the first of them), last[1] i64 (the one among them
        whose logits are wanted), then the caches. Outputs: logits[batch, vocabulary], then the caches. Positions below
        `extent` are looked at; they are all there may be.
        """
        import torch

        from diptych.frontends.torch.source import source

        lm, limit = self, self.limit

        class Step(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = lm.model

            def forward(self, ids: Any, start: Any, last: Any, keys: list[Any], values: list[Any]) -> Any:
                trace = _trace.now
                trace.start, trace.extent = start, extent
                trace.keys, trace.values, trace.seen = list(keys), list(values), {}
                places = (start + torch.arange(tokens)).unsqueeze(0)
                out = self.model(input_ids=ids, position_ids=places, use_cache=False, logits_to_keep=last)
                if len(trace.seen) != len(keys):
                    raise UnsupportedError(f"{lm.name}: not all of its layers attend by the attention interface")
                return out.logits[:, 0], trace.keys, trace.values

        types = self.cache_types(batch, capacity)
        keys = [t for n, t in types.items() if n.startswith("keys")]
        values = [t for n, t in types.items() if n.startswith("values")]
        i64 = "i64"
        inputs = (TensorType((batch, tokens), i64), TensorType((), i64), TensorType((1,), i64), keys, values)
        with self._run(_Trace(limit)):
            graph = source(Step().eval(), inputs).graph().renamed(self.name)
        if tuple(zip(graph.output_names[1:], graph.input_names[3:], strict=True)) != self.in_place:
            raise GraphError(f"{self.name}: the caches are not named as expected: {graph.input_names}, {graph.output_names}")
        return graph
