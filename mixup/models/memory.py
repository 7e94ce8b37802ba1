"""What becomes of memory that is freed, in a process that runs a model on a CPU."""

from __future__ import annotations

import contextlib
import ctypes


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is allocated next, in this process, from now on.

    By default it gives arrays of megabytes back to the system at once, and every forward pass
    gets its activations page by page again: a tenth to a quarter of the time of a small encoder,
    and a twelfth of an engine's. Without effect where the C library is another.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGE)


def give_back_freed_memory() -> None:
    """Have glibc give all that is free back to the system, some hundredths of a second of work.

    What is kept lies in pieces between what is in use, and batches of ever other shapes find ever
    fewer that fit: after some thousand texts an encoder would hold twice what it needs.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE = 1 << 30
