"""Whether ``load()`` is at work, which calls the constructor before it knows what the agent is."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_at_work = ContextVar("_at_work", default=False)


@contextmanager
def loading() -> Iterator[None]:
    """Inside, ``is_loading`` is true, in this thread."""
    outer = _at_work.set(True)
    try:
        yield
    finally:
        _at_work.reset(outer)


def is_loading() -> bool:
    """Whether an agent is being loaded."""
    return _at_work.get()
