"""The support code, ready to call: compiled once, kept in the object cache, loaded on first use."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
import threading
from typing import Any

import numpy as np

from diptych.errors import UnsupportedError
from diptych.runtime.cache import default_cache
from diptych.runtime.elf import X86_64
from diptych.runtime.loader import LoadedObject, load_object, machine
from diptych.runtime.support_ir import support_ir

__all__ = ["Support", "array_type_address", "compile_support", "missing", "support"]

_TRIPLES = {X86_64: "x86_64-unknown-linux-gnu"}
_PYTHON = (
    "PyEval_SaveThread", "PyEval_RestoreThread", "PyTuple_New", "PyTuple_SetItem", "PyObject_Vectorcall",
    "Py_IncRef", "Py_DecRef", "_Py_NotImplementedStruct", "_Py_NoneStruct",
)  # fmt: skip
_NEW_FROM_DESCR, _ARRAY_TYPE = 94, 2  # slots of NumPy's C API table, fixed by its ABI


def compile_support(which: int, linux: bool = True) -> bytes:
    """The support object for ELF machine `which`, compiled with llvmlite for the baseline of the architecture."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = _TRIPLES.get(which, "aarch64-unknown-linux-gnu")
    module = llvm.parse_assembly(support_ir(which, linux))
    module.triple = triple
    module.verify()
    maker = llvm.Target.from_triple(triple).create_target_machine(opt=2, reloc="pic", codemodel="small")
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(maker, options)
    builder.getModulePassManager().run(module, builder)
    code: bytes = maker.emit_object(module)
    return code


def _wanted() -> tuple[int, bool]:
    """What `compile_support` is asked for here."""
    return machine(), sys.platform.startswith("linux")


def _key(which: int, linux: bool) -> str:
    """What the cache knows the support code by."""
    import hashlib

    return f"support {which} {hashlib.sha256(support_ir(which, linux).encode()).hexdigest()}"


def _array_api() -> ctypes.Array[ctypes.c_void_p]:
    multiarray: Any
    try:
        from numpy._core import multiarray
    except ImportError:  # NumPy 1.26
        from numpy.core import multiarray
    prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    table = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))(multiarray._ARRAY_API, None)
    return (ctypes.c_void_p * (_NEW_FROM_DESCR + 1)).from_address(table)


def array_type_address() -> int:
    """The address of the type object numpy.ndarray."""
    return id(np.ndarray)


def _python_symbol(name: str) -> int:
    # Data and functions alike: the address the dynamic linker knows.
    value = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, name))
    assert value
    return value


class Support:
    """The addresses of the support code, and Python's ways into it."""

    def __init__(self, code: bytes | None = None) -> None:
        if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
            raise UnsupportedError("native execution needs CPython with the GIL; use the standard build of CPython")
        if ctypes.sizeof(ctypes.c_void_p) != 8 or object.__basicsize__ != 16:
            raise UnsupportedError("native execution needs a 64-bit release build of CPython")
        wanted = _wanted()
        key = _key(*wanted)
        if code is None:
            code = default_cache().get_or_make(key, lambda: compile_support(*wanted))
        else:
            default_cache().put(key, code)
        table = _array_api()
        new_array, array_type = table[_NEW_FROM_DESCR], table[_ARRAY_TYPE]
        if not isinstance(new_array, int) or array_type != array_type_address():
            raise UnsupportedError(f"NumPy {np.__version__} has another C API table than NumPy 1.26 and 2.x")
        symbols = {name: _python_symbol(name) for name in _PYTHON}
        symbols["PyArray_NewFromDescr"] = new_array
        # Workers may be inside when the interpreter ends, and builtins may outlive every module: never unmapped.
        self.object: LoadedObject = load_object(code, symbols, immortal=True)
        at = self.object.address
        self.symbols: dict[str, int] = {"diptych_barrier": at("diptych_barrier")}
        #: worker(pool, ith): returns when the pool is stopped; the GIL is released meanwhile
        self.worker = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(at("diptych_worker"))
        #: stop(pool) -> 1 when the pool was idle and its workers were told to leave
        self.stop = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(at("diptych_stop"))
        #: spin(n): n pauses, to measure how long one takes
        self.spin = ctypes.CFUNCTYPE(None, ctypes.c_int64)(at("diptych_spin"))
        #: give(descriptor, frame): put a frame on the free list, with the GIL held
        self.give = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(at("diptych_give"))
        self._new_builtin = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
            ("PyCFunction_NewEx", ctypes.pythonapi)
        )

    def builtin(self, name: str, descriptor: np.ndarray[Any, Any]) -> Any:
        """A builtin function over a descriptor: `diptych_call`, `diptych_try` or `diptych_into`."""
        return self._new_builtin(self.object.address(name + "_def"), descriptor, None)


_lock = threading.Lock()
_support: Support | None = None


def missing() -> tuple[int, bool] | None:
    """The arguments for `compile_support` if its code is needed and not in the cache."""
    wanted = _wanted()
    return wanted if _support is None and default_cache().get(_key(*wanted)) is None else None


def support(code: bytes | None = None) -> Support:
    """The support code of this process, loaded on first use; compiled then, unless the cache has it or it is given."""
    global _support
    if _support is None:
        with _lock:
            if _support is None:
                _support = Support(code)
    return _support
