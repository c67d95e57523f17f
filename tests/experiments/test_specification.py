"""A specification becomes runs, or an error that says what to do."""

import copy
import dataclasses
import math
import re
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rl_zoo3")

from rl_zoo3.utils import ALGOS

from sb3_pave import PAVE_TD3
from sb3_pave.experiments import EvaluationSettings, Run, Specification, SpecificationError
from sb3_pave.experiments.given import integer, is_number
from sb3_pave.experiments.search_specification import SearchSpecification
from sb3_pave.experiments.zoo_file import full_entry
from sb3_pave.experiments.zoo_knowledge import check_hyperparameters

README = Path(__file__).parents[2] / "README.md"
SPECIFICATION = """
environments:
  Pendulum-v1:
  Hopper-v5: {steps: 2000, seeds: [7]}
seeds: [1, 2]
steps: 1000
methods:
  td3:
  SAC: {algorithm: sac, conf: sac.yml, environments: [Pendulum-v1]}
  PAVE: {algorithm: pave_td3, hyperparameters: {mpr_coef: 0.3}}
evaluation: {episodes: 3, robustness: [0.1], geometry: true}
checkpoint_steps: 500
"""
CONF = {"Pendulum-v1": {"policy": "MlpPolicy", "n_timesteps": 5, "gamma": 0.9}, "Hopper-v5": {"policy": "MlpPolicy"}}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sac.yml").write_text(yaml.safe_dump(CONF))
    (tmp_path / "grid.yml").write_text(SPECIFICATION.replace("td3:\n", "td3: {environments: [Pendulum-v1]}\n", 1))
    return tmp_path


def test_runs_are_environments_times_seeds_times_methods(folder):
    runs = Specification.load(folder / "grid.yml").runs()
    assert [(run.environment, run.seed, run.method, run.algorithm, run.steps) for run in runs] == [
        ("Pendulum-v1", 1, "td3", "td3", 1000),
        ("Pendulum-v1", 1, "SAC", "sac", 1000),
        ("Pendulum-v1", 1, "PAVE", "pave_td3", 1000),
        ("Pendulum-v1", 2, "td3", "td3", 1000),
        ("Pendulum-v1", 2, "SAC", "sac", 1000),
        ("Pendulum-v1", 2, "PAVE", "pave_td3", 1000),
        ("Hopper-v5", 7, "PAVE", "pave_td3", 2000),
    ]
    assert runs[0].evaluation == EvaluationSettings(episodes=3, every=50, robustness=(0.1,), geometry=True)
    assert runs[-1].evaluation.every == 100
    assert {run.checkpoint_steps for run in runs} == {500}
    # The one entry that the zoo would take: of the method's file, of the zoo's, of ours
    assert yaml.safe_load(runs[1].conf) == {"Pendulum-v1": {"policy": "MlpPolicy", "gamma": 0.9}}
    assert yaml.safe_load(runs[0].conf)["Pendulum-v1"]["noise_type"] == "normal"
    assert yaml.safe_load(runs[-1].conf)["Hopper-v5"]["vfc_coef"] == 0.005
    assert runs[-1].hyperparameters == {"mpr_coef": 0.3}


def test_a_folder_is_named_by_what_determines_the_run(folder):
    run = Specification.load(folder / "grid.yml").runs()[1]
    assert run.folder_name == f"Pendulum-v1-SAC-seed1-{run.key}"
    assert len(run.key) == 12 and int(run.key, 16) >= 0
    assert Run.from_dict(run.to_dict()) == run
    changes = {"seed": 3, "steps": 2, "method": "x", "algorithm": "td3", "environment": "x", "hyperparameters": {"tau": 0.1}}
    changes["evaluation"] = dataclasses.replace(run.evaluation, episodes=4)
    changes["conf"] = run.conf.replace("0.9", "0.8")
    keys = {dataclasses.replace(run, **{name: value}).key for name, value in changes.items()}
    assert len(keys | {run.key}) == len(changes) + 1
    # Where and how it is computed, and how the file is laid out, changes nothing
    same = dataclasses.replace(run, device="cuda", threads=4, checkpoint_steps=7, conf=f"# a comment\n{run.conf}\n")
    assert same.key == run.key
    # Another measurement is another run of the same agent; other curves are not
    again = dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, robustness=(0.2,), geometry=False))
    assert again.key != run.key and again.training_key == run.training_key
    assert dataclasses.replace(run, evaluation=EvaluationSettings(every=7)).training_key != run.training_key


