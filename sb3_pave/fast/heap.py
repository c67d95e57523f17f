"""The C library's heap, between updates; every number equals the one without it."""

import ctypes
import os
from functools import cache

# glibc's names for what may lie free at the heap's end, and from which size on blocks are not of the heap (it takes no more)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST_BLOCK = 256 * 2**20, 32 * 2**20  # bytes


@cache
def keep_freed_memory() -> None:
    """
    Let the process keep the memory that an update frees for the next one, up to 256 MiB.

    By default glibc gives it back to the system as soon as some hundred kilobytes lie free at the heap's end, and the next
    update waits for the system to clear every page anew: a new matrix then takes ten times as long as the sum written into it.
    Other C libraries are not affected, nor is a process with ``MALLOC_TRIM_THRESHOLD_`` in its environment.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not there, or no such handle: Windows
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
