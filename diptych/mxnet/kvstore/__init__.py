"""`mx.kv`: a store of arrays by key, in this process. Stores that span machines are not supported.

>>> import diptych.mxnet as mx
>>> kv = mx.kv.create("local")
>>> kv.init("w", mx.nd.ones((2,)))
>>> out = mx.nd.zeros((2,))
>>> kv.push("w", [mx.nd.ones((2,)), mx.nd.ones((2,))])
>>> kv.pull("w", out=out)
>>> out.asnumpy().tolist()
[2.0, 2.0]
"""

from __future__ import annotations

from diptych.mxnet.kvstore.base import KVStoreBase, TestStore
from diptych.mxnet.kvstore.kvstore import KVStore, create

__all__ = ["KVStore", "KVStoreBase", "TestStore", "create"]
