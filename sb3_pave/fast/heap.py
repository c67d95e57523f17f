"""The C library's heap, between updates; every number equals the one without it."""

from functools import cache

import torch as th

_BLOCK = 31 * 2**20  # bytes; glibc learns from blocks of less than 32 MiB


@cache
def keep_freed_memory() -> None:
    """
    Let the process keep the memory that an update frees for the next one.

    By default glibc gives it back to the system as soon as some hundred kilobytes lie free at the heap's end, and the next
    update waits for the system to clear every page anew. How much may lie free follows the largest block that was allocated
    and freed, so that one of 31 MiB, which is never written to, makes it 62 MiB.
    Other C libraries are not affected, nor is a process with ``MALLOC_TRIM_THRESHOLD_`` in its environment.
    """
    th.empty(_BLOCK, dtype=th.uint8)
