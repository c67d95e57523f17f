"""Arguments as Python's own numbers and flags, or an error that names them."""

import math
from decimal import Decimal
from numbers import Real
from typing import Any


def plain_number(name: str, value: Any) -> float:
    """
    :param name: of the argument
    :param value: a number, as configurations have it: of Python, NumPy (also an array of no dimension) or PyTorch
    :return: Python's float, so that saved agents hold nothing else
    :raises ValueError: if it is no number, not finite or negative
    """
    value = _item(value)
    if isinstance(value, str):
        raise ValueError(f"{name} must be a number, not the text {value!r} (in YAML, write 1.0e-2 rather than 1e-2).")
    if callable(value):
        raise ValueError(f"{name} must be a number, not {value!r}: it takes no schedule. A callback may change it in place.")
    hint = " A weight of 0 switches its term off." if name.endswith("_coef") else ""
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise ValueError(f"{name} must be a number, not {value!r}.{hint}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must be finite and not negative, not {value}.{hint}")
    return number


def plain_flag(name: str, value: Any, choices: str = "True or False") -> bool:
    """
    :param name: of the argument
    :param value: Python's or NumPy's True or False
    :param choices: what the argument may be, for the message
    :raises ValueError: if it is neither
    """
    flag = _item(value)
    if not isinstance(flag, bool):
        raise ValueError(f"{name} must be {choices}, not {value!r}.")
    return flag


def plain_count(name: str, value: Any, of: str) -> int:
    """
    :param name: of the argument
    :param value: a positive whole number
    :param of: what it counts, for the message
    :raises ValueError: if it is none
    """
    count = _item(value)
    is_number = isinstance(count, (Real, Decimal)) and not isinstance(count, bool)
    if not is_number or not math.isfinite(count) or count != int(count) or count < 1:
        raise ValueError(f"{name} must be a positive whole number of {of}, not {value!r}.")
    return int(count)


def _item(value: Any) -> Any:
    """What scalars of NumPy and PyTorch hold, arrays of no dimension included."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
