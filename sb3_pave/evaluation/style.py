"""How our pictures look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Okabe and Ito's palette, told apart by all; marks and dashes help in print, and where there are more
#: than colors: their numbers have no common divisor
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 1, 2)))

#: As wide as a README shows them, at two pixels for each of its own
WIDTH, DPI = 8.4, 200
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}


def line_styles(names: Sequence[str]) -> dict[str, Any]:
    """
    :param names: what is told apart: algorithms, methods
    :return: color and dashes of each one's lines, as matplotlib takes them
    """
    return {name: {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)]} for i, name in enumerate(names)}


def marker_styles(names: Sequence[str]) -> dict[str, Any]:
    """
    :param names: what is told apart: algorithms, methods
    :return: color and marker of each one's points, as matplotlib takes them
    """
    return {name: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]} for i, name in enumerate(names)}


def span_at_least(ax: Any, span: float) -> None:
    """
    Widen the limits of a vertical axis around their middle, so that what is small does not look large.

    :param ax: axes of matplotlib, with all that they show drawn
    :param span: least difference of the limits
    """
    low, high = ax.get_ylim()
    missing = span - (high - low)
    if missing > 0:
        ax.set_ylim(low - missing / 2.0, high + missing / 2.0)


def shown_dims(n_shown: int, n_actions: int) -> str:
    """
    :param n_shown: how many action dimensions are drawn, the first ones
    :param n_actions: how many there are
    :return: what a title says of it
    """
    return f"actions 0-{n_shown - 1} of {n_actions}"
