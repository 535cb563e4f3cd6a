"""MNIST, CIFAR and folders or record files of images."""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import ndarray
from diptych.mxnet.base import MXNetError, data_dir
from diptych.mxnet.gluon.data.dataset import Dataset, RecordFileDataset, _DownloadedDataset

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "ImageFolderDataset", "ImageRecordDataset"]


class _LocalDataset(_DownloadedDataset):
    """Files below `root`; they are not downloaded."""

    _name = ""

    def __init__(self, root: str | None = None, train: bool = True, transform: Callable[..., Any] | None = None) -> None:
        self._train = train
        super().__init__(os.path.join(data_dir(), "datasets", self._name) if root is None else root, transform)

    def _path(self, *names: str) -> str:
        for name in names:
            path = os.path.join(self._root, name)
            if os.path.exists(path):
                return path
        raise MXNetError(f"{type(self).__name__}: there is no {' or '.join(names)} in {self._root}. The data set's former address no "
                         "longer answers; get the file elsewhere and put it there, or pass root=")  # fmt: skip


def _idx(path: str) -> Any:
    """The array in a file of the IDX format, compressed or not."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
        raw = f.read()
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise MXNetError(f"{path} is not an IDX file of bytes")
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


class MNIST(_LocalDataset):
    """28 x 28 x 1 images of digits and their labels, from train-images-idx3-ubyte.gz and so on below `root`."""

    _name = "mnist"

    def _get_data(self) -> None:
        stem = "train" if self._train else "t10k"
        images = _idx(self._path(f"{stem}-images-idx3-ubyte.gz", f"{stem}-images-idx3-ubyte"))
        labels = _idx(self._path(f"{stem}-labels-idx1-ubyte.gz", f"{stem}-labels-idx1-ubyte"))
        self._data = ndarray.array(images[..., None], dtype="uint8")
        self._label = labels.astype(np.int32)


class FashionMNIST(MNIST):
    """28 x 28 x 1 images of clothing, in files named as those of MNIST."""

    _name = "fashion-mnist"


class CIFAR10(_LocalDataset):
    """32 x 32 x 3 images of ten kinds, from the binary version (data_batch_1.bin or cifar-10-binary.tar.gz)."""

    _name = "cifar10"
    _archive, _label_bytes = "cifar-10-binary.tar.gz", 1

    def _files(self) -> list[str]:
        return [f"data_batch_{i}.bin" for i in range(1, 6)] if self._train else ["test_batch.bin"]

    def _bytes(self, name: str) -> bytes:
        archive = os.path.join(self._root, self._archive)
        if not os.path.exists(os.path.join(self._root, name)) and os.path.exists(archive):
            with tarfile.open(archive) as tar:
                member = next((m for m in tar.getmembers() if os.path.basename(m.name) == name), None)
                found = None if member is None else tar.extractfile(member)
                if found is None:
                    raise MXNetError(f"{archive} holds no {name}")
                return found.read()
        with open(self._path(name, self._archive), "rb") as f:
            return f.read()

    def _get_data(self) -> None:
        rows = np.concatenate([np.frombuffer(self._bytes(n), np.uint8).reshape(-1, 3072 + self._label_bytes) for n in self._files()])
        self._data = ndarray.array(rows[:, self._label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), dtype="uint8")
        self._label = rows[:, self._label_column()].astype(np.int32)

    def _label_column(self) -> int:
        return 0


class CIFAR100(CIFAR10):
    """32 x 32 x 3 images of a hundred kinds (fine_label) in twenty groups."""

    _name = "cifar100"
    _archive, _label_bytes = "cifar-100-binary.tar.gz", 2

    def __init__(self, root: str | None = None, fine_label: bool = False, train: bool = True,
                 transform: Callable[..., Any] | None = None) -> None:  # fmt: skip
        self._fine_label = fine_label
        super().__init__(root, train, transform)

    def _files(self) -> list[str]:
        return ["train.bin" if self._train else "test.bin"]

    def _label_column(self) -> int:
        return int(self._fine_label)


class ImageRecordDataset(RecordFileDataset):
    """Images and labels of a RecordIO file; flag 1 for colour, 0 for grey."""

    def __init__(self, filename: str, flag: int = 1, transform: Callable[..., Any] | None = None) -> None:
        super().__init__(filename)
        self._flag, self._transform = flag, transform

    def __getitem__(self, idx: Any) -> Any:
        from diptych.mxnet import image, recordio

        header, content = recordio.unpack(super().__getitem__(idx))
        picture = image.imdecode(content, self._flag)
        if self._transform is not None:
            return self._transform(picture, header.label)
        return picture, header.label


class ImageFolderDataset(Dataset):
    """Images in one folder for each kind: root/kind/image.jpg (or .jpeg, .png, .npy)."""

    def __init__(self, root: str, flag: int = 1, transform: Callable[..., Any] | None = None) -> None:
        self._root = os.path.expanduser(root)
        self._flag, self._transform = flag, transform
        self._exts = (".jpg", ".jpeg", ".png", ".npy")
        self.synsets: list[str] = []
        self.items: list[tuple[str, int]] = []
        for folder in sorted(os.listdir(self._root)):
            path = os.path.join(self._root, folder)
            if not os.path.isdir(path):
                warnings.warn(f"{path} is no folder of images and is passed over", stacklevel=2)
                continue
            label = len(self.synsets)
            self.synsets.append(folder)
            for filename in sorted(os.listdir(path)):
                file = os.path.join(path, filename)
                if os.path.splitext(filename)[1].lower() not in self._exts:
                    warnings.warn(f"Ignoring {file} of type {os.path.splitext(filename)[1]}. Only support {', '.join(self._exts)}",
                                  stacklevel=2)  # fmt: skip
                    continue
                self.items.append((file, label))

    def __getitem__(self, idx: Any) -> Any:
        file, label = self.items[idx]
        if file.endswith(".npy"):
            picture = ndarray.array(np.load(file))
        else:
            from diptych.mxnet import image

            picture = image.imread(file, self._flag)
        return (picture, label) if self._transform is None else self._transform(picture, label)

    def __len__(self) -> int:
        return len(self.items)
