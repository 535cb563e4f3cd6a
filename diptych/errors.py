"""The exceptions diptych raises: every one derives from `DiptychError` and says what to try next."""

from __future__ import annotations

__all__ = [
    "DiptychError",
    "FormatError",
    "GraphError",
    "InputError",
    "TypeRuleError",
    "UnsupportedError",
]


class DiptychError(Exception):
    """Base of every error raised on purpose by diptych."""


class FormatError(DiptychError, ValueError):
    """A model file is truncated, corrupt, hostile or of an unknown version."""


class GraphError(DiptychError, ValueError):
    """A Graph breaks a rule of the IR (the verifier raises this)."""


class TypeRuleError(DiptychError, TypeError):
    """An operator was given types (shapes, dtypes) or attributes that it does not take."""


class InputError(DiptychError, ValueError):
    """The arrays of a call do not fit the model: wrong name, shape, dtype or number."""


class UnsupportedError(DiptychError, NotImplementedError):
    """The model uses something diptych does not support; the message names the layer and what to do."""
