"""Pictures: the numbers in them are those of the report, the axes are labelled, there is one legend."""

import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

pytest.importorskip("matplotlib")
pytest.importorskip("rliable")

from sb3_pave.commands.plot import KINDS, main
from sb3_pave.evaluation import plots
from sb3_pave.evaluation.drawn_text import as_drawn
from sb3_pave.evaluation.labels import label
from sb3_pave.evaluation.tables import MEASURES


def entry(algorithm, number, rng, n_steps):
    def episodes():
        return {name: rng.normal(number, 1.0, 3).tolist() for name in MEASURES}

    return {
        "algorithm": algorithm,
        "run": f"run_{number}",
        "model": "",
        "episodes": episodes(),
        "trace": {"actions": rng.uniform(-2, 2, (n_steps, 1)).tolist(), "low": [-2.0], "high": [2.0]},
        "robustness": [{"noise_level": level, "episodes": episodes()} for level in (0.0, 0.1)],
        "geometry": {"M_sup": 1.0},
        "surface": {
            "state_index": 1,
            "action_index": 0,
            "state_axis": [-1.0, 0.0, 1.0],
            "action_axis": [-1.5, 0.0, 1.5],
            "heights": rng.uniform(0, 10 if algorithm == "sac" else 1, (3, 3)).tolist(),
        },
        "training": {
            "timesteps": [100, 200],
            "return": [1.0, float(number)],
            "sm": [0.5, 0.1],
            "geometry_timesteps": [100],
            "geometry_M_mean": [3.0],
        },
    }


@pytest.fixture
def report():
    rng = np.random.default_rng(0)
    runs = [entry(algorithm, number, rng, 40 + number) for algorithm in ("sac", "pave_sac") for number in (1, 2)]
    settings = {"deterministic": True, "seed": 0, "control_rate": 20.0}
    return {"format": 1, "environment": "Pendulum-v1", "settings": settings, "runs": runs}


@pytest.mark.parametrize(
    ("label", "width_of"),
    [("$x_{$", r"\$x_{\$"), ("$5", r"\$5"), (r"$\lambda$", r"$\lambda$"), ("a_b", "a_b")],
)
def test_what_is_no_formula_is_drawn_as_it_stands(label, width_of):
    figure = Figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    widths = [figure.text(0, 0, text).get_window_extent(renderer).width for text in (as_drawn(label), width_of)]
    assert widths[0] == widths[1] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_labels_need_not_be_formulas(report, kind):
    for run in report["runs"]:
        run["algorithm"] = f"$x_{{$ {run['algorithm']}"
    FigureCanvasAgg(plots.draw(kind, report)).draw()


@pytest.mark.parametrize("kind", KINDS)
def test_every_axis_is_labelled_and_there_is_one_legend(report, kind):
    figure = plots.draw(kind, report)
    flat = [ax for ax in figure.axes if ax.get_subplotspec() is not None and ax.name != "3d"]
    panels = [ax for ax in flat if ax.get_subplotspec().is_last_row()]
    assert all(ax.get_xlabel() for ax in panels)
    assert all(ax.get_ylabel() for ax in flat if ax.get_subplotspec().is_first_col())
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    (legend,) = legends
    if kind == "surfaces":
        assert [ax.get_title() for ax in figure.axes[:2]] == ["SAC", "PAVE SAC"]
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes[:2])
    else:
        assert [text.get_text() for text in legend.get_texts()][:2] == ["SAC", "PAVE SAC"]
    assert "deterministic" in figure.get_suptitle()


def test_traces_show_the_episode_in_seconds(report):
    axes = plots.draw("traces", report).axes
    line = axes[1].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), np.ravel(report["runs"][2]["trace"]["actions"]))
    np.testing.assert_allclose(line.get_xdata()[:3], [0.0, 0.05, 0.1])
    assert axes[0].get_xlabel() == "time (s)"
    assert axes[0].get_ylim() == axes[1].get_ylim()


def test_the_title_says_which_actions_are_traced(report):
    assert "actions 0-" not in plots.draw("traces", report).get_suptitle()
    for run in report["runs"]:
        run["trace"] = {"actions": np.zeros((5, 4)).tolist(), "low": [-2.0] * 4, "high": [2.0] * 4}
    assert plots.draw("traces", report).get_suptitle().endswith(", actions 0-2 of 4")


