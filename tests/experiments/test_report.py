"""Reports of grids against numbers worked out by hand."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sb3_pave.commands import experiment_report
from sb3_pave.evaluation.intervals import interquartile_intervals, interquartile_mean
from sb3_pave.experiments import pictures
from sb3_pave.experiments.collection import read_result, read_results
from sb3_pave.experiments.grouping import ReportError, method_names
from sb3_pave.experiments.report import report, return_share
from sb3_pave.experiments.report_files import save_report
from sb3_pave.experiments.report_tables import tables, task_table
from tests.experiments.fabricated import fabricated_result, write_grid, write_result

pytest.importorskip("rliable")


def entry(made, method, task=0):
    (found,) = [one for one in made["tasks"][task]["methods"] if one["method"] == method]
    return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid of two tasks, four methods and five seeds."""
    folder = tmp_path_factory.mktemp("grid")
    write_grid(folder)
    return folder


@pytest.fixture(scope="module")
def made(grid):
    """Its report."""
    return report(grid, ["TD3", "PAVE", "CAPS", "DAMPER"])


@pytest.mark.parametrize("shapes", [[(5, 3)], [(5, 2), (3, 2)], [(1, 1)]])
def test_the_interquartile_mean_is_rliables(shapes):
    from rliable import metrics

    tasks = [np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]
    pooled = np.concatenate(tasks)
    expected = [metrics.aggregate_iqm(pooled[:, i : i + 1]) for i in range(pooled.shape[1])]
    np.testing.assert_allclose(interquartile_mean(*tasks), expected)


def test_the_bootstrap_draws_within_tasks():
    """Two tasks without spread of their own: pooled resampling would mix them in other shares, within each nothing moves."""
    mean, low, high = interquartile_intervals(np.zeros((4, 1)), np.ones((4, 1)))
    assert mean == low == high == 0.5


def test_a_task_with_a_single_run_costs_the_others_no_interval():
    mean, low, high = interquartile_intervals(np.arange(4.0)[:, None], np.ones((1, 1)))
    assert low < mean < high


def test_the_numbers_of_a_table_are_those_worked_out_by_hand(tmp_path):
    for seed, (returns, sm) in enumerate([([-90.0, -110.0], 0.9), ([-200.0], 0.1), ([-300.0], 0.2), ([-1000.0], 0.3)]):
        evaluation = {
            "episodes": {"return": returns, "sm": [sm] * len(returns)},
            "robustness": [{"noise_level": 0.1, "episodes": {"return": returns, "sm": [10 * sm]}}],
            "geometry": {"bound_median": None if seed == 0 else float(seed), "negative_definite_rate": 0.25 * seed},
        }
        changes = {"evaluation": evaluation, "seconds": {"train": 60.0 * seed, "evaluate": 1.0}}
        write_result(tmp_path, fabricated_result("A", seed, [], [], **changes))
    made = report(tmp_path)
    (task,) = made["tasks"]
    a = entry(made, "A")
    # Of four runs, the middle two: the runs' means are -100, -200, -300, -1000
    assert a["measures"]["return"]["iqm"] == -250.0
    assert a["measures"]["return"]["of_runs"] == [-100.0, -200.0, -300.0, -1000.0]
    assert a["measures"]["sm"]["iqm"] == pytest.approx(0.25)
    assert a["measures"]["sm_noise_0.1"]["iqm"] == pytest.approx(2.5)
    # Defined in three runs, of which int(0.25 * 3) = 0 are trimmed
    assert (a["measures"]["geometry_bound_median"]["iqm"], a["measures"]["geometry_bound_median"]["n_runs"]) == (2.0, 3)
    assert a["episode_std"] == 0.0  # the median of 10, 0, 0, 0
    table = task_table(task).set_index("method")
    assert table.loc["A", "return"].startswith("-250 [")
    assert "(3 of 4 runs)" in table.loc["A", "M/μ"]
    assert table.loc["A", "concave states (%)"].startswith("37.5 [") and table.loc["A", "training (min)"].startswith("1.5 [")
    assert made["over_tasks"] == [] and made["notes"] == []


