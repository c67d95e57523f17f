"""What runs of one label differ in, read from the settings that the zoo leaves."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from sb3_pave.evaluation.agents import Agent
from sb3_pave.evaluation.pooling import differences

yaml = pytest.importorskip("yaml")


@pytest.fixture
def run(tmp_path):
    """Makes a run of 1000 steps."""

    def make(number, config=None, algorithm="sac", done=1000, **arguments):
        folder = tmp_path / f"Env_{number}"
        (folder / "Env").mkdir(parents=True)
        (folder / "Env" / "config.yml").write_text(yaml.dump({"n_timesteps": 1000, **(config or {})}))
        (folder / "Env" / "args.yml").write_text(yaml.dump({"n_timesteps": -1, "seed": number, **arguments}))
        with ZipFile(folder / "Env.zip", "w") as file:
            file.writestr("data", json.dumps({"num_timesteps": done}))
        return Agent(algorithm, folder.name, folder / "Env.zip", folder / "Env")

    return make


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({}, {"config": {"device": "cuda", "seed": 3, "verbose": 2}}, None),
        ({}, {"config": {"compile": True, "cuda_graph": "auto", "stats_window_size": 9, "tensorboard_log": "runs"}}, None),
        ({}, {"env_kwargs": {}, "trained_agent": "", "done": 1008}, None),
        ({}, {"trained_agent": "begun.zip"}, "trained_agent (none; begun.zip in Env_2)"),
        ({"config": {"gamma": 1}}, {"config": {"gamma": 1.0}}, None),
        ({"config": {"env_kwargs": {"g": 5}}}, {"env_kwargs": {"g": 5}}, None),
        ({"config": {"env_kwargs": {"h": 1}}, "env_kwargs": {"g": 5}}, {"env_kwargs": {"g": 5, "h": 1}}, None),
        ({"config": {"a": "<f at 0x7f01>"}}, {"config": {"a": "<f at 0x7f02>"}}, None),
        ({"config": {"a": {"x": 1, "y": (2,)}}}, {"config": {"a": {"y": [2.0], "x": 1}}}, None),
        ({}, {"config": {"gamma": 0.9}}, "gamma (none; 0.9 in Env_2)"),
        ({}, {"n_timesteps": 600}, "n_timesteps (1000; 600 in Env_2)"),
        ({}, {"done": 400}, "n_timesteps (1000; 400 in Env_2)"),
        ({}, {"algorithm": "td3"}, "algorithm (sac; td3 in Env_2)"),
        ({"config": {"a": "x" * 99}}, {}, f"a ({'x' * 60}…; none in Env_2)"),
    ],
)
def test_what_matters_and_nothing_else_is_said(run, one, other, said):
    agents = [Agent(**{**vars(agent), "label": "mine"}) for agent in (run(1, **one), run(2, **other))]
    notes = differences(agents, "REMEDY")
    expected = f"Runs of mine differ in {said}: they are pooled as runs of one setting; REMEDY"
    assert notes == ([] if said is None else [expected])


def test_other_labels_may_differ_and_unknown_settings_do_not(run):
    alone = Agent("sac", "alone", Path("alone.zip"))
    assert differences([run(1), alone, run(2, {"gamma": 0.9}, algorithm="td3")], "") == []


def test_of_zip_files_alone_the_algorithm_is_compared():
    agents = [Agent(algorithm, f"run {algorithm}", Path(f"{algorithm}.zip"), label="mine") for algorithm in ("sac", "td3")]
    (note,) = differences(agents, "")
    assert "algorithm (sac; td3 in run td3)" in note


@pytest.mark.parametrize("content", [None, b"no zip", {"other": "{}"}, {"data": "{"}], ids=str)
def test_a_model_that_does_not_load_is_left_to_what_loads_it(run, content):
    broken = run(2)
    broken.model_path.unlink()
    if isinstance(content, bytes):
        broken.model_path.write_bytes(content)
    elif content is not None:
        with ZipFile(broken.model_path, "w") as file:
            file.writestr(*content.popitem())
    agents = [Agent(**{**vars(agent), "label": "mine"}) for agent in (run(1), broken)]
    assert differences(agents, "") == []


def test_the_runs_that_are_named_are_those_that_differ_from_most(run):
    agents = [run(1, {"gamma": 0.9}), run(2), run(3)]
    assert "gamma (none; 0.9 in Env_1):" in differences(agents, "REMEDY")[0]


def test_arguments_of_the_environment_that_were_typed_count_as_they_do_in_training(run):
    assert differences([run(1, {"env_kwargs": {"g": 5}}, env_kwargs={"g": 9}), run(2, {"env_kwargs": {"g": 9}})], "") == []


def test_the_best_model_of_a_run_is_no_run_that_was_ended_before(run):
    agents = [run(1), run(2)]
    for agent in agents:
        with ZipFile(agent.model_path.with_name("best_model.zip"), "w") as file:
            file.writestr("data", json.dumps({"num_timesteps": 100 * int(agent.run[-1])}))
    best = [Agent("sac", one.run, one.model_path.with_name("best_model.zip"), one.stats_path) for one in agents]
    assert differences(best, "") == []
