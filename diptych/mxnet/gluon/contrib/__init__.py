"""What MXNet keeps under gluon.contrib."""

from __future__ import annotations

from diptych.mxnet.gluon.contrib import cnn, data, estimator, nn, rnn

__all__ = ["cnn", "data", "estimator", "nn", "rnn"]
