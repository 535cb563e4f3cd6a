"""Ready-made models."""

from __future__ import annotations

from diptych.mxnet.gluon.model_zoo import model_store, vision
from diptych.mxnet.gluon.model_zoo.vision import get_model

__all__ = ["get_model", "model_store", "vision"]
