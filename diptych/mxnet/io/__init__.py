"""Iterators over batches: `mx.io`.

>>> import numpy as np, diptych.mxnet as mx
>>> batches = mx.io.NDArrayIter(np.zeros((5, 2)), np.arange(5), batch_size=2)
>>> [(b.data[0].shape, b.label[0].asnumpy().tolist(), b.pad) for b in batches]
[((2, 2), [0.0, 1.0], 0), ((2, 2), [2.0, 3.0], 0), ((2, 2), [4.0, 0.0], 1)]
"""

from __future__ import annotations

from typing import Any

from diptych.mxnet.io.base import DataBatch, DataDesc, DataIter, MXDataIter
from diptych.mxnet.io.files import CSVIter, LibSVMIter, MNISTIter
from diptych.mxnet.io.ndarray_iter import NDArrayIter
from diptych.mxnet.io.wrappers import PrefetchingIter, ResizeIter

__all__ = [
    "CSVIter", "DataBatch", "DataDesc", "DataIter", "ImageDetRecordIter", "ImageRecordInt8Iter", "ImageRecordIter",
    "ImageRecordIter_v1", "ImageRecordUInt8Iter", "ImageRecordUInt8Iter_v1", "LibSVMIter", "MNISTIter", "MXDataIter", "NDArrayIter", "PrefetchingIter", "ResizeIter",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name.startswith("ImageRecord") and name in __all__:
        from diptych.mxnet.io import image_record

        return getattr(image_record, name)
    if name == "ImageDetRecordIter":
        from diptych.mxnet.io.det_record import ImageDetRecordIter

        return ImageDetRecordIter
    raise AttributeError(f"module 'diptych.mxnet.io' has no attribute {name!r}")
