"""Data sets and samplers under gluon.contrib."""

from __future__ import annotations

from diptych.mxnet.gluon.contrib.data import sampler, text
from diptych.mxnet.gluon.contrib.data.sampler import IntervalSampler

__all__ = ["IntervalSampler", "sampler", "text"]
