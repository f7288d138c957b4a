"""Is numba there, and how does Karyon use it?

Kernels are compiled once and kept on disk, and release the GIL. Without numba every kernel has a library path that
gives the same nuclei, several times slower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import numba
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    HAVE_NUMBA = True
except ImportError:
    HAVE_NUMBA = False

Array = npt.NDArray[Any]
"""An array that a kernel reads or fills; its docstring or caller says of what shape and dtype."""


_KERNEL_FILES = ("flood", "flood_queue", "jit", "landscape", "markers", "rings", "runs", "sobel", "tally", "tidying")
# Contents, not times of change: copying into an image cuts those to whole seconds, and all would be compiled anew.
_STAMP = hashlib.sha256(b"".join(Path(__file__).with_stem(stem).read_bytes() for stem in _KERNEL_FILES)).hexdigest()


def fit_for_kernel(array: npt.NDArray[Any], dtype: type[np.generic]) -> Array:
    """The array, or a copy of the one kind that kernels are compiled for: C-contiguous, writeable, of this dtype."""
    if type(array) is np.ndarray and array.dtype == dtype:  # np.require takes its time to find that nothing is to do
        flags = array.flags
        if flags.c_contiguous and flags.writeable:
            return array
    return np.require(array, dtype, ["C", "W"])


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call, keep on disk if there is a place, release the GIL; the plain function without numba.

    A kernel that Python calls returns no array but fills those it is given: an array made by a kernel that was kept on
    disk as a part of another one cannot be handed out. No fast-math: sums keep their order, so a kernel's numbers
    equal NumPy's to the last bit.
    """
    if not HAVE_NUMBA:
        return function
    try:
        compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # nothing can be written: neither beside this file, nor at home, nor in NUMBA_CACHE_DIR
        return numba.njit(nogil=True, error_model="numpy")(function)
    kept = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if kept is not None:  # numba looks at the kernel's own file alone, but kernels of other files are compiled into it
        kept._source_stamp = _STAMP
    return compiled


def _count_zeros(_context: Any, _word: Any) -> Any:
    def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.int64(types.uint64), build


def _lowest_bit(word: Any) -> int:
    return (int(word) & -int(word)).bit_length() - 1


lowest_bit: Any = intrinsic(_count_zeros) if HAVE_NUMBA else _lowest_bit
"""Index, int64, of the lowest set bit of a uint64 that has one; in kernels one instruction of the machine."""


def _fetch(_context: Any, array: Any, _index: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")  # type: ignore[no-untyped-call]
        builder.call(hint, [place, number(0), number(3), number(1)])  # to read, often, data
        return context.get_dummy_value()

    return types.none(array, types.int64), build


def _leave(_array: Array, _index: int) -> None:
    return None


prefetch: Any = intrinsic(_fetch) if HAVE_NUMBA else _leave
"""Bring the element of a flat C-contiguous array near, with its neighbours in 64 bytes, without waiting for it."""
