"""What iterators give: descriptions and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from diptych.mxnet.base import mx_real_t

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from diptych.mxnet.ndarray.ndarray import NDArray

__all__ = ["DataBatch", "DataDesc", "DataIter", "MXDataIter"]


class _NameAndShape(NamedTuple):
    name: str
    shape: tuple[int, ...]


class DataDesc(_NameAndShape):
    """Name and shape of an input (a pair), with element type and layout.

    >>> d = DataDesc("data", (2, 3, 8, 8))
    >>> d.name, d[1], d.layout
    ('data', (2, 3, 8, 8), 'NCHW')
    """

    dtype: Any
    layout: str | None

    def __new__(cls, name: str, shape: Any, dtype: Any = mx_real_t, layout: str | None = "NCHW") -> DataDesc:
        made = super().__new__(cls, name, shape)
        made.dtype = dtype
        made.layout = layout
        return made

    def __repr__(self) -> str:
        return f"DataDesc[{self.name},{self.shape},{self.dtype},{self.layout}]"

    @staticmethod
    def get_batch_axis(layout: str | None) -> int:
        """Which axis of a layout counts samples: 0 if none is given, -1 if it has none."""
        return 0 if layout is None else layout.find("N")

    @staticmethod
    def get_list(shapes: Any, types: Any) -> list[DataDesc]:
        """Descriptions of pairs (name, shape), with types from pairs (name, type)."""
        known = dict(types) if types is not None else {}
        return [DataDesc(n, s, known[n]) if types is not None else DataDesc(n, s) for n, s in shapes]


class DataBatch:
    """Arrays of one batch. `pad` counts the samples at its end that only fill it up."""

    def __init__(self, data: Sequence[NDArray] | None, label: Sequence[NDArray] | None = None, pad: int | None = None,
                 index: Any = None, bucket_key: Any = None, provide_data: Any = None, provide_label: Any = None) -> None:  # fmt: skip
        if data is not None and not isinstance(data, (list, tuple)):
            raise AssertionError("DataBatch: data is a list of NDArrays")
        if label is not None and not isinstance(label, (list, tuple)):
            raise AssertionError("DataBatch: label is a list of NDArrays")
        self.data = data
        self.label = label
        self.pad = pad
        self.index = index
        self.bucket_key = bucket_key
        self.provide_data = provide_data
        self.provide_label = provide_label

    def __str__(self) -> str:
        labels = [x.shape for x in self.label] if self.label else None
        return f"{type(self).__name__}: data shapes: {[x.shape for x in self.data or ()]} label shapes: {labels}"


class DataIter:
    """The base class: subclasses give `next`, or `iter_next` and the get functions."""

    provide_data: Any
    provide_label: Any

    def __init__(self, batch_size: int = 0) -> None:
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[DataBatch]:
        return self

    def reset(self) -> None:
        """Go back to the first batch."""

    def next(self) -> DataBatch:
        """The next batch; StopIteration after the last."""
        if not self.iter_next():
            raise StopIteration
        return DataBatch(self.getdata(), self.getlabel(), self.getpad(), self.getindex())

    def __next__(self) -> DataBatch:
        return self.next()

    def iter_next(self) -> bool:
        """Move to the next batch; False after the last."""
        raise NotImplementedError(f"{type(self).__name__} must override next or iter_next")

    def getdata(self) -> Any:
        """The data of the batch."""

    def getlabel(self) -> Any:
        """The labels of the batch."""

    def getindex(self) -> Any:
        """The positions of its samples, where they are known."""

    def getpad(self) -> Any:
        """How many samples only fill the batch up."""


class MXDataIter(DataIter):
    """The class of iterators that libmxnet has built in; here those that read files."""