def test_an_interval_lies_within_the_runs_and_a_single_run_has_none(tmp_path):
    for seed in range(4):
        write_result(tmp_path, fabricated_result("A", seed, [float(seed)], [1.0]))
    write_result(tmp_path, fabricated_result("B", 0, [7.0], [2.0]))
    made = report(tmp_path)
    total = entry(made, "A")["measures"]["return"]
    assert 0.0 <= total["low"] < 1.5 < total["high"] <= 3.0
    single = entry(made, "B")["measures"]["return"]
    assert (single["iqm"], single["low"], single["high"]) == (7.0, None, None)
    assert task_table(made["tasks"][0]).set_index("method").loc["B", "return"] == "7"
    assert any("different seeds" in note for note in made["notes"])


def test_single_runs_are_not_called_means(tmp_path):
    for method in ("A", "B"):
        write_result(tmp_path, fabricated_result(method, 0, [7.0], [2.0]))
    made = report(tmp_path)
    ((_, caption, _),) = tables(made)
    title = pictures.front(made["tasks"][0], ["A", "B"]).get_suptitle()
    assert "single run" in caption and "interval" not in caption
    assert "a run each" in title and "interquartile" not in title


@pytest.mark.parametrize(("n_runs", "is_range"), [(2, True), (3, True), (4, True), (5, False), (9, False)])
def test_what_is_called_the_range_of_the_runs_is_that(tmp_path, n_runs, is_range):
    for seed in range(n_runs):
        write_result(tmp_path, fabricated_result("A", seed, [float(seed**2)], [1.0]))
    made = report(tmp_path)
    total = entry(made, "A")["measures"]["return"]
    assert ([total["low"], total["high"]] == [0.0, float((n_runs - 1) ** 2)]) == is_range
    ((_, caption, _),) = tables(made)
    assert ("the range of the runs" in caption) == is_range != ("95 % bootstrap interval" in caption)
    title = pictures.front(made["tasks"][0], ["A"]).get_suptitle()
    assert ("the range of the runs" in title.replace("\n", " ")) == is_range and max(map(len, title.split("\n"))) <= 90
    for seed in range(9):
        write_result(tmp_path, fabricated_result("B", seed, [float(seed)], [1.0]))
    ((_, caption, _),) = tables(report(tmp_path))
    assert ("(below 5 runs: their range)" in caption) == is_range and "95 %" in caption


@pytest.mark.parametrize(("total", "reference", "share"), [(98.0, 100.0, 0.98), (-102.0, -100.0, 0.98), (-90.0, -100.0, 1.1)])
def test_a_share_of_a_return_falls_when_the_return_does(total, reference, share):
    assert return_share(total, reference) == pytest.approx(share)


def test_over_tasks_every_run_is_on_the_scale_of_the_reference(tmp_path):
    runs = {("P", "plain"): (-100, 2.0), ("P", "smooth"): (-110, 1.0), ("H", "plain"): (50, 0.5), ("H", "smooth"): (60, 0.1)}
    for (environment, method), (total, sm) in runs.items():
        for seed in range(4):
            write_result(tmp_path, fabricated_result(method, seed, [float(total)], [sm], environment=environment))
    write_result(tmp_path, fabricated_result("smooth", 0, [1.0], [1.0], environment="only here"))
    made = report(tmp_path)
    plain, smooth = made["over_tasks"]
    assert made["reference"] == "plain" and (plain["return"]["iqm"], plain["sm"]["iqm"]) == (1.0, 1.0)
    # Shares 0.9 and 1.2, ratios 0.5 and 0.2, four runs each: the middle half has two of either
    assert smooth["return"]["iqm"] == pytest.approx(1.05) and smooth["sm"]["iqm"] == pytest.approx(0.35)
    assert smooth["return"]["low"] == pytest.approx(1.05) and smooth["n_tasks"] == 2 and smooth["n_runs"] == 8
    assert any("only here" in note and "plain has no run" in note for note in made["notes"])
    assert report(tmp_path, reference="smooth")["over_tasks"][0]["sm"]["iqm"] == pytest.approx((2 + 5) / 2)
    assert "too narrow where a task has fewer than 5 runs" in tables(made)[-1][1]
    for environment, method in runs:
        write_result(tmp_path, fabricated_result(method, 4, [1.0], [1.0], environment=environment))
    assert "too narrow" not in tables(report(tmp_path))[-1][1]


