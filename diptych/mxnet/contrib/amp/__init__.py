"""`mx.contrib.amp`: mixed precision by rewriting operators, for GPUs. Its calls are errors that say so."""

from __future__ import annotations

from diptych.mxnet.contrib.amp import amp
from diptych.mxnet.contrib.amp.amp import convert_hybrid_block, convert_model, init, init_trainer, scale_loss, unscale

__all__ = ["amp", "convert_hybrid_block", "convert_model", "init", "init_trainer", "scale_loss", "unscale"]
