"""Texts of the user's as pictures show them."""

from __future__ import annotations

from matplotlib.mathtext import MathTextParser


def as_drawn(text: str) -> str:
    """
    :param text: a label or a name; formulas between dollars are drawn as such
    :return: a text that matplotlib can draw: what is no formula that it reads, stands as it is
    """
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return text.replace("$", r"\$")
    return text
