"""What MXNet keeps under gluon.contrib."""

from __future__ import annotations

from diptych.mxnet.gluon.contrib import data, nn, rnn

__all__ = ["data", "nn", "rnn"]