def test_a_changed_file_changes_the_runs_that_read_the_changed_entry(folder):
    before = Specification.load(folder / "grid.yml").runs()
    conf = copy.deepcopy(CONF)
    conf["Hopper-v5"]["gamma"] = 0.5
    (folder / "sac.yml").write_text(yaml.safe_dump(conf))
    assert [run.key for run in Specification.load(folder / "grid.yml").runs()] == [run.key for run in before]
    conf["Pendulum-v1"]["gamma"] = 0.5
    (folder / "sac.yml").write_text(yaml.safe_dump(conf))
    after = Specification.load(folder / "grid.yml").runs()
    assert [run.method for run, old in zip(after, before, strict=True) if run.key != old.key] == ["SAC", "SAC"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [1]}, "the specification: 'seed' is not known, did you mean seeds"),
        ({"environments": ["Pendulum-v11"]}, "environments: 'Pendulum-v11' is not known, did you mean Pendulum-v1"),
        ({"environments": {"Pendulum-v1": {"step": 1}}}, "environments: Pendulum-v1: 'step' is not known, did you mean steps"),
        ({"environments": []}, "at least one"),
        ({"environments": ["Half0.5-v0"]}, "environments: Half0.5-v0: SB3 takes what follows the dot for the ending"),
        ({"seeds": []}, r"environments: Pendulum-v1: seeds takes a list of numbers, \[1, 2, 3\] for example; got \[\]"),
        ({"seeds": [1, 1]}, "has an entry twice"),
        ({"seeds": [-1]}, "seeds takes a whole number from 0 to 4294967295; got -1"),
        ({"steps": 0.5}, "steps takes a whole number from 1 on; got 0.5"),
        ({"steps": True}, "steps takes a whole number from 1 on; got True"),
        ({"methods": ["pave_td4"]}, "methods: pave_td4: algorithm: 'pave_td4' is not known, did you mean pave_td3"),
        ({"methods": {"m": {"algo": "td3"}}}, "methods: m: 'algo' is not known, did you mean algorithm"),
        ({"methods": {"m": {"algorithm": "td3", "conf": "no.yml"}}}, "methods: m: conf takes a YAML file .*no.yml is none"),
        (
            {"methods": {"m": {"algorithm": "td3", "environments": ["Hopper-v5"]}}},
            "'Hopper-v5' is not known; known: Pendulum-v1",
        ),
        (
            {"methods": {"m": {"algorithm": "pave_td3", "hyperparameters": {"mrp_coef": 1}}}},
            "methods: m: hyperparameters: 'mrp_coef' is not known, did you mean mpr_coef",
        ),
        ({"methods": {"m": {"algorithm": "td3", "hyperparameters": {"n_timesteps": 1}}}}, "'n_timesteps' is not known"),
        ({"methods": {"m": {"algorithm": "sac", "conf": "no_policy.yml"}}}, "the entry for Pendulum-v1 names no policy"),
        (
            {"methods": {"m": {"algorithm": "sac", "conf": "other.yml"}}},
            "other.yml has no entry for Pendulum-v1, and no default",
        ),
        ({"evaluation": {"episode": 1}}, "evaluation: 'episode' is not known, did you mean episodes"),
        ({"evaluation": {"episodes": 0}}, "evaluation: episodes takes a whole number from 1 on; got 0"),
        ({"evaluation": {"robustness": 0.1}}, "evaluation: robustness takes a list of noise levels"),
        ({"evaluation": {"geometry": "yes"}}, "evaluation: geometry takes true or false; got 'yes'"),
        ({"gym_packages": ["no_such_package"]}, "gym_packages: no_such_package could not be imported"),
        ({"checkpoint_steps": -1}, "checkpoint_steps takes a whole number from 0 on"),
        ({"threads": 0}, "threads takes a whole number from 1 on"),
        ({"device": 0}, "device takes auto, cpu, cuda"),
        ({"device": "cuda:1"}, "--gpus says which GPUs"),
        ({"device": "gpu"}, "device takes auto, cpu, cuda or mps .*; got 'gpu'"),
        ({"device": "xla"}, "device takes auto, cpu, cuda or mps .*; got 'xla'"),
        ({"seeds": [2**32]}, "seeds takes a whole number from 0 to 4294967295; got 4294967296"),
        ({"evaluation": {"seed": 2**32}}, "evaluation: seed takes a whole number from 0 to 4294967295"),
        ({"evaluation": {"robustness": [float("inf")]}}, "evaluation: robustness takes a list of noise levels"),
        ({"environments": ["Robot-v0"]}, r"'Robot-v0' is not known.* \(gym_packages names modules"),
        ({"environments": ["CartPole-v1"]}, r"methods: td3: the actions of CartPole-v1 are Discrete\(2\), and smoothness"),
        (
            {"methods": {"m": {"algorithm": "td3", "hyperparameters": {"env_kwargs": {"gravity": 9.81}}}}},
            "methods: m: env_kwargs {'gravity': 9.81}: .*unexpected keyword argument 'gravity'",
        ),
        (
            {"methods": {"m": {"algorithm": "td3", "environments": []}}},
            "methods: m: environments: there has to be at least one",
        ),
    ],
)
def test_a_mistake_is_named_before_anything_starts(change, message, tmp_path):
    (tmp_path / "no_policy.yml").write_text("Pendulum-v1: {gamma: 0.9}")
    (tmp_path / "other.yml").write_text("Hopper-v5: {policy: MlpPolicy}")
    content = {"environments": ["Pendulum-v1"], "seeds": [1], "steps": 10, "methods": ["td3"], **change}
    with pytest.raises(SpecificationError, match=message):
        Specification.from_dict(content, tmp_path)


