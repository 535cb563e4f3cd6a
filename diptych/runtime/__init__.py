"""Runs compiled models: object loader, object cache, threads, and the native call path."""

from __future__ import annotations

from diptych.runtime.cache import ObjectCache, default_cache
from diptych.runtime.executable import Executable, aligned_bytes
from diptych.runtime.loader import LoadedObject, load_object
from diptych.runtime.threads import Pool, cpu_count, pool_of

__all__ = [
    "Executable",
    "LoadedObject",
    "ObjectCache",
    "Pool",
    "aligned_bytes",
    "cpu_count",
    "default_cache",
    "load_object",
    "pool_of",
]