def test_a_single_task_of_the_reference_is_no_table_over_tasks(tmp_path):
    for method, environment in (("plain", "P"), ("smooth", "P"), ("smooth", "H")):
        write_result(tmp_path, fabricated_result(method, 0, [1.0], [1.0], environment=environment))
    made = report(tmp_path, reference="plain")
    assert len(made["tasks"]) == 2 and made["over_tasks"] == []


def test_curves_are_of_the_steps_at_which_every_run_was_measured(tmp_path):
    curves = [
        {"timesteps": [100, 200, 300], "return": [1.0, 2.0, 3.0], "sm": [1.0, None, 1.0]},
        {"timesteps": [100, 200, 300], "return": [3.0, 4.0, 5.0], "sm": [2.0, 2.0, 3.0]},
        {"timesteps": [100, 200, 250, 300], "return": [5.0, 6.0, 9.0, 7.0], "sm": [3.0, 3.0, 3.0, 5.0]},
    ]
    for seed, curve in enumerate(curves):
        write_result(tmp_path, fabricated_result("A", seed, [1.0], [1.0], curves=curve))
    found = entry(report(tmp_path), "A")["curves"]
    assert found["return"]["timesteps"] == [100, 200, 300] and found["return"]["iqm"] == [3.0, 4.0, 5.0]
    assert found["sm"]["timesteps"] == [100, 300] and found["sm"]["iqm"] == [2.0, 3.0]
    assert all(
        low <= mean <= high for low, mean, high in zip(*(found["return"][k] for k in ("low", "iqm", "high")), strict=True)
    )


def test_what_differs_is_not_pooled_silently(tmp_path):
    write_result(tmp_path, fabricated_result("A", 0, [1.0], [1.0]))
    write_result(tmp_path, fabricated_result("A", 1, [1.0], [1.0]))
    write_result(tmp_path, fabricated_result("A", 1, [5.0], [1.0], hyperparameters={"mpr_coef": 0.5}))
    write_result(tmp_path, fabricated_result("A", 1, [9.0], [1.0], steps=20_000))
    made = report(tmp_path)
    returns = lambda task: {one["method"]: one["measures"]["return"]["of_runs"] for one in task["methods"]}  # noqa: E731
    found = {task["steps"]: returns(task) for task in made["tasks"]}
    assert found[20_000] == {"A": [9.0]}
    assert found[40_000].keys() == {"A", "A (2)"} and sorted(found[40_000].values()) == [[1.0, 1.0], [5.0]]
    assert any("mpr_coef" in note for note in made["notes"])
    assert any("20000, 40000 steps" in note for note in made["notes"])


def test_runs_come_in_the_order_of_their_seeds(tmp_path):
    """Whose names sort otherwise."""
    for seed in (1, 2, 10):
        write_result(tmp_path, fabricated_result("A", seed, [float(seed)], [1.0]))
    assert [result.seed for result in read_results([tmp_path]).results] == [1, 10, 2]
    found = entry(report(tmp_path), "A")
    assert found["seeds"] == [1, 2, 10] and found["measures"]["return"]["of_runs"] == [1.0, 2.0, 10.0]


def test_what_is_not_defined_does_not_count(tmp_path):
    result = fabricated_result("A", 0, [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], seconds={"train": None})
    result["evaluation"]["episodes"].update(saturation=[None, 0.5, 0.25], sm_scaled=[None, None, None])
    values = read_result(write_result(tmp_path, result)).values
    assert (values["saturation"], values["sm_scaled"], values["seconds_train"]) == (0.375, None, None)


