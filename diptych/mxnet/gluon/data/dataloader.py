"""DataLoader: batches of samples, made here or by worker processes or threads ahead of their use."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import random
from collections import deque
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import numpy as np

from diptych.mxnet import ndarray, random_state
from diptych.mxnet.context import Context
from diptych.mxnet.gluon.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from diptych.mxnet.ndarray.ndarray import NDArray
from diptych.mxnet.tape import state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

__all__ = ["DataLoader", "default_batchify_fn", "default_mp_batchify_fn"]


def default_batchify_fn(data: Any) -> Any:
    """Samples stacked to one array; tuples of arrays to a list of arrays.

    >>> default_batchify_fn([np.float32(1), np.float32(2)]).shape
    (2,)
    """
    if isinstance(data[0], NDArray):
        return ndarray.stack(*data)
    if isinstance(data[0], tuple):
        return [default_batchify_fn(part) for part in zip(*data)]
    array = np.asarray(data)
    return ndarray.array(array, dtype=array.dtype)


# Worker processes make batches in their own memory, so there is one form of it.
default_mp_batchify_fn = default_batchify_fn


def _placed(data: Any, ctx: Context) -> Any:
    if isinstance(data, NDArray):
        return data.as_in_context(ctx)
    if isinstance(data, (list, tuple)):
        return [_placed(d, ctx) for d in data]
    return data


_dataset: Any = None  # of a worker process


def _start_worker(dataset: Any, np_shape: bool, np_array: bool, number: Any, entropy: list[int]) -> None:
    global _dataset  # the data set is sent to a worker once, not with every batch
    _dataset = dataset
    # A forked worker has its parent's generators, as all others have: without seeds of their own all would draw the same.
    with number.get_lock():
        number.value += 1
        own = np.random.SeedSequence([*entropy, number.value])
    starts: tuple[Callable[[int], Any], ...] = (random.seed, np.random.seed, random_state.seed)
    for start, seed in zip(starts, own.generate_state(3)):
        start(int(seed))
    state.np_shape, state.np_array = np_shape, np_array
    from diptych.mxnet.ops import program

    # Samples are small, and a compiler in every worker would take the processors from the training: they stay with NumPy.
    program.HOT_SECONDS = float("inf")


def _entropy() -> list[int]:
    """Numbers that depend on the state of this process's three generators, which are not moved."""
    drawn = random_state.generator().bit_generator.state["state"]
    legacy: Any = np.random.get_state()
    told = repr((random.getstate(), legacy[1].tobytes(), legacy[2], drawn)).encode()
    return list(hashlib.sha256(told).digest())


def _work(samples: list[int], batchify: Callable[..., Any]) -> bytes:
    return pickle.dumps(batchify([_dataset[i] for i in samples]), protocol=pickle.HIGHEST_PROTOCOL)


def _work_in_thread(dataset: Any, samples: list[int], batchify: Callable[..., Any], np_shape: bool, np_array: bool) -> Any:
    state.np_shape, state.np_array = np_shape, np_array
    return batchify([dataset[i] for i in samples])


