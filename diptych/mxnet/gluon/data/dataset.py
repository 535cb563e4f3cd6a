"""Data sets: anything with a length and samples by index."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from diptych.mxnet import ndarray
from diptych.mxnet.gluon.data.sampler import Sampler, SequentialSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ArrayDataset", "Dataset", "RecordFileDataset", "SimpleDataset"]


class Dataset:
    """Samples by index: subclass it with `__getitem__` and `__len__`."""

    def __getitem__(self, idx: Any) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def filter(self, fn: Callable[[Any], bool]) -> Dataset:
        """The samples that a function accepts."""
        from diptych.mxnet.gluon.data.sampler import FilterSampler

        return _Sampled(self, FilterSampler(fn, self))

    def shard(self, num_shards: int, index: int) -> Dataset:
        """Part `index` of `num_shards` parts of nearly equal length."""
        if not 0 <= index < num_shards:
            raise AssertionError(f"shard({num_shards}, {index}): the index is 0 to {num_shards - 1}")
        length, rest = divmod(len(self), num_shards)
        start = length * index + min(index, rest)
        return _Sampled(self, SequentialSampler(length + (index < rest), start))

    def take(self, count: int | None) -> Dataset:
        """The first `count` samples, or all."""
        n = len(self)
        return _Sampled(self, SequentialSampler(n if count is None or count > n else count))

    def sample(self, sampler: Sampler) -> Dataset:
        """The samples that a sampler chooses."""
        if not isinstance(sampler, Sampler):
            raise TypeError(f"Invalid sampler type: {type(sampler)}")
        return _Sampled(self, sampler)

    def transform(self, fn: Callable[..., Any], lazy: bool = True) -> Dataset:
        """The samples as a function changes them: when they are asked for (lazy), or all at once."""
        made = _Transformed(self, fn)
        return made if lazy else SimpleDataset([made[i] for i in range(len(made))])

    def transform_first(self, fn: Callable[..., Any], lazy: bool = True) -> Dataset:
        """The samples with their first part as a function changes it."""
        return self.transform(_First(fn), lazy)


class SimpleDataset(Dataset):
    """A list as a data set.

    >>> len(SimpleDataset([1, 2, 3]).filter(lambda x: x > 1))
    2
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, idx: Any) -> Any:
        return self._data[idx]


class _Transformed(Dataset):
    def __init__(self, data: Any, fn: Callable[..., Any]) -> None:
        self._data, self._fn = data, fn

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, idx: Any) -> Any:
        item = self._data[idx]
        return self._fn(*item) if isinstance(item, tuple) else self._fn(item)


class _First:
    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, x: Any, *args: Any) -> Any:
        return (self._fn(x), *args) if args else self._fn(x)


class _Sampled(Dataset):
    def __init__(self, dataset: Dataset, sampler: Sampler) -> None:
        self._dataset, self._indices = dataset, list(iter(sampler))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, idx: Any) -> Any:
        return self._dataset[self._indices[idx]]


class ArrayDataset(Dataset):
    """Arrays or lists of one length side by side.

    >>> ArrayDataset([1, 2], [3, 4])[1]
    (2, 4)
    """

    def __init__(self, *args: Any) -> None:
        if not args:
            raise AssertionError("ArrayDataset: no arrays given")
        self._length = len(args[0])
        self._data = []
        for i, data in enumerate(args):
            if len(data) != self._length:
                raise AssertionError(f"ArrayDataset: the first array has {self._length} items, array {i + 1} has "
                                     f"{len(data)}")  # fmt: skip
            # Labels come out as plain numbers, not as arrays of one element.
            self._data.append(data.asnumpy() if isinstance(data, ndarray.NDArray) and data.ndim == 1 else data)

    def __getitem__(self, idx: Any) -> Any:
        return self._data[0][idx] if len(self._data) == 1 else tuple(d[idx] for d in self._data)

    def __len__(self) -> int:
        return self._length


class RecordFileDataset(Dataset):
    """The records of a RecordIO file, with its index beside it (name.idx)."""

    def __init__(self, filename: str) -> None:
        self.idx_file = os.path.splitext(filename)[0] + ".idx"
        self.filename = filename
        self._fork()

    def _fork(self) -> None:
        from diptych.mxnet import recordio

        # A worker of its own must not share the position in the file with others.
        self._record = recordio.MXIndexedRecordIO(self.idx_file, self.filename, "r")
        self._pid = os.getpid()

    def __getitem__(self, idx: Any) -> Any:
        if self._pid != os.getpid():
            self._fork()
        return self._record.read_idx(self._record.keys[idx])

    def __len__(self) -> int:
        return len(self._record.keys)


class _DownloadedDataset(Dataset):
    """A data set from files that stand below `root`."""

    def __init__(self, root: str, transform: Callable[..., Any] | None) -> None:
        self._transform = transform
        self._data: Any = None
        self._label: Any = None
        self._root = os.path.expanduser(root)
        os.makedirs(self._root, exist_ok=True)
        self._get_data()

    def __getitem__(self, idx: Any) -> Any:
        if self._transform is not None:
            return self._transform(self._data[idx], self._label[idx])
        return self._data[idx], self._label[idx]

    def __len__(self) -> int:
        return len(self._label)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def _get_data(self) -> None:
        raise NotImplementedError