def with_hyperparameters(algorithm, hyperparameters):
    method = {"algorithm": algorithm, "hyperparameters": yaml.safe_load(hyperparameters)}
    content = {"environments": ["Pendulum-v1"], "seeds": [1], "steps": 10, "methods": {"m": method}}
    return Specification.from_dict(content).runs()


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        ("pave_td3", "use_sde"),
        ("pave_ddpg", "policy_delay"),
        ("pave_crossq", "tau"),
        ("pave_sac", "monitor_wrapper"),
        ("caps_td3", "sde_sample_freq"),
        ("trpo", "ent_coef"),
    ],
)
def test_what_only_a_parents_constructor_takes_is_a_mistake(algorithm, name):
    """SB3's constructors do not pass on what they do not know."""
    with pytest.raises(SpecificationError, match=f"methods: m: hyperparameters: '{name}' is not known"):
        with_hyperparameters(algorithm, f"{name}: 1")


class OddSignature(PAVE_TD3):
    """No signature has what follows an argument with a default."""

    def __init__(self, alpha=1.0, *args, **kwargs):
        super().__init__(*args, **kwargs)


def test_a_class_whose_arguments_nobody_can_tell_is_not_in_the_way(monkeypatch):
    monkeypatch.setitem(ALGOS, "odd", OddSignature)
    check_hyperparameters("methods: m", "odd", {"alpha": 2.0, "anything": 1})


