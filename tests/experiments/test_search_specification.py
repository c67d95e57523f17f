"""What a search's specification refuses, and that it is read once."""

import gymnasium as gym
import numpy as np
import pytest
import yaml

from sb3_pave.experiments import SpecificationError
from sb3_pave.experiments.search_specification import SearchSpecification
from sb3_pave.experiments.zoo_file import zoo_yaml
from tests.experiments.formulas import SMALL, SPECIFICATION


@pytest.mark.parametrize("section", ["method", "plain"])
def test_neither_the_method_nor_plain_has_environments_of_its_own(section):
    both = ["Pendulum-v1", "MountainCarContinuous-v0"]
    changed = {**SPECIFICATION[section], "environments": ["Pendulum-v1"]}
    with pytest.raises(SpecificationError, match=f"{section} takes no environments of its own"):
        SearchSpecification.from_dict({**SPECIFICATION, "environments": both, section: changed})


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "conf.yml"
    path.write_text(yaml.safe_dump({"default": {"policy": "MlpPolicy", **SMALL}}))
    return path


@pytest.mark.parametrize("left", ["default: {policy: MlpPolicy, batch_size: 64}", "default: ["])
def test_a_conf_file_that_is_edited_while_it_is_searched_changes_no_trial(conf, tmp_path, left):
    own = {section: {"algorithm": SPECIFICATION[section]["algorithm"], "conf": conf.name} for section in ("method", "plain")}
    content = {**SPECIFICATION, **own}
    specification = SearchSpecification.from_dict(content, tmp_path)
    as_made = [run.key for run in specification.grid.runs()], [run.key for run in specification.plain.runs()]
    before = specification.to_dict(), specification.runs({"mpr_coef": 0.5})
    conf.write_text(left)
    assert (specification.to_dict(), specification.runs({"mpr_coef": 0.5})) == before
    assert ([run.key for run in specification.method_runs], [run.key for run in specification.plain_runs]) == as_made
    trial = {"number": 0, "hyperparameters": {"mpr_coef": 0.5}, "return": 1.0, "sm": 1.0}
    entry = yaml.safe_load(zoo_yaml({"n_runs": 2}, trial, specification.method_runs))["Pendulum-v1"]
    assert entry["batch_size"] == SMALL["batch_size"] and entry["mpr_coef"] == 0.5


def test_what_the_algorithm_does_not_take_is_still_refused_when_it_is_drawn():
    specification = SearchSpecification.from_dict(SPECIFICATION)
    with pytest.raises(SpecificationError, match="mpr_coef must be a number"):
        specification.runs({"mpr_coef": "much"})


@pytest.mark.parametrize("key", ["method", "plain"])
def test_a_mistake_is_named_by_the_key_that_it_is_under(key):
    mistaken = {"algorithm": "sac", "hyperparameters": {"gama": 0.9}}
    with pytest.raises(SpecificationError, match=f"^{key}: hyperparameters: 'gama' is not known, did you mean gamma"):
        SearchSpecification.from_dict({**SPECIFICATION, key: mistaken})


def test_an_empty_search_is_called_so():
    with pytest.raises(SpecificationError, match="search is empty: name what is to be searched"):
        SearchSpecification.from_dict({**SPECIFICATION, "search": {}})


class Two(gym.ActionWrapper):
    """Two actions in the place of one."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


HOST = {**SPECIFICATION, "method": "pave_td3", "plain": None, "host_space": True}


def test_the_space_of_the_host_counts_the_actions_of_the_environment_as_it_is_trained_on():
    pytest.importorskip("Box2D")
    space = SearchSpecification.from_dict({**HOST, "environments": ["LunarLander-v3"]}).space
    assert space.host.n_actions == 2


def test_an_environment_whose_actions_cannot_be_counted_is_said(monkeypatch):
    def fails():
        raise RuntimeError("no such screen")

    monkeypatch.setitem(gym.registry, "Screen-v0", gym.envs.registration.EnvSpec("Screen-v0", entry_point=fails))
    with pytest.raises(SpecificationError, match=r"host_space: Screen-v0 can't be made, .* no such screen"):
        SearchSpecification.from_dict({**HOST, "environments": ["Screen-v0"]})


@pytest.mark.parametrize("actions", [gym.spaces.Discrete(2), gym.spaces.Box(-1.0, 1.0, ())], ids=str)
def test_actions_of_the_hosts_space_are_a_vector(actions, monkeypatch):
    monkeypatch.setattr("sb3_pave.experiments.search_space.action_space", lambda *args: actions)
    with pytest.raises(SpecificationError, match=r"host_space: the actions of Pendulum-v1 are .*, and have to be continuous"):
        SearchSpecification.from_dict(HOST)


def test_the_space_of_the_host_sees_through_the_wrappers_of_the_entry():
    wrapped = {"algorithm": "pave_td3", "hyperparameters": {"env_wrapper": "tests.experiments.test_search_specification.Two"}}
    assert SearchSpecification.from_dict({**HOST, "method": wrapped}).space.host.n_actions == 2


def test_a_weight_has_the_same_units_on_every_environment():
    # Ours has the published weights of the one, and none of the other
    method = {"algorithm": "pave_sac", "hyperparameters": {}}
    both = ["Pendulum-v1", "MountainCarContinuous-v0"]
    content = {"environments": both, "seeds": [1], "steps": 10, "plain": "sac", "method": method}
    message = r"mpr_coef would count in different units \(Pendulum-v1: its own, MountainCarContinuous-v0: scale_free\)"
    with pytest.raises(SpecificationError, match=message):
        SearchSpecification.from_dict(content)
    method["hyperparameters"]["scale_free"] = True
    assert SearchSpecification.from_dict(content).method_runs
