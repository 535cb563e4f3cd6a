"""From logits to the next token: greedy, or drawn after temperature, top-k and top-p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.errors import InputError

__all__ = ["Sampling"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen. Temperature 0 takes the likeliest (the first of several); otherwise it is drawn.

    >>> Sampling().choose(np.array([[0.0, 2.0, 1.0]]), np.random.default_rng(0))
    array([1])

    temperature: logits are divided by it. top_k: only the k likeliest tokens (0: all). top_p: of these, only the
    likeliest ones that together have at least this probability (nucleus sampling, Holtzman et al. 2020).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise InputError(f"temperature={self.temperature} must be 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k} must be 0 (all tokens) or the number of tokens to draw from")
        if not 0.0 < self.top_p <= 1.0:
            raise InputError(f"top_p={self.top_p} must lie in (0, 1]")

    def choose(self, logits: Array, rng: np.random.Generator) -> Array:
        """One token for each row of logits[batch, vocabulary]."""
        if np.isnan(logits).any():
            raise InputError("the model's logits hold NaN: its weights or its input are damaged")
        if self.temperature == 0:
            return np.asarray(np.argmax(logits, -1), np.int64)
        return np.array([self._draw(row, rng) for row in logits], np.int64)

    def probabilities(self, logits: Array) -> tuple[Array, Array]:
        """Tokens that may be drawn, likeliest first, and their probabilities in float64."""
        x = logits.astype(np.float64) / self.temperature
        k = self.top_k if 0 < self.top_k < len(x) else len(x)
        tokens = np.argpartition(-x, k - 1)[:k] if k < len(x) else np.arange(len(x))
        tokens = tokens[np.argsort(-x[tokens], kind="stable")]
        p = np.exp(x[tokens] - x[tokens[0]])
        p /= p.sum()
        if self.top_p < 1:
            count = int(np.searchsorted(np.cumsum(p), self.top_p)) + 1
            tokens, p = tokens[:count], p[:count] / p[:count].sum()
        return tokens, p

    def _draw(self, logits: Array, rng: np.random.Generator) -> int:
        tokens, p = self.probabilities(logits)
        at = int(np.searchsorted(np.cumsum(p), rng.random(), side="right"))
        return int(tokens[min(at, len(tokens) - 1)])