@pytest.mark.parametrize("kind", ["scatter", "robustness", "training"])
def test_the_axis_of_the_return_spans_what_one_episode_differs_from_the_next(report, kind):
    for run in report["runs"]:
        run["episodes"]["return"] = [-500.0, 0.0, 500.0]
    low, high = plots.draw(kind, report).axes[0].get_ylim()
    assert high - low >= np.std([-500.0, 0.0, 500.0])


def test_steps_are_not_called_seconds_where_the_rate_is_unknown(report):
    report["settings"]["control_rate"] = 1.0
    assert plots.draw("traces", report).axes[0].get_xlabel() == "step"
    assert plots.draw("spectra", report).axes[0].get_xlabel() == "frequency (cycles a step)"


def test_the_spectrum_of_a_sine_peaks_at_its_frequency(report):
    for run in report["runs"]:
        run["trace"]["actions"] = 2.0 * np.sin(2 * np.pi * 5.0 * np.arange(400) / 20.0)[:, None]
    lines = plots.draw("spectra", report).axes[0].get_lines()
    thin = lines[0]
    assert thin.get_xdata()[np.argmax(thin.get_ydata())] == 5.0
    assert np.max(thin.get_ydata()) == pytest.approx(0.5)  # a sine over the full range has the energy 1/2


def test_surfaces_share_their_axes_and_their_height(report):
    first, second = plots.draw("surfaces", report).axes[:2]
    assert first.get_zlim() == second.get_zlim()
    heights = [run["surface"]["heights"] for run in (report["runs"][0], report["runs"][2])]
    assert first.get_zlim()[1] == pytest.approx(max(np.percentile(height, 99) for height in heights))


def test_training_shows_each_run_and_their_mean(report):
    axes = plots.draw("training", report).axes
    assert [ax.get_ylabel() for ax in axes][:2] == ["return", "smoothness score sm"] and len(axes) == 3
    lines = axes[0].get_lines()
    np.testing.assert_array_equal(lines[2].get_ydata(), [1.0, 1.5])


@pytest.mark.parametrize(("kind", "key"), [("robustness", "robustness"), ("surfaces", "surface"), ("training", "training")])
def test_a_picture_is_drawn_of_the_runs_that_have_its_numbers(report, kind, key):
    """One run without them does not cost the others their picture; the command names it."""
    of_others = [report["runs"][0], *report["runs"][2:]]
    del report["runs"][1][key]
    assert plots.left_out(kind, report) == ["sac run_2"]
    drawn, expected = plots.draw(kind, report), plots.draw(kind, {**report, "runs": of_others})
    assert len(drawn.axes) == len(expected.axes)
    for one, other in zip(drawn.axes, expected.axes, strict=True):
        assert [line.get_xydata().tolist() for line in one.lines] == [line.get_xydata().tolist() for line in other.lines]
    for run in report["runs"]:
        run.pop(key, None)
    with pytest.raises(ValueError, match="of sac run_1, sac run_2"):
        plots.draw(kind, report)


def test_what_is_not_finite_is_left_out_of_the_pictures(report):
    """A report has None in its place; a run without any finite return is in no scatter plot, which the command says."""
    first, second, *_ = report["runs"]
    first["episodes"]["return"], second["episodes"]["return"] = [None, 7.0, None], [None, None, None]
    first["training"]["return"] = first["robustness"][1]["episodes"]["return"] = [None, 4.0]
    points = plots.draw("scatter", report).axes[0].get_lines()
    assert points[0].get_ydata() == points[1].get_ydata() == [7.0] and np.size(points[0].get_xdata()) == 1
    assert points[0].get_xdata() == [np.mean(first["episodes"]["sm"])]
    assert plots.left_out("scatter", report) == ["sac run_2"] and plots.left_out("robustness", report) == []
    one, other, mean, *_ = (line.get_ydata() for line in plots.draw("training", report).axes[0].get_lines())
    np.testing.assert_array_equal(np.array([one, other, mean], dtype=float), [[np.nan, 4.0], [1.0, 2.0], [np.nan, 3.0]])
    for run in report["runs"]:
        run["episodes"]["return"] = [None]
    plots.draw("robustness", report)
    with pytest.raises(ValueError, match=r"no finite return of sac run_1, sac run_2, pave_sac run_1, pave_sac run_2$"):
        plots.draw("scatter", report)


