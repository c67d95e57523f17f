"""Pictures of a grid's report and of a search: every number comes from them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sb3_pave.evaluation.drawn_text import as_drawn
from sb3_pave.evaluation.style import COLORS, STYLE, WIDTH, line_styles, marker_styles, span_at_least
from sb3_pave.experiments.front import pareto_front
from sb3_pave.experiments.titles import over_tasks_title, spread_name, task_title

# Where the largest sm is so many times the smallest, equal ratios take equal room
_LOG_FROM = 6.0

# Characters that a line of a title has room for
_TITLE_WIDTH = 90

_AXES = {"return": "return", "sm": "sm (lower is smoother)"}


def draw_all(report: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    """
    Every picture that a report has the numbers for.

    :param report: a report of :func:`sb3_pave.experiments.report.report`
    :return: by the title of each table, the pictures that belong to it by their file's name
    """
    names = method_names(report)
    drawn: dict[str, dict[str, Figure]] = {}
    for task in report["tasks"]:
        file = re.sub(r"[^\w.+-]+", "_", f"{task['environment']}-{task['steps']}")
        pictures = {f"front-{file}.png": front(task, names)}
        if any(one["curves"] for one in task["methods"]):
            pictures[f"learning-{file}.png"] = learning_curves(task, names)
        drawn[task_title(task)] = pictures
    if report["over_tasks"]:
        drawn[over_tasks_title(report)] = {"front-all-tasks.png": front_over_tasks(report)}
    return drawn


def method_names(report: Mapping[str, Any]) -> list[str]:
    """
    :param report: a report
    :return: the methods of all its tasks: each has one color in all pictures
    """
    return list(dict.fromkeys(one["method"] for task in report["tasks"] for one in task["methods"]))


def front(task: Mapping[str, Any], names: Sequence[str]) -> Figure:
    """
    Return against ``sm``: each run faintly, and the interquartile mean over runs with its 95 % intervals (of few runs, their
    range). The axis of the return spans at least the standard deviation of episodes, what one episode may differ from the next
    by chance.

    :param task: an entry of a report's ``tasks``
    :param names: all methods, which colors go by
    :return: the picture
    """
    shown = [one["method"] for one in task["methods"]]
    styles = {name: style for name, style in marker_styles(names).items() if name in shown}
    with _figure(_title(task, "runs (faint), their interquartile mean"), 4.6, styles, linestyle="none") as figure:
        ax = figure.subplots()
        for one in task["methods"]:
            sm, total = one["measures"]["sm"], one["measures"]["return"]
            ax.plot(sm["of_runs"], total["of_runs"], linestyle="none", markersize=5, alpha=0.35, **styles[one["method"]])
            _cross(ax, sm, total, styles[one["method"]])
        _scale_smoothness(ax, "x", [value for one in task["methods"] for value in one["measures"]["sm"]["of_runs"]])
        ax.set_xlabel(_AXES["sm"])
        ax.set_ylabel("return")
        ax.margins(0.1)
        span_at_least(ax, max(one["episode_std"] for one in task["methods"]))
    return figure


def front_over_tasks(report: Mapping[str, Any]) -> Figure:
    """
    The same over all tasks, relative to the reference method.

    :param report: a report with ``over_tasks``
    :return: the picture
    """
    shown = [one["method"] for one in report["over_tasks"]]
    styles = {name: style for name, style in marker_styles(method_names(report)).items() if name in shown}
    with _figure(f"{over_tasks_title(report)}: interquartile mean and 95 % interval", 4.2, styles, linestyle="none") as figure:
        ax = figure.subplots()
        for one in report["over_tasks"]:
            _cross(ax, one["sm"], one["return"], styles[one["method"]])
        for line in (ax.axhline, ax.axvline):
            line(1.0, color="0.5", linewidth=0.8, zorder=0)
        _scale_smoothness(ax, "x", [one["sm"]["iqm"] for one in report["over_tasks"]])
        ax.set_xlabel("sm, ratio (lower is smoother)")
        ax.set_ylabel("return, share")
        ax.margins(0.15)
        span_at_least(ax, 0.2)
    return figure


def learning_curves(task: Mapping[str, Any], names: Sequence[str]) -> Figure:
    """
    Return and ``sm`` over the steps: interquartile mean over runs, shaded its 95 % interval (of few runs, their range).

    :param task: an entry of a report's ``tasks``, with ``curves``
    :param names: all methods, which colors go by
    :return: the picture
    """
    drawn = [one for one in task["methods"] if one["curves"]]
    shown = [one["method"] for one in drawn]
    styles = {name: style for name, style in line_styles(names).items() if name in shown}
    with _figure(_title(task, "interquartile mean over runs"), 4.0, styles) as figure:
        for ax, measure in zip(figure.subplots(1, 2), _AXES, strict=True):
            for one in drawn:
                if (curve := one["curves"].get(measure)) is None:
                    continue
                ax.plot(curve["timesteps"], curve["iqm"], **styles[one["method"]])
                if None not in curve["low"]:
                    band = {"color": styles[one["method"]]["color"], "alpha": 0.15, "linewidth": 0}
                    ax.fill_between(curve["timesteps"], curve["low"], curve["high"], **band)
            ax.set_ylabel(_AXES[measure])
            ax.set_xlabel("timesteps")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda steps, _: f"{steps / 1000:g}k" if steps else "0"))
            if measure == "return":
                span_at_least(ax, max(one["episode_std"] for one in drawn))
            else:
                _scale_smoothness(ax, "y", [y for one in drawn for y in one["curves"].get("sm", {}).get("iqm", ())])
    return figure


def search_front(searched: Mapping[str, Any]) -> Figure:
    """
    Return against ``sm`` of every trial of a search, and which of them none other beats. The axis of the return spans at
    least the standard deviation of episodes.

    :param searched: a search, as :func:`sb3_pave.experiments.search_results.describe` has it
    :return: the picture
    :raises ValueError: if it has no trial with a result
    """
    trials = searched["trials"]
    if not trials:
        raise ValueError("the search has no trial with a result yet")
    chosen = pareto_front(trials)
    color, of_front, of_plain = COLORS[0], COLORS[1], COLORS[-1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        ax = figure.subplots()
        others = [trial for trial in trials if trial not in chosen]
        for feasible, face, label in ((True, color, "trial"), (False, "none", "trial that loses too much return")):
            shown = [trial for trial in others if trial["feasible"] is feasible]
            points = [[trial[name] for trial in shown] for name in ("sm", "return")]
            if shown:
                ax.plot(*points, "o", markersize=5, markerfacecolor=face, markeredgecolor=color, alpha=0.6, label=label)
        corners = [[trial[name] for trial in chosen] for name in ("sm", "return")]
        ax.plot(*corners, "s-", color=of_front, markersize=7, drawstyle="steps-post", label="Pareto front")
        for trial in chosen:
            ax.annotate(str(trial["number"]), (trial["sm"], trial["return"]), (5, 6), textcoords="offset points", fontsize=9)
        if searched["plain"] is not None:
            ax.plot(
                searched["plain"]["sm"], searched["plain"]["return"], "*", color=of_plain, markersize=13, label="plain agent"
            )
        if searched["least_return"] is not None:
            ax.axhline(searched["least_return"], color="0.5", linestyle="--", linewidth=1.0, label="least return")
        _scale_smoothness(ax, "x", [trial["sm"] for trial in trials])
        unit = "" if len(searched["environments"]) == 1 else ", relative to the plain agent"
        ax.set_xlabel(_AXES["sm"] + unit)
        ax.set_ylabel(f"return{unit}")
        ax.margins(0.08)
        span_at_least(ax, float(np.median([trial["episode_std"] for trial in trials])))
        tasks = ", ".join(f"{name} ({steps} steps)" for name, steps in searched["environments"].items())
        figure.suptitle(f"{searched['algorithm']} on {tasks}: {len(trials)} trials", fontsize=11)
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def _title(task: Mapping[str, Any], means: str) -> str:
    spread = spread_name(task)
    return f"{task_title(task)}: " + (f"{means} and {spread}" if spread else "a run each")


@contextmanager
def _figure(title: str, height: float, styles: Mapping[str, Any], **legend: Any) -> Iterator[Figure]:
    """A figure with its title, and a legend of the methods."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        # Rather between what it is and how it is shown than before the last word
        lines = [title] if len(title) <= _TITLE_WIDTH else title.split(": ", 1)
        figure.suptitle("\n".join(textwrap.fill(line, _TITLE_WIDTH) for line in map(as_drawn, lines)), fontsize=11)
        yield figure
        handles = [Line2D([], [], label=as_drawn(name), **style, **legend) for name, style in styles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)


def _cross(ax: Axes, sm: Mapping[str, Any], total: Mapping[str, Any], style: Mapping[str, Any]) -> None:
    """The interquartile mean of both, with its intervals."""
    errors: dict[str, Any] = {}
    if sm["low"] is not None and total["low"] is not None:
        for key, one in (("xerr", sm), ("yerr", total)):
            errors[key] = [[one["iqm"] - one["low"]], [one["high"] - one["iqm"]]]
    ax.errorbar(sm["iqm"], total["iqm"], markersize=9, capsize=3, linestyle="none", **errors, **style)


def _scale_smoothness(ax: Axes, which: Literal["x", "y"], values: Iterable[float | None]) -> None:
    """A logarithmic axis where the values differ by a large factor, with plain numbers."""
    positive = [value for value in values if value is not None and value > 0.0]
    if not positive or max(positive) < _LOG_FROM * min(positive):
        return
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
