"""Numbers and what holds them, as data that JSON knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def plain(data: Any, digits: int | None = None) -> Any:
    """
    :param data: mappings, sequences, strings and numbers, of NumPy too
    :param digits: significant digits that floats are rounded to; None keeps them as they are
    :return: dicts, lists and Python's numbers; None for numbers that are not finite
    """
    if isinstance(data, Mapping):
        return {str(key): plain(value, digits) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value, digits) for value in data]
    if hasattr(data, "tolist"):  # NumPy's arrays and scalars
        return plain(data.tolist(), digits)
    if isinstance(data, float):
        if not math.isfinite(data):
            return None
        return data if digits is None else float(f"{data:.{digits}g}")
    return data