@pytest.mark.parametrize(
    ("algorithm", "hyperparameters", "message"),
    [
        ("pave_sac", "mpr_coef: 1e-2", "mpr_coef must be a number, not the text '1e-2' .in YAML, write 1.0e-2"),
        ("pave_sac", "mpr_coef: -1", "mpr_coef must be finite and not negative, not -1"),
        ("pave_sac", "scale_free: 'yes please'", "scale_free must be True or False"),
        ("pave_sac", "pave_batch_size: quarter", "pave_batch_size must be a positive whole number of transitions"),
        ("caps_sac", "temporal_coef: .nan", "temporal_coef must be finite and not negative"),
        ("damper_pave_td3", "eta: 2", r"eta must be in \[0, 1\], not 2"),
        ("damper_pave_td3", "mpr_coef: -1", "mpr_coef must be finite"),
        ("sac", "learning_rate: 1e-3", "learning_rate must be a number, not the text '1e-3'"),
        ("sac", "learning_rate: linear", "learning_rate takes a number, or lin_ and a number"),
        ("ppo", "clip_range: linear", "clip_range takes a number, or lin_ and a number"),
        ("ppo", "clip_range_vf: linear", "clip_range_vf takes a number, or lin_ and a number"),
        ("sac", "replay_buffer_kwargs: 'dict('", "replay_buffer_kwargs is evaluated as Python"),
        ("sac", "monitor_kwargs: 'dict('", "monitor_kwargs is evaluated as Python"),
        ("td3", "{noise_type: normal, noise_std: 1e-1}", "noise_std must be a number, not the text '1e-1'"),
        ("pave_sac", "policy: MplPolicy", "policy takes MlpPolicy, CnnPolicy, MultiInputPolicy.*got 'MplPolicy'"),
        ("pave_sac", "policy: sb3_pave.no_such.Policy", "policy: .* could not be imported: No module named"),
        ("sac", "policy_kwargs: 'dict(net_arch=[8)'", "policy_kwargs is evaluated as Python, and 'dict.*' is none"),
        (
            "sac",
            "callback: rl_zoo3.callbacks.RawStatisticCallback",
            "callback: rl_zoo3.callbacks has no RawStatisticCallback, did you mean RawStatisticsCallback",
        ),
        ("sac", "callback: Mine", "callback takes a class with its module, my_module.Mine for example"),
        (
            "sac",
            "env_wrapper: [{no_such_module.Wrapper: {n: 1}}]",
            "env_wrapper: no_such_module.Wrapper could not be imported",
        ),
        ("sac", "env_wrapper: [{a.B: {}, a.C: {}}]", "env_wrapper: takes names, each alone with its arguments"),
    ],
)
def test_a_value_that_no_training_can_begin_with_is_a_mistake(algorithm, hyperparameters, message):
    with pytest.raises(SpecificationError, match=f"methods: m: hyperparameters: {message}"):
        with_hyperparameters(algorithm, hyperparameters)


@pytest.mark.parametrize(
    ("algorithm", "hyperparameters"),
    [
        ("sac", "{learning_rate: lin_3e-4, ent_coef: auto_0.1, target_entropy: auto, train_freq: [1, episode]}"),
        ("pave_sac", "{ent_coef: 1e-1, learning_rate: 0.001, mpr_coef: null, pave_batch_size: null, cuda_graph: auto}"),
        ("caps_pave_td3", "{spatial_coef: 0, compile: true, pave_interval: 2.0, noise_type: normal, noise_std: 0.1}"),
        ("sac", "{normalize: 'dict(norm_obs=True)', policy_kwargs: ' dict(net_arch=[8],\n  activation_fn=nn.SiLU)'}"),
        ("sac", "{env_wrapper: [{rl_zoo3.wrappers.HistoryWrapper: {horizon: 2}}, gymnasium.wrappers.ClipAction]}"),
        ("td3", "{policy: stable_baselines3.td3.policies.TD3Policy, callback: null, n_envs: 2}"),
    ],
)
def test_what_the_zoo_and_sb3_make_numbers_and_objects_of_stays(algorithm, hyperparameters):
    (run,) = with_hyperparameters(algorithm, hyperparameters)
    assert run.hyperparameters == yaml.safe_load(hyperparameters)


