"""Pictures of a report: every number comes from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sb3_pave.evaluation.aggregate import aggregate, defined
from sb3_pave.evaluation.drawn_text import as_drawn
from sb3_pave.evaluation.labels import label
from sb3_pave.evaluation.report import algorithms, runs_of
from sb3_pave.evaluation.smoothness import action_spectrum
from sb3_pave.evaluation.spectra import mean_spectrum, scaled_trace
from sb3_pave.evaluation.style import MARKERS, STYLE, WIDTH, line_styles, shown_dims, span_at_least

_MAX_TRACED = 3
_BOUND: Any = {"color": "black", "linestyle": "-", "linewidth": 1.2}


class _Need(NamedTuple):
    """
    What a run must have for a picture.

    :param is_met: whether a run of a report has it
    :param what: what it is called
    :param remedy: how it is got, as the end of a sentence
    """

    is_met: Callable[[Mapping[str, Any]], bool]
    what: str
    remedy: str = ""


_NEEDED = {
    "scatter": _Need(lambda run: bool(len(defined(run["episodes"]["return"]))), "finite return"),
    "robustness": _Need(lambda run: "robustness" in run, "robustness", ": measure it with --robustness"),
    "surfaces": _Need(lambda run: "surface" in run, "surface", ": measure it with --surface"),
    "training": _Need(lambda run: "training" in run, "training", ": measure it with SmoothnessEvalCallback in training"),
}


def draw(kind: str, report: Mapping[str, Any]) -> Figure:
    """
    Draw one of :data:`PICTURES`, of the runs that have the numbers for it.

    :param kind: its name
    :param report: the report
    :return: the picture
    :raises ValueError: if no run of the report has the numbers for it
    """
    return PICTURES[kind](report)


def left_out(kind: str, report: Mapping[str, Any]) -> list[str]:
    """
    :param kind: name of one of :data:`PICTURES`
    :param report: the report
    :return: the runs that lack the numbers for it
    """
    return [f"{run['algorithm']} {run['run']}" for run in report["runs"] if _lacks(kind, run)]


def action_traces(report: Mapping[str, Any]) -> Figure:
    """
    The actions of one episode, the algorithms side by side: the first episode of each one's first run.

    :param report: a report
    :return: the picture; of more than three action dimensions, the first three, as its title says
    """
    names, rate = algorithms(report), report["settings"]["control_rate"]
    traces = [np.array(runs_of(report, name)[0]["trace"]["actions"]) for name in names]
    n_actions = traces[0].shape[1]
    n_rows = min(_MAX_TRACED, n_actions)
    of_all = "" if n_rows == n_actions else f", {shown_dims(n_rows, n_actions)}"
    with _figure(report, height=1.2 + 1.5 * n_rows, more=of_all) as (figure, styles):
        axes = figure.subplots(n_rows, len(names), sharex=True, sharey="row", squeeze=False)
        for style in styles.values():  # each has a panel of its own: no need for dashes
            style.update(linestyle="-", linewidth=1.1)
        for column, (name, actions) in enumerate(zip(names, traces, strict=True)):
            bounds = runs_of(report, name)[0]["trace"]
            for row in range(n_rows):
                ax = axes[row, column]
                ax.plot(np.arange(len(actions)) / rate, actions[:, row], **styles[name])
                for bound in (bounds["low"][row], bounds["high"][row]):
                    if bound is not None:
                        ax.axhline(bound, color="0.5", linestyle=":", linewidth=1.0)
        for row in range(n_rows):
            axes[row, 0].set_ylabel("action\n(environment's unit)" if n_rows == 1 else f"action {row}")
        for ax in axes[-1]:
            ax.set_xlabel(_time_label(rate))
        _legend(figure, styles, Line2D([], [], color="0.5", linestyle=":", label="bounds"))
    return figure


def spectra(report: Mapping[str, Any]) -> Figure:
    """
    Energy spectra of the actions of one episode of each run, in half action ranges squared; mean over the action
    dimensions and the runs.

    :param report: a report
    :return: the picture
    """
    rate = report["settings"]["control_rate"]
    with _figure(report, height=3.4) as (figure, styles):
        ax = figure.subplots()
        for name in algorithms(report):
            traces = [scaled_trace(run) for run in runs_of(report, name)]
            for trace in traces:
                frequencies, energy = action_spectrum(trace, rate)
                ax.plot(frequencies[1:], energy.mean(axis=1)[1:], alpha=0.3, **{**styles[name], "linewidth": 0.7})
            ax.plot(*mean_spectrum(traces, rate), **styles[name])
        ax.set_yscale("log")
        ax.set_xlabel("frequency (Hz)" if rate != 1 else "frequency (cycles a step)")
        ax.set_ylabel("energy of the action\n(half range²)")
        _legend(figure, styles)
    return figure


def return_and_smoothness(report: Mapping[str, Any]) -> Figure:
    """
    Return against ``sm``: each run faintly, and the interquartile mean over runs with its 95 % intervals, which are the
    ranges of fewer than five runs. The axis of the return spans at least the standard deviation of episodes.

    :param report: a report
    :return: the picture
    :raises ValueError: if no run has an episode of finite return
    """
    report = _having("scatter", report)
    with _figure(report, height=3.6) as (figure, styles):
        ax = figure.subplots()
        for name in algorithms(report):
            runs = [run["episodes"] for run in runs_of(report, name)]
            marker = {"color": styles[name]["color"], "marker": MARKERS[list(styles).index(name) % len(MARKERS)]}
            for run in runs:
                ax.plot(np.mean(run["sm"]), defined(run["return"]).mean(), markersize=5, alpha=0.35, **marker)
            sm, total = aggregate([run["sm"] for run in runs]), aggregate([run["return"] for run in runs])
            errors: Any = {}
            if sm.n_runs > 1:
                errors = {
                    "xerr": [[sm.iqm - sm.low], [sm.high - sm.iqm]],
                    "yerr": [[total.iqm - total.low], [total.high - total.iqm]],
                }
            ax.errorbar(sm.iqm, total.iqm, markersize=9, capsize=3, linestyle="none", **errors, **marker)
            styles[name].update(marker=marker["marker"], linestyle="none")
        ax.set_xlabel("smoothness score sm (lower is smoother)")
        ax.set_ylabel("return")
        ax.margins(0.15)
        span_at_least(ax, _episode_std(report))
        _legend(figure, styles)
    return figure


def robustness_curves(report: Mapping[str, Any]) -> Figure:
    """
    Return and ``sm`` against the noise level: interquartile mean over runs, shaded its 95 % interval, which is the range of
    fewer than five runs. The axis of the return spans at least the standard deviation of episodes.

    :param report: a report with ``robustness``
    :return: the picture
    :raises ValueError: if no run has it
    """
    report = _having("robustness", report)
    with _figure(report, height=3.4) as (figure, styles):
        panels = figure.subplots(1, 2)
        for name in algorithms(report):
            runs = runs_of(report, name)
            levels = [entry["noise_level"] for entry in runs[0]["robustness"]]
            for ax, measure in zip(panels, ("return", "sm"), strict=True):
                results = [aggregate([run["robustness"][i]["episodes"][measure] for run in runs]) for i in range(len(levels))]
                ax.plot(levels, [result.iqm for result in results], marker="o", markersize=4, **styles[name])
                _band(ax, levels, [result.low for result in results], [result.high for result in results], styles[name])
        for ax, label in zip(panels, ("return", "smoothness score sm"), strict=True):
            ax.set_ylabel(label)
            ax.set_xlabel("sensor noise (standard deviations)")
        span_at_least(panels[0], _episode_std(report))
        _legend(figure, styles)
    return figure


def surfaces(report: Mapping[str, Any]) -> Figure:
    r"""
    The Q-gradient field of each algorithm's first run, on the same axes and one height scale, clipped at the 99th
    percentile of the roughest of them.

    :param report: a report with ``surface``
    :return: the picture
    :raises ValueError: if no run has one
    """
    report = _having("surfaces", report)
    names = algorithms(report)
    of_first = {name: runs_of(report, name)[0]["surface"] for name in names}
    top = max(float(np.percentile(one["heights"], 99)) for one in of_first.values())
    top = top or 1.0  # a linear critic is flat at 0
    scale = Normalize(0.0, top)
    # The constrained layout does not see the labels of three-dimensional axes
    with _figure(report, height=4.2, layout=None) as (figure, _):
        figure.subplots_adjust(left=0.0, right=0.86, bottom=0.12, top=0.85, wspace=0.08)
        axes = figure.subplots(1, len(names), subplot_kw={"projection": "3d"}, squeeze=False)[0]
        for ax, name in zip(axes, names, strict=True):
            one = of_first[name]
            state, action = np.array(one["state_axis"]), np.array(one["action_axis"])
            heights = np.minimum(one["heights"], top)
            mesh = np.meshgrid(state, action, indexing="ij")
            ax.plot_surface(*mesh, heights, cmap="cividis", norm=scale, rcount=50, ccount=50, linewidth=0, alpha=0.9)
            for bound in (-1.0, 1.0):
                if action.min() <= bound <= action.max():
                    column = int(np.abs(action - bound).argmin())
                    ax.plot(state, np.full_like(state, action[column]), heights[:, column], zorder=10, **_BOUND)
            ax.set(zlim=(0.0, top), title=as_drawn(label(name)))
            ax.set_xlabel(f"observation {one['state_index']}", labelpad=2)
            ax.set_ylabel(f"action {one['action_index']} (half ranges)", labelpad=2)
            for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
                axis.set_major_locator(MaxNLocator(4))
            ax.tick_params(labelsize=9, pad=0)
            ax.view_init(elev=28, azim=-55)
        bar = figure.add_axes((0.88, 0.25, 0.015, 0.5))
        figure.colorbar(ScalarMappable(scale, "cividis"), cax=bar, label=r"$\|\nabla^2_{sa} Q\|_2$")
        figure.legend(handles=[Line2D([], [], label="bounds of the action", **_BOUND)], loc="lower center")
    return figure


def training_curves(report: Mapping[str, Any]) -> Figure:
    """
    What was measured while the agents were trained: return, ``sm`` and, if it is there, the critic's geometry. A line for
    each run, a thick one for their mean. The axis of the return spans at least the standard deviation of episodes.

    :param report: a report whose runs had an ``evaluations.npz`` of ``SmoothnessEvalCallback``
    :return: the picture
    :raises ValueError: if no run has one
    """
    report = _having("training", report)
    wanted = {
        "return": ("return", "timesteps"),
        "sm": ("smoothness score sm", "timesteps"),
        "geometry_M_mean": (r"mean $\|\nabla^2_{sa} Q\|_2$", "geometry_timesteps"),
        "geometry_negative_definite_rate": ("concave states", "geometry_timesteps"),
    }
    shown = {key: value for key, value in wanted.items() if any(_curve(run, key) for run in report["runs"])}
    n_rows = (len(shown) + 1) // 2
    with _figure(report, height=0.8 + 2.1 * n_rows) as (figure, styles):
        axes = figure.subplots(n_rows, min(2, len(shown)), sharex=True, squeeze=False).ravel()
        for ax, (key, (text, time)) in zip(axes, shown.items(), strict=False):
            for name in algorithms(report):
                curves = [(run["training"][time], _curve(run, key)) for run in runs_of(report, name) if _curve(run, key)]
                for steps, values in curves:
                    ax.plot(steps, values, alpha=0.35, **{**styles[name], "linewidth": 0.8})
                if curves and all(steps == curves[0][0] for steps, _ in curves):
                    # With a gap where one of them is not finite
                    mean = np.array([values for _, values in curves], dtype=float).mean(axis=0)
                    ax.plot(curves[0][0], mean, **styles[name])
            ax.set_ylabel(text)
            ax.set_xlabel("timesteps")
            if key == "return":
                span_at_least(ax, _episode_std(report))
            if key.endswith("rate"):
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        for ax in axes[len(shown) :]:
            ax.remove()
        _legend(figure, styles)
    return figure


#: Every picture, by the name the command knows it by
PICTURES: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "traces": action_traces,
    "spectra": spectra,
    "scatter": return_and_smoothness,
    "robustness": robustness_curves,
    "surfaces": surfaces,
    "training": training_curves,
}


@contextmanager
def _figure(
    report: Mapping[str, Any], height: float, layout: Any = "constrained", more: str = ""
) -> Iterator[tuple[Figure, dict[str, Any]]]:
    """A figure with its title, and what more that has to say, and the line style of each algorithm."""
    styles = line_styles(algorithms(report))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout=layout)
        actions = "deterministic" if report["settings"]["deterministic"] else "stochastic"
        figure.suptitle(f"{report['environment']}, {actions} actions{more}", fontsize=11)
        yield figure, styles


def _episode_std(report: Mapping[str, Any]) -> float:
    """What one episode's return may differ from the next by chance: the largest of the algorithms, of the median run."""
    stds = []
    for name in algorithms(report):
        returns = [defined(run["episodes"]["return"]) for run in runs_of(report, name)]
        if any(map(len, returns)):
            stds.append(np.median([values.std() for values in returns if len(values)]))
    return float(max(stds, default=0.0))


def _legend(figure: Figure, styles: Mapping[str, Mapping[str, Any]], *more: Line2D) -> None:
    handles = [Line2D([], [], label=as_drawn(label(name)), **style) for name, style in styles.items()]
    figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=4)


def _band(ax: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], style: Mapping[str, Any]) -> None:
    if np.isfinite(low).all():
        ax.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _curve(run: Mapping[str, Any], key: str) -> list[float]:
    return run["training"].get(key, [])


def _having(kind: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of those runs that have what a picture needs."""
    runs = [run for run in report["runs"] if not _lacks(kind, run)]
    if not runs:
        need = _NEEDED[kind]
        raise ValueError(f"The report has no {need.what} of {', '.join(left_out(kind, report))}{need.remedy}")
    return {**report, "runs": runs}


def _lacks(kind: str, run: Mapping[str, Any]) -> bool:
    return kind in _NEEDED and not _NEEDED[kind].is_met(run)


def _time_label(rate: float) -> str:
    return "time (s)" if rate != 1 else "step"
