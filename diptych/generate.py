"""Autoregressive generation: a causal language model of transformers, compiled, with a cache of keys and values.

The prompt is read in pieces of a few compiled sizes, then each step reads one token. Every program works on the same
cache, which is allocated once and written in place, and looks at no more of it than the next power of two.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diptych.errors import InputError
from diptych.options import Options
from diptych.progress import default_progress
from diptych.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.compiled import Compiled
    from diptych.ir import Graph
    from diptych.progress import Progress

__all__ = ["Generation", "Generator", "Stream"]

Array = np.ndarray[Any, Any]

_PIECES = (256, 128, 64, 32, 16)  # tokens of a prompt that are read at a time; the last piece is filled up
_LEAST = 64  # positions that are looked at in any case
_DEFAULT = 1024  # positions, where the model itself would take more


@dataclass(frozen=True, slots=True)
class Generation:
    """What `Generator.generate` returns: the new tokens, [new] or [batch, new], and how long they took."""

    tokens: Array
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float

    @property
    def prefill_rate(self) -> float:
        """Tokens of the prompt per second, over all sequences."""
        return self.prompt_tokens / self.prefill_seconds

    @property
    def decode_rate(self) -> float:
        """Steps per second times sequences; the first token comes with the prompt and does not count."""
        steps = self.tokens.size - (self.tokens.shape[0] if self.tokens.ndim == 2 else 1)
        return steps / self.decode_seconds if self.decode_seconds else 0.0


class Generator:
    """A compiled language model: `generate` returns tokens, `stream` gives them one by one.

    >>> generator = diptych.Generator(transformers.GPT2LMHeadModel(config))  # doctest: +SKIP
    >>> generator.generate([464, 3290], max_new_tokens=20).tokens  # doctest: +SKIP

    model: a causal language model of transformers in float32 (GPT-2, LLaMA and all that attend by its attention
        interface over all positions), with its weights. It is exported when a program is first needed and not changed.
    max_length: positions that a sequence may have, the prompt's included; default: what the model takes, at most 1024.
    accuracy: "strict" keeps to direct sums, so that prompt and step read the same packed weights. "fast" may use
        Strassen's scheme for the prompt, whose weights are packed a second time, 1.75 times as large.
    threads, target, progress: as for `diptych.compile`.

    Raises UnsupportedError for a model that is not causal or attends in a way that is not known here, InputError for a
    max_length over the model's own. May be used by several threads: each stream has a cache of its own.
    """

    def __init__(self, model: Any, *, max_length: int | None = None, accuracy: Literal["fast", "strict"] = "strict",
                 threads: int | None = None, target: str | None = None, progress: Progress | None = None) -> None:  # fmt: skip
        from diptych.frontends.torch.causal_lm import CausalLM, positions
        from diptych.runtime.shared import SharedWeights
        from diptych.runtime.threads import cpu_count

        if threads is not None and threads < 1:
            raise InputError(f"threads={threads} must be at least 1")
        if max_length is None:
            max_length = min(_DEFAULT, positions(model) or _DEFAULT)
        if max_length < 2:
            raise InputError(f"max_length={max_length} leaves no room for a prompt and a token after it")
        self._lm = CausalLM(model, max_length)
        self.max_length = max_length
        self._capacity = -(-(max_length + _PIECES[-1] - 1) // _LEAST) * _LEAST
        if accuracy not in ("fast", "strict"):
            raise InputError(f"accuracy={accuracy!r} is neither 'fast' nor 'strict'")
        self._options = Options(accuracy=accuracy, threads=threads or cpu_count())
        self._target = target
        self._progress = progress or default_progress()
        self._programs: dict[tuple[int, int, int], Compiled] = {}
        self._shared = SharedWeights()
        self._caches: dict[int, deque[list[Array]]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Generator({self._lm.name}, max_length={self.max_length}, {len(self._programs)} programs)"

    @property
    def vocabulary(self) -> int:
        """Tokens there are."""
        return self._lm.vocabulary

    # -- using it ---------------------------------------------------------------------------------------------
    def generate(self, prompt: Any, max_new_tokens: int = 20, *, temperature: float = 0.0, top_k: int = 0,
                 top_p: float = 1.0, seed: int | None = None, stop: int | Sequence[int] = ()) -> Generation:  # fmt: skip
        """New tokens after a prompt: greedy, or with temperature > 0 drawn.

        >>> generator.generate(ids, 64, temperature=0.8, top_k=50, seed=1).tokens  # doctest: +SKIP

        prompt: token ids, [length], or [batch, length] for several prompts of one length; a list, array or tensor.
        max_new_tokens: how many at most; fewer after a stop token, and where max_length is reached.
        temperature, top_k, top_p: see `diptych.sampling.Sampling`. seed: the same seed draws the same tokens.
        stop: a token, or several, after which a sequence ends; it is part of the result. In a batch, a sequence that
            has ended repeats its stop token until all have.

        Raises InputError for an empty or too long prompt and for tokens outside the vocabulary.
        """
        stream = self.stream(prompt, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop)
        found = list(stream)
        tokens = np.stack(found, 1) if stream.batched else np.array(found, np.int64)
        return Generation(tokens, stream.prompt_tokens, stream.prefill_seconds, stream.decode_seconds)

    def stream(self, prompt: Any, max_new_tokens: int = 20, *, temperature: float = 0.0, top_k: int = 0,
               top_p: float = 1.0, seed: int | None = None, stop: int | Sequence[int] = ()) -> Stream:  # fmt: skip
        """The same as an iterator: a token (of a batch: an array of one for each sequence) as soon as it is known."""
        ids, batched = self._ids(prompt)
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens={max_new_tokens} must be at least 1")
        stops = frozenset([stop] if isinstance(stop, int) else [int(s) for s in stop])
        room = self.max_length - ids.shape[1]
        if room < 1:
            raise InputError(
                f"the prompt has {ids.shape[1]} tokens and leaves no room in max_length={self.max_length};"
                " shorten it, or make the Generator with a larger max_length"
            )
        sampling = Sampling(float(temperature), int(top_k), float(top_p))
        return Stream(self, ids, batched, min(max_new_tokens, room), sampling, np.random.default_rng(seed), stops)

    def prepare(self, prompt_tokens: int | None = None, max_new_tokens: int = 1, batch: int = 1) -> Generator:
        """Compile what a prompt of this many tokens and as many new ones need (default: all), so that no call has to."""
        length = self.max_length - 1 if prompt_tokens is None else prompt_tokens
        at = 0
        for piece, used in _pieces(length):
            self._program(batch, piece, self._extent(at + piece))
            at += used
        end = min(self.max_length, length + max_new_tokens)
        for position in range(0 if prompt_tokens is None else length, end):
            self._program(batch, 1, self._extent(position + 1))
        return self

    # -- programs and caches ------------------------------------------------------------------------------------
    def _ids(self, prompt: Any) -> tuple[Array, bool]:
        if hasattr(prompt, "detach"):
            prompt = prompt.detach().numpy()
        ids = np.asarray(prompt)
        if ids.size == 0:
            raise InputError("the prompt is empty: give at least one token, e.g. the model's begin-of-text token")
        if ids.dtype.kind not in "iu":
            raise InputError(f"the prompt holds {ids.dtype}: token ids are integers; encode text with the model's tokenizer")
        if ids.ndim not in (1, 2):
            raise InputError(f"the prompt has shape {ids.shape}: [length] or [batch, length] expected")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocabulary:
            raise InputError(f"the prompt holds token {low if low < 0 else high}, outside the vocabulary of {self.vocabulary}")
        return np.atleast_2d(ids).astype(np.int64), ids.ndim == 2

    def _extent(self, positions: int) -> int:
        """How many positions a program looks at so that the first `positions` are among them."""
        extent = _LEAST
        while extent < positions:
            extent *= 2
        return min(extent, self._capacity)

    def _program(self, batch: int, tokens: int, extent: int) -> Compiled:
        key = (batch, tokens, extent)
        found = self._programs.get(key)
        if found is None:
            with self._lock:
                found = self._programs.get(key)
                if found is None:
                    found = self._programs[key] = self._compile(*key)
        return found

    def _compile(self, batch: int, tokens: int, extent: int) -> Compiled:
        from diptych.compiled import Compiled
        from diptych.fingerprint import of_graph

        name = self._name
        size = (batch, tokens, extent, self._capacity)

        def content(graph: Graph | None) -> str | None:
            return f"{name} {size}" if name is not None else None if graph is None else of_graph(graph)

        options = replace(self._options, in_place=self._lm.in_place)
        return Compiled(lambda: self._lm.graph(*size), content, options, self._target, self._progress, self._shared)

    @cached_property
    def _name(self) -> str | None:
        """What the cache knows the model by without exporting it; None where only its Graphs can tell."""
        from diptych.fingerprint import of_arrays

        contents = self._lm.contents()
        return None if contents is None else of_arrays(contents[0], *contents[1])

    # No lock: a stream that is dropped gives its memory back whenever the collector runs, which may be while this very
    # thread holds the lock. What a deque does is atomic.
    def _take_cache(self, batch: int) -> list[Array]:
        try:
            return self._caches.setdefault(batch, deque()).pop()
        except IndexError:
            types = self._lm.cache_types(batch, self._capacity)
            return [np.zeros(t.shape, np.float32) for t in types.values()]

    def _give_cache(self, batch: int, cache: list[Array]) -> None:
        self._caches[batch].append(cache)


def _pieces(length: int) -> list[tuple[int, int]]:
    """The sizes that a prompt is read in, and how many of its tokens are in each.

    >>> _pieces(100)
    [(64, 64), (32, 32), (16, 4)]
    """
    found = []
    while length:
        size = next((p for p in _PIECES if p <= length), _PIECES[-1])
        found.append((size, min(size, length)))
        length -= found[-1][1]
    return found


class Stream:
    """Tokens of one call as an iterator; `prefill_seconds` and `decode_seconds` say what was spent so far.

    The prompt is read when the first token is asked for. Only time inside the iterator counts.
    """

    def __init__(self, generator: Generator, ids: Array, batched: bool, count: int, sampling: Sampling,
                 rng: np.random.Generator, stops: frozenset[int]) -> None:  # fmt: skip
        self.batched = batched
        self.prompt_tokens = ids.size
        self.prefill_seconds = self.decode_seconds = 0.0
        self._tokens = self._run(generator, ids, count, sampling, rng, stops)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._tokens)

    def close(self) -> None:
        """End early; the memory of the cache is free for the next stream."""
        self._tokens.close()  # type: ignore[attr-defined]

    def _run(self, generator: Generator, ids: Array, count: int, sampling: Sampling, rng: np.random.Generator,
             stops: frozenset[int]) -> Iterator[Any]:  # fmt: skip
        batch, length = ids.shape
        cache = generator._take_cache(batch)
        try:
            began = perf_counter()
            at = 0
            for size, used in _pieces(length):
                piece = np.zeros((batch, size), np.int64)
                piece[:, :used] = ids[:, at : at + used]
                call = generator._program(batch, size, generator._extent(at + size)).call
                logits = call(piece, np.array(at), np.array([used - 1]), *cache)
                at += used
            tokens = sampling.choose(logits, rng)
            self.prefill_seconds = perf_counter() - began
            ended = np.isin(tokens, list(stops))
            yield tokens if self.batched else int(tokens[0])
            last = np.zeros(1, np.int64)
            for position in range(length, length + count - 1):
                if ended.all():
                    return
                began = perf_counter()
                call = generator._program(batch, 1, generator._extent(position + 1)).call
                logits = call(tokens[:, None], np.array(position), last, *cache)
                tokens = np.where(ended, tokens, sampling.choose(logits, rng))
                self.decode_seconds += perf_counter() - began
                ended |= np.isin(tokens, list(stops))
                yield tokens if self.batched else int(tokens[0])
        finally:
            generator._give_cache(batch, cache)
