"""The picture of a film: agents side by side, the traces of their actions below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sb3_pave.evaluation.drawn_text import as_drawn
from sb3_pave.evaluation.smoothness import smoothness_score
from sb3_pave.evaluation.style import COLORS
from sb3_pave.evaluation.takes import FilmError, Take

#: How long the last image of an episode stays, in seconds
HOLD = 1.0
SHORTEST = 160

# The picture in inches at a nominal size, from the top; the height that is asked for sets how many pixels an inch has
_TITLE, _LABEL, _PICTURE, _CAPTION, _TRACE, _GAP, _TIME, _FOOT = 0.3, 0.26, 2.4, 0.34, 0.7, 0.14, 0.44, 0.26
_LEFT, _BETWEEN, _RIGHT = 0.62, 0.3, 0.2
_NARROWEST = 2.2
# Words that are too long are made smaller down to this size in points, then broken into two lines, then cut
_SMALLEST = 7.0
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.3,
}


@dataclass(frozen=True)
class Script:
    """
    What stands in a film.

    :param title: its title
    :param labels: what each agent is called
    :param action_dims: the action dimensions whose traces are drawn
    :param control_rate: steps a second, for the axis of time; 1 counts in steps
    :param height: height of the whole picture in pixels, even
    """

    title: str
    labels: Sequence[str]
    action_dims: Sequence[int]
    control_rate: float
    height: int

    def __post_init__(self) -> None:
        if self.height < SHORTEST or self.height % 2:
            raise ValueError(f"the height of a film must be an even number of at least {SHORTEST} pixels; got {self.height}")

    @property
    def dpi(self) -> float:
        """Pixels an inch."""
        traces = len(self.action_dims) * (_TRACE + _GAP)
        return self.height / (_TITLE + _LABEL + _PICTURE + _CAPTION + traces + _TIME + _FOOT)

    @property
    def image_height(self) -> int:
        """Height of an agent's image in pixels."""
        return round(_PICTURE * self.dpi)


def check_dims(dims: Sequence[int], n_actions: int) -> None:
    """
    :param dims: the action dimensions to be drawn
    :param n_actions: how many there are
    :raises FilmError: if there is no such action
    """
    wrong = [dim for dim in dims if not 0 <= dim < n_actions]
    if wrong:
        raise FilmError(f"there is no action {wrong[0]}: the environment has {n_actions}, counted from 0")


def film_frames(takes: Sequence[Take], script: Script, fps: float) -> Iterator[NDArray[np.uint8]]:
    """
    The images of a film of one episode. An agent whose episode ends before that of another stays, greyed, as it ended.

    :param takes: a take of each agent, of the same shot
    :param script: what stands in the film
    :param fps: images a second
    :return: the images, of shape ``(height, width, 3)``, RGB, width and height even; the last one stays for :data:`HOLD`
    :raises FilmError: if there is no action dimension of that number
    """
    sheet, longest = _Sheet(takes, script), _longest(takes)
    for frame in range(longest):
        yield sheet.draw(frame)
    last = sheet.draw(longest)
    for _ in range(longest, n_frames(takes, fps)):
        yield last


def n_frames(takes: Sequence[Take], fps: float) -> int:
    """
    :param takes: a take of each agent
    :param fps: images a second
    :return: how many images :func:`film_frames` makes of them
    """
    return _longest(takes) + max(1, round(HOLD * fps))


def _longest(takes: Sequence[Take]) -> int:
    """The number of images of the take that has the most of them."""
    return max(len(take.images) for take in takes)


@dataclass
class _Column:
    """What moves in the column of one agent."""

    take: Take
    corner: tuple[int, int]
    """Row and column of its image's upper left pixel."""
    total: Text
    score: Text
    over: Text
    lines: list[Line2D]
    heads: list[Line2D]