@pytest.mark.parametrize(
    "change",
    [{"algorithm": "b"}, {"conf": {"Pendulum-v1": {"gamma": 0.9}}}, {"settings": {"deterministic": False}}],
    ids=["algorithm", "conf", "settings"],
)
def test_what_was_made_in_another_way_is_another_method(tmp_path, change):
    write_result(tmp_path, fabricated_result("A", 0, [1.0], [1.0]))
    write_result(tmp_path, fabricated_result("A", 1, [1.0], [1.0], key="another", **change))
    made = report(tmp_path)
    assert [one["method"] for one in made["tasks"][0]["methods"]] == ["A", "A (2)"]
    (name,) = change
    assert any(f"A (2) were made in different ways: {name} " in note for note in made["notes"])


def test_of_two_runs_with_the_same_seed_one_counts_and_the_other_is_named(tmp_path):
    for key in ("first", "second"):
        write_result(tmp_path, fabricated_result("A", 0, [1.0], [1.0], key=key))
    made = report(tmp_path)
    assert entry(made, "A")["seeds"] == [0]
    (note,) = made["notes"]
    assert "seed0-second" in note.split(" and ")[0] and note.endswith("the first is left out")


def test_a_copy_counts_once_and_is_named(tmp_path):
    write_result(tmp_path / "here", fabricated_result("A", 0, [1.0], [1.0]))
    copy = write_result(tmp_path / "there", fabricated_result("A", 0, [1.0], [1.0]))
    made = report([tmp_path / "here", tmp_path / "there"])
    assert entry(made, "A")["seeds"] == [0]
    assert any(str(copy) in note for note in made["notes"])
    # The same folder twice, or one within another, is no copy
    assert report([tmp_path / "here", tmp_path / "here"])["notes"] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace('"seed"', '"speed"'),
        lambda text: text.replace('"sm": [1.0]', '"sm": []'),
        lambda text: text.replace('"sm": [1.0]', '"sm": [null]'),
        lambda text: text.replace('"return": [1.0]', '"return": []'),
        lambda text: text.replace('"steps": 40000', '"steps": "many"'),
        lambda text: text.replace('"curves": {}', '"curves": {"timesteps": [1, 2], "sm": [1.0, 2.0], "return": [1.0]}'),
        lambda text: text.replace('"curves": {}', '"curves": {"sm": [1.0]}'),
    ],
)
def test_a_damaged_result_is_named_and_left_out(tmp_path, damage):
    write_result(tmp_path, fabricated_result("A", 0, [1.0], [1.0]))
    path = write_result(tmp_path, fabricated_result("A", 1, [1.0], [1.0]))
    path.write_text(damage(path.read_text()))
    found = read_results([tmp_path])
    assert [result.seed for result in found.results] == [0]
    assert len(found.notes) == 1 and str(path) in found.notes[0]
    assert report(tmp_path)["notes"] == found.notes