def test_modules_that_trainings_find_and_this_process_does_not_are_theirs_to_import(tmp_path, monkeypatch):
    (tmp_path / "wrappers_right_here.py").write_text("raise AssertionError('not here')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert with_hyperparameters("sac", "env_wrapper: wrappers_right_here.Wrapper")


def test_actions_are_those_behind_the_arguments_and_wrappers_of_the_environment():
    pytest.importorskip("Box2D")
    content = {"environments": ["LunarLander-v3"], "seeds": [1], "steps": 10}
    # Our entry makes it continuous, the zoo's for PPO does not
    assert Specification.from_dict({**content, "methods": {"m": "pave_sac"}}).runs()
    with pytest.raises(SpecificationError, match="the actions of LunarLander-v3"):
        Specification.from_dict({**content, "methods": {"m": {"algorithm": "ppo", "hyperparameters": {"env_kwargs": {}}}}})
    heavy = {"algorithm": "pave_sac", "hyperparameters": {"env_kwargs": {"gravity": -5.0}}}
    (run,) = Specification.from_dict({**content, "methods": {"m": heavy}}).runs()
    assert full_entry(run, {"env_kwargs": {"gravity": -6.0}})["env_kwargs"] == {"continuous": True, "gravity": -6.0}
    wrapped = {"algorithm": "ppo", "hyperparameters": {"env_wrapper": "gymnasium.wrappers.RescaleAction"}}
    assert Specification.from_dict({**content, "methods": {"m": wrapped}}).runs()


@pytest.mark.parametrize("missing", ["seeds", "steps", "environments", "methods"])
def test_what_is_missing_is_named(missing):
    content = {"environments": ["Pendulum-v1"], "seeds": [1], "steps": 10, "methods": ["td3"]}
    del content[missing]
    with pytest.raises(SpecificationError, match=missing):
        Specification.from_dict(content)


def test_the_specification_in_readme():
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL) if "methods:" in block)
    runs = Specification.from_dict(yaml.safe_load(text), README.parent).runs()
    assert len(runs) == 5 * 3 + 3 * 2
    assert {run.method for run in runs} == {"TD3", "PAVE", "weaker"}


def test_the_search_in_readme():
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL) if "plain:" in block)
    search = SearchSpecification.from_dict(yaml.safe_load(text), README.parent)
    (trial,), (plain,) = search.grid.methods, search.plain.methods
    assert (trial.algorithm, plain.algorithm) == ("pave_td3", "td3") and plain.conf.name == "paper_td3.yml"
    assert len(search.grid.runs()) == len(search.plain.runs()) == 2


@pytest.mark.parametrize(("given", "number"), [(1, 1), (5, 5), (3.0, 3), ("2", 2), ("4e0", 4)])
def test_whole_numbers_are_read_as_they_are_meant(given, number):
    assert integer("steps", given, 1, 5) == number


@pytest.mark.parametrize("given", [0, 6, 2.5, "2.5", True, None, "many", "nan", math.inf, [1]])
def test_what_is_no_whole_number_in_its_bounds_is_refused(given):
    with pytest.raises(SpecificationError, match="steps takes a whole number from 1 to 5; got"):
        integer("steps", given, 1, 5)


def test_true_is_no_number():
    assert [is_number(one) for one in (1, 0.5, True, "1", None)] == [True, True, False, False, False]


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "grid.yml").write_bytes("methods: {größer: td3}".encode("latin-1"))
    with pytest.raises(SpecificationError, match=r"grid\.yml could not be read"):
        Specification.load(tmp_path / "grid.yml")


@pytest.mark.parametrize("text", [None, "steps: [", "- a list", "", "methods:\n  PAVE: pave_td3\n  'PAVE': td3"])
def test_a_file_that_is_none_is_named(text, tmp_path):
    path = tmp_path / "grid.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecificationError, match=r"grid\.yml"):
        Specification.load(path)