class _Ahead:
    """Iterates over batches while up to `prefetch` more are being made."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader  # keeps the workers alive while the iterator is in use
        self._samplers = iter(loader._batch_sampler)
        self._waiting: deque[Future[Any]] = deque()
        for _ in range(loader._prefetch):
            self._send()

    def _send(self) -> None:
        samples = next(self._samplers, None)
        if samples is not None:
            self._waiting.append(self._loader._submit(samples))

    def __iter__(self) -> _Ahead:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        if not self._waiting:
            self._send()
        if not self._waiting:
            raise StopIteration
        self._send()
        return self._loader._receive(self._waiting.popleft())


class DataLoader:
    """Batches of a data set: iterate over it, any number of times.

    >>> from diptych.mxnet import gluon
    >>> [x.shape for x in DataLoader(gluon.data.SimpleDataset([1.0, 2.0, 3.0]), batch_size=2)]
    [(2,), (1,)]

    `num_workers` processes (threads with thread_pool=True) make batches ahead; in processes the data set and `batchify_fn`
    must be picklable where the system cannot fork. An exception in a worker is raised where its batch is asked for.
    """

    def __init__(self, dataset: Any, batch_size: int | None = None, shuffle: bool = False, sampler: Sampler | None = None,
                 last_batch: str | None = None, batch_sampler: Any = None, batchify_fn: Callable[..., Any] | None = None,
                 num_workers: int = 0, pin_memory: bool = False, pin_device_id: int = 0, prefetch: int | None = None,
                 thread_pool: bool = False, timeout: float = 120, auto_reload: bool = False) -> None:  # fmt: skip
        self._dataset = dataset
        self._pin_memory, self._pin_device_id = pin_memory, pin_device_id
        self._thread_pool, self._timeout = thread_pool, timeout
        if timeout <= 0:
            raise AssertionError(f"timeout={timeout}: seconds, more than 0")
        if batch_sampler is None:
            if batch_size is None:
                raise ValueError("DataLoader needs batch_size, or a batch_sampler")
            if sampler is None:
                sampler = RandomSampler(len(dataset)) if shuffle else SequentialSampler(len(dataset))
            elif shuffle:
                raise ValueError("give shuffle or a sampler to DataLoader, not both: the sampler has the order")
            batch_sampler = BatchSampler(sampler, batch_size, last_batch or "keep")
        elif batch_size is not None or shuffle or sampler is not None or last_batch is not None:
            raise ValueError("a batch_sampler decides batch_size, shuffle, sampler and last_batch: do not give them too")
        self._batch_sampler = batch_sampler
        self._num_workers = max(0, num_workers)
        self._prefetch = max(0, 2 * self._num_workers if prefetch is None else int(prefetch))
        self._batchify_fn = batchify_fn or default_batchify_fn
        self._pool: Executor | None = None
        if self._num_workers:
            self._start()

    def _start(self) -> None:
        if self._thread_pool:
            self._pool = ThreadPoolExecutor(self._num_workers)
            return
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("fork" if "fork" in methods and os.name != "nt" else None)
        # An executor rather than a multiprocessing.Pool: it reads results until the last one, so that it can be given up while
        # workers send large batches, and it notices when a worker dies.
        self._pool = ProcessPoolExecutor(self._num_workers, mp_context=context, initializer=_start_worker,
                                         initargs=(self._dataset, state.np_shape, state.np_array, context.Value("i", 0), _entropy()))  # fmt: skip
        self._pool.submit(int)  # starts the workers, with the data set as it is now

    def _submit(self, samples: list[int]) -> Future[Any]:
        assert self._pool is not None
        if self._thread_pool:
            return self._pool.submit(_work_in_thread, self._dataset, samples, self._batchify_fn, state.np_shape, state.np_array)
        return self._pool.submit(_work, samples, self._batchify_fn)

    def _receive(self, waiting: Future[Any]) -> Any:
        try:
            result = waiting.result(self._timeout)
        except TimeoutError as error:
            if waiting.done():
                raise  # the data set's own
            raise RuntimeError(f"no batch came from {self._num_workers} workers within {self._timeout} s; look for a dead lock in the data "
                               "set, or raise `timeout`") from error  # fmt: skip
        except BrokenProcessPool as error:
            raise RuntimeError("a worker process of the DataLoader died (often: not enough memory, or a crash in the data set); run with "
                               "num_workers=0 to see where") from error  # fmt: skip
        batch = result if self._thread_pool else pickle.loads(result)
        return _placed(batch, Context("cpu_pinned", self._pin_device_id)) if self._pin_memory else batch

    def __iter__(self) -> Iterator[Any]:
        if self._num_workers:
            return iter(_Ahead(self))
        return self._alone()

    def _alone(self) -> Iterator[Any]:
        for samples in self._batch_sampler:
            batch = self._batchify_fn([self._dataset[i] for i in samples])
            yield _placed(batch, Context("cpu_pinned", self._pin_device_id)) if self._pin_memory else batch

    def __len__(self) -> int:
        return len(self._batch_sampler)

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