def test_where_there_is_nothing_it_says_so(tmp_path):
    with pytest.raises(ReportError, match=r"no result\.json"):
        report(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        report(tmp_path / "nowhere")
    write_result(tmp_path, fabricated_result("A", 0, [1.0], [1.0]))
    for arguments in ({"methods": ["B"]}, {"reference": "B"}):
        with pytest.raises(ReportError, match="B, but of A"):
            report(tmp_path, **arguments)


def test_methods_come_in_the_order_of_the_specification(tmp_path):
    for method in "ABC":
        write_result(tmp_path, fabricated_result(method, 0, [1.0], [1.0]))
    names = lambda made: [one["method"] for one in made["tasks"][0]["methods"]]  # noqa: E731
    assert names(report(tmp_path)) == ["A", "B", "C"]
    (tmp_path / "broken.yml").write_text("methods: [")
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xff")
    (tmp_path / "hyperparams.yml").write_text("Pendulum-v1: {gamma: 0.9}")
    (tmp_path / "grid.yml").write_text("methods:\n  C: {}\n  B: {}\n")
    assert names(report(tmp_path)) == ["C", "B", "A"]
    assert names(report(tmp_path, ["B", "A"])) == ["B", "A"]
    (tmp_path / "grid.yml").rename(tmp_path.parent / f"{tmp_path.name}.yml")
    assert names(report(tmp_path)) == ["C", "B", "A"]


def test_methods_that_are_asked_for_twice_are_shown_once_and_a_number_in_brackets_may_be_the_users(tmp_path):
    grouped = {("P", 10): {"A": [], "A (2)": []}}
    assert method_names(grouped, ["A (2)", "A", "A (2)"], []) == ["A (2)", "A"]
    (tmp_path / "grid.yml").write_text("methods: {A (2): {}, A: {}}")
    assert method_names(grouped, None, [tmp_path]) == ["A (2)", "A"]


def test_a_bracket_in_a_name_is_the_users(tmp_path, capsys):
    (tmp_path / "grid.yml").write_text("methods: {TD3 (ReLU): {algorithm: td3}, 'PAVE [no curv]': pave_td3}")
    for method in ("PAVE [no curv]", "TD3 (ReLU)"):
        for steps in (10, 20):
            write_result(tmp_path, fabricated_result(method, 1, [-1.0], [1.0], steps=steps))
    # Made in another way
    write_result(tmp_path, fabricated_result("TD3 (ReLU)", 2, [-1.0], [1.0], steps=20, hyperparameters={"gamma": 0.5}))
    made = report(tmp_path)
    assert made["reference"] == "TD3 (ReLU)"
    (longer,) = (task for task in made["tasks"] if task["steps"] == 20)
    assert [one["method"] for one in longer["methods"]] == ["TD3 (ReLU)", "TD3 (ReLU) (2)", "PAVE [no curv]"]
    experiment_report.main([str(tmp_path), "-o", str(tmp_path / "report"), "--no-pictures"])
    assert "PAVE [no curv]" in capsys.readouterr().out


def test_what_could_not_be_measured_is_said(tmp_path):
    for seed in (1, 2):
        result = fabricated_result("PPO", seed, [-1.0], [1.0])
        result["evaluation"]["notes"] = ["the critic's geometry needs a critic Q(s, a)"]
        write_result(tmp_path, result)
    assert report(tmp_path)["notes"] == ["Pendulum-v1, PPO, seed 1, 2: the critic's geometry needs a critic Q(s, a)"]


def test_what_is_saved_is_the_report(made, tmp_path):
    files = {file.name: file for file in save_report(made, tmp_path / "out")}
    assert json.loads(files["report.json"].read_text()) == made
    measures = pd.read_csv(files["measures.csv"]).set_index(["environment", "method", "measure"])
    sm = next(one for task in made["tasks"] if task["environment"] == "Hopper-v5" for one in task["methods"])["measures"]["sm"]
    row = measures.loc[("Hopper-v5", "TD3", "sm")]
    np.testing.assert_allclose(row[["iqm", "low", "high"]].astype(float), [sm["iqm"], sm["low"], sm["high"]])
    runs = pd.read_csv(files["runs.csv"])
    assert len(runs) == 2 * 4 * 5 and math.isnan(runs.query("method == 'TD3' and seed == 1")["geometry_bound_median"].iloc[0])
    text = files["report.md"].read_text()
    for name in files:
        assert name.endswith(".png") == (f"]({name})" in text)
    assert sum(name.endswith(".png") for name in files) == 5
    with pytest.raises(FileExistsError, match="--overwrite"):
        save_report(made, tmp_path / "out")
    save_report(made, tmp_path / "out", pictures=False, overwrite=True)


def test_the_axis_of_the_return_spans_the_standard_deviation_of_episodes(tmp_path):
    """One point of return between the methods, 50 between episodes: the picture must not make it a gulf."""
    for method, shift in (("A", 0.0), ("B", -1.0)):
        for seed in range(3):
            write_result(tmp_path, fabricated_result(method, seed, [-100.0 + shift, -200.0 + shift], [0.5]))
    made = report(tmp_path)
    low, high = pictures.front(made["tasks"][0], ["A", "B"]).axes[0].get_ylim()
    assert high - low >= 50.0 and low < -151.0 < -150.0 < high


def test_the_front_shows_each_run_and_each_interquartile_mean(made):
    names = pictures.method_names(made)
    figure = pictures.front(made["tasks"][0], names)
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    shown = {tuple(line.get_xdata()) for line in ax.lines}
    for one in made["tasks"][0]["methods"]:
        assert tuple(one["measures"]["sm"]["of_runs"]) in shown
        assert (one["measures"]["sm"]["iqm"],) in shown


def test_names_of_methods_need_not_be_formulas(made):
    renamed = json.loads(json.dumps(made).replace('"PAVE"', '"$x_{$"').replace('"TD3"', '"$y_{$"'))
    figures = [figure for pictures_of in pictures.draw_all(renamed).values() for figure in pictures_of.values()]
    for figure in figures:
        FigureCanvasAgg(figure).draw()
    assert any("$y_{$" in figure.get_suptitle().replace("\\", "") for figure in figures)


def test_learning_curves_show_return_and_smoothness(made):
    figure = pictures.learning_curves(made["tasks"][1], pictures.method_names(made))
    for ax, measure in zip(figure.axes, ("return", "sm"), strict=True):
        for line, one in zip(ax.lines, made["tasks"][1]["methods"], strict=True):
            np.testing.assert_allclose(line.get_ydata(), one["curves"][measure]["iqm"])
        assert len(ax.collections) == len(made["tasks"][1]["methods"])  # the bands


def test_the_command_prints_saves_and_refuses_to_overwrite(grid, tmp_path, capsys):
    damaged = tmp_path / "result.json"
    damaged.write_text("{")
    command = [str(grid), str(tmp_path), "--methods", "TD3", "PAVE", "-o", str(tmp_path / "out"), "--no-pictures"]
    experiment_report.main(command)
    printed = capsys.readouterr().out
    assert "Pendulum-v1, 40 000 steps" in printed and "PAVE" in printed and "CAPS" not in printed
    assert f"Note: {damaged}" in printed.replace("\n", "")
    # Broken where the terminal ends, not where the table does
    assert "Interquartile mean over runs (seeds) and its 95 % interval (below 5 runs: their" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "measures.csv",
        "report.json",
        "report.md",
        "runs.csv",
    ]
    with pytest.raises(SystemExit) as stopped:
        experiment_report.main(command)
    assert stopped.value.code == 1 and "--overwrite" in capsys.readouterr().err
    (tmp_path / "file").touch()
    for taken in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(SystemExit) as stopped:
            experiment_report.main([*command, "-o", str(taken)])
        assert stopped.value.code == 1 and "can't be written: its folder is a file" in capsys.readouterr().err


