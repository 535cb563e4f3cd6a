"""Data sets that scripts ask for: from files that are there already, since the servers of MXNet are gone."""

from __future__ import annotations

import bz2
import gzip
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from diptych.mxnet.base import MXNetError

__all__ = ["download", "download_model", "get_bz2_data", "get_cifar10", "get_mnist", "get_mnist_iterator", "get_mnist_pkl", "get_mnist_ubyte", "get_zip_data"]

_MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def download(url: str, fname: str | None = None, dirname: str | None = None, overwrite: bool = False, retries: int = 5) -> str:
    """The path of a file that is there already, by the name it would have after a download; an error where it is not."""
    path = Path(dirname or "", fname or url.rpartition("/")[2])
    if path.exists() and not overwrite:
        return str(path)
    raise MXNetError(f"{path} is not there, and {url} is not downloaded: MXNet's servers are gone; get the file another way and put it there")


def download_model(model_name: str, dst_dir: str = "./", meta_info: Any = None) -> None:
    """An error: the servers of MXNet's models are gone."""
    raise MXNetError(f"the model {model_name} is not downloaded: MXNet's servers are gone; get its files another way and load them")


def _mnist_file(name: str) -> bytes:
    """The content of a file of MNIST, packed or not, here or in ./data."""
    for folder in ("", "data"):
        for ending in ("", ".gz"):
            path = Path(folder, name + ending)
            if path.is_file():
                return gzip.decompress(path.read_bytes()) if ending else path.read_bytes()
    raise MXNetError(f"{name} (or {name}.gz) is neither here ({os.getcwd()}) nor in ./data: the four files of MNIST are not downloaded, put "
                     "them into one of the two")  # fmt: skip


def get_mnist() -> dict[str, Any]:
    """MNIST from its files here or in ./data: train_data (60000, 1, 28, 28) of float32 in [0, 1], train_label, test_data, test_label."""
    found: dict[str, Any] = {}
    for kind, (images, labels) in (("train", _MNIST[:2]), ("test", _MNIST[2:])):
        label = np.frombuffer(_mnist_file(labels), np.int8, offset=8)
        raw = np.frombuffer(_mnist_file(images), np.uint8, offset=16)
        if len(raw) != len(label) * 28 * 28:
            raise MXNetError(f"{images} has {len(raw)} bytes of pixels for {len(label)} labels of {labels}; images are 28 x 28")
        found[f"{kind}_data"], found[f"{kind}_label"] = raw.reshape(-1, 1, 28, 28).astype(np.float32) / 255, label
    return found


def get_mnist_pkl() -> None:
    """See that data/mnist.pkl.gz is there."""
    download("http://deeplearning.net/data/mnist/mnist.pkl.gz", dirname="data")


def get_mnist_ubyte() -> None:
    """See that the four files of MNIST are in ./data, unpacked; they are unpacked there if they lie packed."""
    Path("data").mkdir(exist_ok=True)
    for name in _MNIST:
        path = Path("data", name)
        if not path.exists():
            path.write_bytes(_mnist_file(name))


def get_cifar10() -> None:
    """See that train and test (.rec, .lst) are in ./data/cifar; data/cifar10.zip is unpacked if it lies there."""
    if not all(Path("data/cifar", f).exists() for f in ("train.rec", "test.rec", "train.lst", "test.lst")):
        with zipfile.ZipFile(download("http://data.mxnet.io/mxnet/data/cifar10.zip", dirname="data")) as archive:
            archive.extractall("data")


def get_mnist_iterator(batch_size: int, input_shape: tuple[int, ...], num_parts: int = 1, part_index: int = 0) -> tuple[Any, Any]:
    """Iterators of MNIST for training (shuffled) and validation, from files in ./data; flat unless input_shape has three axes."""
    from diptych.mxnet.io import MNISTIter

    get_mnist_ubyte()
    usual: dict[str, Any] = {"input_shape": input_shape, "batch_size": batch_size, "flat": len(input_shape) != 3}
    train, test = ((f"data/{images}", f"data/{labels}") for images, labels in (_MNIST[:2], _MNIST[2:]))
    return (MNISTIter(image=train[0], label=train[1], **usual, shuffle=True, num_parts=num_parts, part_index=part_index),
            MNISTIter(image=test[0], label=test[1], **usual, num_parts=num_parts, part_index=part_index))  # fmt: skip


def get_zip_data(data_dir: str, url: str, data_origin_name: str) -> None:
    """Unpack a .zip file that lies in data_dir."""
    with zipfile.ZipFile(download(url, data_origin_name, data_dir)) as archive:
        archive.extractall(data_dir)


def get_bz2_data(data_dir: str, data_name: str, url: str, data_origin_name: str) -> None:
    """Unpack a .bz2 file that lies in data_dir to `data_name`, unless that is there already."""
    target = Path(data_dir, data_name)
    if not target.exists():
        with bz2.open(download(url, data_origin_name, data_dir)) as packed, target.open("wb") as out:
            for block in iter(lambda: packed.read(1 << 20), b""):
                out.write(block)
