"""Freed memory stays in the process, on the C library that would give it back."""

import platform
import subprocess
import sys

import pytest

from sb3_pave.fast.heap import keep_freed_memory

PROGRAM = """
import resource, sys
import torch as th
from sb3_pave.fast.heap import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
    keep_freed_memory()

def work():
    return sum(len(tensor) for tensor in [th.ones(300, 1000) for _ in range(20)])  # 24 MB, freed together

work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_taken(mode):
    program = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_an_update_does_not_take_its_memory_from_the_system_anew():
    assert pages_taken("keep") < 0.2 * pages_taken("as it is")


def test_a_threshold_that_the_user_has_set_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("would replace it"))
    keep_freed_memory.__wrapped__()