def test_an_interval_leaves_numpys_generator_alone():
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    interquartile_intervals(np.arange(6.0)[:, None])
    assert np.random.rand() == expected


def test_close_noise_levels_are_measures_of_their_own(tmp_path):
    result = fabricated_result("A", 0, [1.0], [1.0])
    levels = ((0.01, 2.0), (0.05, 3.0), (0.1, 4.0))
    result["evaluation"]["robustness"] = [{"noise_level": level, "episodes": {"sm": [sm]}} for level, sm in levels]
    values = read_result(write_result(tmp_path, result)).values
    assert [values[f"sm_noise_{level}"] for level in ("0.01", "0.05", "0.1")] == [2.0, 3.0, 4.0]


def test_runs_that_went_on_from_a_checkpoint_are_counted(tmp_path):
    for seed, resumed_from in enumerate(([], [100], [100, 200])):
        write_result(tmp_path, fabricated_result("A", seed, [1.0], [1.0], resumed_from=resumed_from))
    assert report(tmp_path)["tasks"][0]["methods"][0]["resumed"] == 2


def test_a_reference_without_a_scale_is_left_out_of_the_table_over_tasks_and_named(tmp_path):
    for environment, total, sm in (("P", 1.0, 1.0), ("Q", 2.0, 2.0), ("still", 1.0, 0.0), ("nothing", 0.0, 1.0)):
        write_result(tmp_path, fabricated_result("A", 0, [total], [sm], environment=environment))
    made = report(tmp_path)
    assert made["over_tasks"][0]["n_tasks"] == 2 and made["over_tasks"][0]["sm"]["iqm"] == 1.0
    left_out = [note for note in made["notes"] if "return or sm is 0" in note]
    assert len(left_out) == 2 and "still" in "".join(left_out) and "nothing" in "".join(left_out)