class _Sheet:
    """What stays is drawn once; what moves, anew in each image."""

    def __init__(self, takes: Sequence[Take], script: Script):
        check_dims(script.action_dims, takes[0].actions.shape[1])
        self.takes, self.script = takes, script
        image_width = takes[0].images[0].shape[1] / script.dpi
        self.column_width = max(_NARROWEST, image_width)
        inches = _LEFT + len(takes) * self.column_width + (len(takes) - 1) * _BETWEEN + _RIGHT
        self.width = 2 * round(inches * script.dpi / 2)
        with mpl.rc_context(_STYLE):
            self.figure = Figure(figsize=(self.width / script.dpi, script.height / script.dpi), dpi=script.dpi)
            self.canvas = FigureCanvasAgg(self.figure)
            self.columns = [self._column(i, take) for i, take in enumerate(takes)]
            self._words()
            self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(self.figure.bbox)

    def draw(self, frame: int) -> NDArray[np.uint8]:
        """:return: the image of that number; beyond the last one, the end of every episode"""
        self.canvas.restore_region(self.background)
        canvas = np.asarray(self.canvas.buffer_rgba())[..., :3]  # a view: what is drawn later comes on top
        longest = _longest(self.takes)
        for column in self.columns:
            self._move(column, frame)
            top, left = column.corner
            image = column.take.images[min(frame, len(column.take.images) - 1)]
            is_over = len(column.take.images) < longest and frame >= len(column.take.images)
            canvas[top : top + image.shape[0], left : left + image.shape[1]] = _greyed(image) if is_over else image
            if is_over:
                self.figure.draw_artist(column.over)
        return canvas.copy()

    def _move(self, column: _Column, frame: int) -> None:
        take = column.take
        step = take.steps[frame] if frame < len(take.images) else len(take.actions) - 1
        shown = np.arange(take.steps[0], step + 1)
        for line, head, dim in zip(column.lines, column.heads, self.script.action_dims, strict=True):
            line.set_data(shown / self.script.control_rate, take.actions[shown, dim])
            head.set_data(shown[-1:] / self.script.control_rate, take.actions[shown[-1:], dim])
        column.total.set_text(f"return {_number(column.take.returns[step])}")
        column.score.set_text(f"sm {smoothness_score(take.actions[: step + 1]):.2f}")
        for artist in (*column.lines, *column.heads, column.total, column.score):
            self.figure.draw_artist(artist)

    def _column(self, i: int, take: Take) -> _Column:
        script, dpi = self.script, self.script.dpi
        color = COLORS[i % len(COLORS)]
        x0 = _LEFT + i * (self.column_width + _BETWEEN)
        x1 = x0 + self.column_width
        image_width = take.images[0].shape[1]
        top = round((_TITLE + _LABEL) * dpi)
        left = round((x0 + x1) / 2 * dpi - image_width / 2)
        name = self._text(
            (x0 + x1) / 2, _TITLE + _LABEL / 2, script.labels[i], ha="center", color=color, weight="bold", size=11.5
        )
        self._fit(name, self.column_width)
        below = _TITLE + _LABEL + _PICTURE + 0.45 * _CAPTION
        axes = [self._axes(i, row, x0, take) for row in range(len(script.action_dims))]
        return _Column(
            take,
            (top, left),
            total=self._text(x0, below, "", animated=True),
            score=self._text(x1, below, "", animated=True, ha="right", weight="bold", color=color),
            over=self._text(
                *((x0 + x1) / 2, _TITLE + _LABEL + 0.2 * _PICTURE, f"ended after {len(take.actions)} steps"),
                animated=True,
                ha="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 4},
            ),
            lines=[ax.plot([], [], color=color, animated=True)[0] for ax in axes],
            heads=[ax.plot([], [], "o", color=color, markersize=3.5, animated=True, clip_on=False)[0] for ax in axes],
        )

    def _axes(self, i: int, row: int, x0: float, take: Take) -> Axes:
        script = self.script
        dim = script.action_dims[row]
        bottom = _TIME + _FOOT + (len(script.action_dims) - 1 - row) * (_TRACE + _GAP)
        width, height = self.width / script.dpi, script.height / script.dpi
        ax = self.figure.add_axes((x0 / width, bottom / height, self.column_width / width, _TRACE / height))
        first = take.steps[0]
        last = max(max(len(take.actions) for take in self.takes) - 1, first + 1)
        ax.set_xlim(first / script.control_rate, last / script.control_rate)
        low, high = self._limits(dim)
        margin = 0.1 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
        for bound in (take.low[dim], take.high[dim]):
            if np.isfinite(bound):
                ax.axhline(bound, color="0.5", linestyle=":", linewidth=1.0)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_yticks([low, (low + high) / 2, high], [_number(tick, ".3g") for tick in (low, (low + high) / 2, high)])
        ax.tick_params(labelsize=8.5, length=2, labelleft=i == 0, labelbottom=row == len(script.action_dims) - 1)
        if i == 0:
            ax.set_ylabel("action" if take.actions.shape[1] == 1 else f"action {dim}", fontsize=9)
            ax.yaxis.set_label_coords(-0.42 / self.column_width, 0.5)
        if row == len(script.action_dims) - 1:
            ax.set_xlabel("step" if script.control_rate == 1 else "time (s)", fontsize=9, labelpad=1)
        return ax

    def _limits(self, dim: int) -> tuple[float, float]:
        """The bounds of the action, or how far it went where it has none."""
        low, high = self.takes[0].low[dim], self.takes[0].high[dim]
        filmed = np.concatenate([take.actions[take.steps[0] :, dim] for take in self.takes])
        return (
            float(low if np.isfinite(low) else filmed.min()),
            float(high if np.isfinite(high) else filmed.max()),
        )

    def _words(self) -> None:
        width = self.width / self.script.dpi - _LEFT - _RIGHT
        self._fit(self._text(_LEFT, 0.55 * _TITLE, self.script.title, size=9, color="0.35"), width)
        bounds = any(
            np.isfinite([take.low[dim], take.high[dim]]).any() for take in self.takes for dim in self.script.action_dims
        )
        foot = "sm: smoothness score of the actions so far, lower is smoother" + ("; dotted: bounds" if bounds else "")
        self._fit(self._text(_LEFT, self.script.height / self.script.dpi - 0.5 * _FOOT, foot, size=8, color="0.35"), width)

    def _text(self, x: float, y: float, words: str, **style: Any) -> Text:
        """Words at so many inches from the left and the top, centred on the line."""
        width, height = self.width / self.script.dpi, self.script.height / self.script.dpi
        return self.figure.text(x / width, 1.0 - y / height, as_drawn(words), va="center_baseline", **style)

    def _fit(self, text: Text, width: float) -> None:
        """Make words smaller, or break them into two lines, until they are no wider than so many inches."""
        words, size = text.get_text(), float(text.get_fontsize())

        def too_wide() -> float:
            return text.get_window_extent(self.canvas.get_renderer()).width / (width * self.script.dpi)

        if (ratio := too_wide()) <= 1.0:
            return
        text.set_fontsize(max(_SMALLEST, 0.98 * size / ratio))
        if too_wide() <= 1.0:
            return
        # A part of a formula is none
        words = words.replace(r"\$", "$")
        text.set(fontsize=_SMALLEST, va="center", linespacing=1.0, parse_math=False)
        for length in range(len(words), 1, -1):
            text.set_text("\n".join(textwrap.wrap(words, length, max_lines=2, placeholder="…")))
            if too_wide() <= 1.0:
                return


def _greyed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (0.45 * image + 0.55 * 255).astype(np.uint8)


def _number(value: float, form: str = "") -> str:
    form = form or (".0f" if abs(value) >= 100 else ".1f")
    return f"{value:{form}}".replace("-", "\N{MINUS SIGN}")