def test_the_command_draws_what_it_can_and_overwrites_nothing(report, tmp_path, capsys):
    for run in report["runs"]:
        del run["surface"]
    del report["runs"][1]["training"]
    (tmp_path / "pendulum.json").write_text(json.dumps(report))
    command = [str(tmp_path / "pendulum.json"), "-o", str(tmp_path / "images")]
    main(command)
    drawn = {file.name for file in (tmp_path / "images").iterdir()}
    assert drawn == {f"pendulum_{kind}.png" for kind in KINDS if kind != "surfaces"}
    printed = capsys.readouterr().out
    assert "No surfaces" in printed and "pendulum_training.png, without sac run_2" in printed
    for more, message in (([], "exists"), (["--kind", "surfaces"], "--surface")):
        with pytest.raises(SystemExit) as stop:
            main([*command, *more])
        assert stop.value.code == 1 and message in capsys.readouterr().err


def test_the_names_in_the_help_are_those_of_the_pictures():
    assert tuple(plots.PICTURES) == KINDS


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("pave_sac", "PAVE SAC"),
        ("damper_pave_td3", "DAMPER PAVE TD3"),
        ("sac b/best_model", "SAC b/best_model"),
        ("my_model", "my_model"),
        ("mine v2", "mine v2"),
        ("Baseline", "Baseline"),
    ],
)
def test_names_of_algorithms_are_written_as_names_and_the_users_labels_stay(name, shown):
    assert label(name) == shown


def test_a_surface_has_its_heights_over_their_own_state_and_action(report, monkeypatch):
    drawn, plot = [], Axes3D.plot_surface
    monkeypatch.setattr(Axes3D, "plot_surface", lambda ax, *mesh, **how: (drawn.append(mesh), plot(ax, *mesh, **how))[1])
    heights = np.arange(9.0).reshape(3, 3)
    for run in report["runs"]:
        run["surface"].update(heights=heights.tolist(), state_axis=[-3.0, 0.0, 3.0])
    (ax, *_) = plots.draw("surfaces", report).axes
    for i, j in np.ndindex(3, 3):
        expected = [(-3.0, 0.0, 3.0)[i], (-1.5, 0.0, 1.5)[j], heights[i, j]]
        np.testing.assert_allclose([values[i, j] for values in drawn[0]], expected, atol=0.1)  # of the highest, 99 %
    for line, bound, column in zip(ax.lines, (-1.5, 1.5), (0, 2), strict=True):
        np.testing.assert_allclose(line.get_data_3d(), [[-3.0, 0.0, 3.0], [bound] * 3, heights[:, column]], atol=0.1)


def test_the_bars_and_bands_are_the_intervals_of_their_own_level(report):
    for run, (low, high) in zip(report["runs"], [(1.0, 5.0), (2.0, 9.0)] * 2, strict=True):
        run["robustness"] = [
            {"noise_level": level, "episodes": {"return": [value], "sm": [value]}}
            for level, value in ((0.0, low), (0.1, high))
        ]
    line = plots.draw("robustness", report).axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), [1.5, 7.0])


def test_the_error_bars_of_the_scatter_are_the_intervals_over_runs(report):
    for run, value in zip(report["runs"], (1.0, 2.0, 3.0, 3.0), strict=True):
        run["episodes"].update({"return": [value] * 3, "sm": [10 * value] * 3})
    report["runs"].append({**report["runs"][1], "run": "run_3"})
    ax = plots.draw("scatter", report).axes[0]
    (bars, *_) = ax.containers
    x, y = (segments.get_segments()[0] for segments in bars[2])
    np.testing.assert_allclose(x[:, 0], [10.0, 20.0])
    np.testing.assert_allclose(y[:, 1], [1.0, 2.0])


def test_the_spectrum_of_several_runs_is_their_mean(report):
    for run in report["runs"]:
        run["trace"]["actions"] = report["runs"][0]["trace"]["actions"]
    first, second, mean, *_ = plots.draw("spectra", report).axes[0].get_lines()
    np.testing.assert_array_equal(first.get_ydata(), second.get_ydata())
    assert np.mean(mean.get_ydata()) == pytest.approx(np.mean(first.get_ydata()), rel=0.3)


def test_the_axis_of_the_return_spans_the_larger_deviation_of_two_algorithms(report):
    for run, spread in zip(report["runs"], (1.0, 1.0, 500.0, 500.0), strict=True):
        run["episodes"]["return"] = [-spread, 0.0, spread]
    low, high = plots.draw("scatter", report).axes[0].get_ylim()
    assert high - low >= np.std([-500.0, 0.0, 500.0])
