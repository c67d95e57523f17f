"""A PAVE zip is a plain SB3 zip, and a plain SB3 zip is a PAVE agent's beginning."""

import io
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_pave import PAVE_SAC
from tests.algorithms.scenarios import ALGORITHMS, host_of, layers_of

pairs = pytest.mark.parametrize(("algorithm", "host"), [(algorithm, host_of(algorithm)) for algorithm in ALGORITHMS])
SMALL = {"learning_starts": 10, "buffer_size": 300, "batch_size": 8, "seed": 0}
OBSERVATIONS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def small(algorithm, **kwargs):
    return algorithm("MlpPolicy", "Pendulum-v1", **{"policy_kwargs": {"net_arch": [16]}, **SMALL, **kwargs})


@pairs
def test_a_pave_zip_loads_where_sb3_pave_cannot_be_imported(algorithm, host, tmp_path):
    model = small(algorithm).learn(40)
    model.save(tmp_path / "model.zip")
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    script = f"""
        import sys
        sys.modules["sb3_pave"] = None  # any import of it fails
        import numpy as np
        from {host.__module__} import {host.__name__}

        model = {host.__name__}.load("model.zip")
        actions, _ = model.predict(np.load("observations.npy"), deterministic=True)
        np.save("actions.npy", actions)
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)
    expected, _ = model.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_array_equal(np.load(tmp_path / "actions.npy"), expected)


@pairs
def test_nothing_of_sb3_pave_is_in_the_zip(algorithm, host, tmp_path):
    small(algorithm).learn(40).save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert all(b"sb3_pave" not in archive.read(name) for name in archive.namelist())


@pairs
def test_a_plain_agent_continues_with_pave(algorithm, host, tmp_path):
    plain = small(host, policy_kwargs={"net_arch": [16], "activation_fn": nn.SiLU}).learn(40)
    plain.save(tmp_path / "plain.zip")
    model = algorithm.load(tmp_path / "plain.zip", env=plain.get_env(), mpr_coef=0.3)
    assert isinstance(model, algorithm) and model.mpr_coef == 0.3 and model.curv_coef == 0.03
    np.testing.assert_array_equal(
        model.predict(OBSERVATIONS, deterministic=True)[0], plain.predict(OBSERVATIONS, deterministic=True)[0]
    )
    model.learn(40)
    assert np.isfinite(model.logger.name_to_value["train/mpr_loss"])


@pairs
def test_a_plain_relu_agent_keeps_its_activation_with_a_warning(algorithm, host, tmp_path):
    plain = small(host).learn(40)
    plain.save(tmp_path / "plain.zip")
    with pytest.warns(UserWarning, match="piecewise linear"):
        model = algorithm.load(tmp_path / "plain.zip", env=plain.get_env())
    assert layers_of(model.critic, nn.ReLU)
    model.learn(40)


@pairs
def test_a_misspelled_hyperparameter_is_refused_by_load(algorithm, host, tmp_path):
    small(host, policy_kwargs={"net_arch": [16], "activation_fn": nn.SiLU}).save(tmp_path / "plain.zip")
    with pytest.raises(TypeError, match=r"load\(\) got complie, .* Did you mean compile"):
        algorithm.load(tmp_path / "plain.zip", complie=True)
    with pytest.raises(TypeError, match=r"load\(\) got curv_coeff, .* Did you mean curv_coef"):
        algorithm.load(tmp_path / "plain.zip", curv_coeff=3.0)
    # What SB3 takes, and attributes of the user's own
    assert algorithm.load(tmp_path / "plain.zip", gamma=0.5, curve=1).curve == 1


@pairs
def test_hyperparameters_given_to_load_take_effect_and_are_checked(algorithm, host, tmp_path):
    small(algorithm, mpr_coef=0.7).save(tmp_path / "model.zip")
    assert algorithm.load(tmp_path / "model.zip").mpr_coef == 0.7
    assert algorithm.load(tmp_path / "model.zip", mpr_coef=0.3, learning_rate=1e-4).mpr_coef == 0.3
    with pytest.raises(ValueError, match="mpr_coef must be finite and not negative"):
        algorithm.load(tmp_path / "model.zip", mpr_coef=-5)


@pairs
def test_load_accepts_the_policy_arguments_that_the_user_gave(algorithm, host, tmp_path):
    given = {"net_arch": [16]}
    small(algorithm, policy_kwargs=given).save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", policy_kwargs={"net_arch": [16]})
    assert layers_of(loaded.critic, nn.SiLU)
    with pytest.raises(ValueError, match="do not equal the stored policy kwargs"):
        algorithm.load(tmp_path / "model.zip", policy_kwargs={"net_arch": [17]})
    with pytest.raises(ValueError, match="do not equal the stored policy kwargs"):
        algorithm.load(tmp_path / "model.zip", policy_kwargs={"net_arch": [16], "activation_fn": nn.ReLU})
    stream = io.BytesIO()
    small(algorithm, policy_kwargs=given).save(stream)
    stream.seek(0)
    algorithm.load(stream, policy_kwargs={"net_arch": [16]})


@pairs
def test_parameters_buffer_and_environments_survive(algorithm, host, tmp_path):
    model = small(algorithm).learn(60)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = algorithm.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 1))
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.replay_buffer.size() == model.replay_buffer.size() == 60
    assert type(loaded.replay_buffer) is type(model.replay_buffer)
    loaded.learn(30, reset_num_timesteps=False)
    assert loaded.num_timesteps == 90

    fresh = small(algorithm, seed=1)
    fresh.set_parameters(tmp_path / "model.zip")
    for name, value in fresh.policy.state_dict().items():
        assert th.equal(value, model.policy.state_dict()[name])
    several = algorithm.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", 2))
    several.learn(30)
    assert several.n_envs == 2


@pairs
def test_the_saved_optimizers_continue_as_if_not_interrupted(algorithm, host, tmp_path):
    model = small(algorithm).learn(60)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=model.get_env())
    loaded.replay_buffer = model.replay_buffer
    for continued in (model, loaded):
        continued._logger = model.logger
        continued.set_random_seed(7)
        continued.train(5, 8)
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, loaded.policy.state_dict()[name])


@pairs
def test_the_run_folder_carries_the_name_of_the_algorithm(algorithm, host, tmp_path):
    pytest.importorskip("tensorboard")
    model = small(algorithm, tensorboard_log=str(tmp_path))
    assert model.learn(30) is model
    model.learn(30, tb_log_name="mine")
    model.learn(30, None, 4, "positional", True, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{algorithm.__name__}_1", "mine_1", "positional_1"]


@pairs
@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bar(algorithm, host):
    pytest.importorskip("rich")
    small(algorithm).learn(30, progress_bar=True)


def test_what_is_fused_while_updates_run_is_not_in_the_optimizers_that_are_saved(tmp_path):
    model = small(PAVE_SAC).learn(40)
    model.save(tmp_path / "model")
    agents = (model, SAC.load(tmp_path / "model"))
    optimizers = [one for agent in agents for one in (agent.actor.optimizer, agent.critic.optimizer)]
    assert all(group["fused"] is None for one in optimizers for group in one.param_groups)


def test_what_is_saved_in_the_middle_of_an_update_is_not_fused_either(tmp_path):
    """As by the handler of a signal, or by another thread."""
    model = small(PAVE_SAC).learn(40)
    fused = []

    def save(optimizer, *_):
        fused.append(optimizer.param_groups[0]["fused"])
        model.save(tmp_path / "model")

    model.critic.optimizer.register_step_pre_hook(save)
    model.learn(1, reset_num_timesteps=False)
    saved = SAC.load(tmp_path / "model").get_parameters()
    groups = [group for name, state in saved.items() if name.endswith("optimizer") for group in state["param_groups"]]
    assert fused == [True] and [group["fused"] for group in groups] == [None] * 3
    assert not model.critic.optimizer._optimizer_state_dict_post_hooks
