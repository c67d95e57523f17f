"""``scale_free=True`` in an agent: rewards in other units, saving and loading, every way to do an update, the guard."""

import copy
import warnings
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from torch import nn

from sb3_pave import PAVE_SAC, PAVE_TD3, pave
from sb3_pave.algorithms.diagnostics import Diagnostics
from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.fast_execution import ClosedForm, StandIns
from sb3_pave.algorithms.units import PAPER, SCALE_FREE
from sb3_pave.method.scales import Scales
from tests.algorithms.own_algorithms import with_own_train
from tests.algorithms.scenarios import ALGORITHMS, make

SMALL = dict(learning_starts=60, batch_size=32, buffer_size=500, seed=0, policy_kwargs={"net_arch": [16]})


def scaled(factor):
    return gym.wrappers.TransformReward(gym.make("Pendulum-v1"), lambda reward: factor * reward)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_host_learns_its_scales(algorithm):
    assert make(algorithm, "mlp", scale_free=True, mpr_coef=0).learn(60)._n_updates > 0
    model = make(algorithm, "mlp", scale_free=True).learn(60)
    log = model.logger.name_to_value
    assert log["train/return_scale"] > 0 and th.isfinite(model._scales.spread()).all()
    assert log["train/field_turn_noise"] > 0 and log["train/field_turn_step"] > 0


def test_the_published_delta_without_its_units_is_warned_of():
    published = {"mpr_coef": 2.0, "vfc_coef": 0.005, "curv_coef": 2.0, "mpr_sigma": 0.01, "curv_delta": 1.0}
    with pytest.warns(UserWarning, match=r"curv_delta=1 counts in ranges of the return.*scale_free=False"):
        PAVE_TD3("MlpPolicy", "Pendulum-v1", **published, **SMALL)
    PAVE_TD3("MlpPolicy", "Pendulum-v1", scale_free=False, **published, **SMALL)  # an error of pytest's if it warns
    PAVE_TD3("MlpPolicy", "Pendulum-v1", curv_delta=1.0, curv_coef=0, mpr_coef=0, vfc_coef=0, **SMALL)


def test_batches_of_one_transition_have_no_units():
    with pytest.warns(UserWarning, match=r"batch_size=1: .* MPR and Curv do nothing.*scale_free=False"):
        PAVE_SAC("MlpPolicy", "Pendulum-v1", batch_size=1, buffer_size=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PAVE_SAC("MlpPolicy", "Pendulum-v1", batch_size=1, buffer_size=10, scale_free=False)


def test_a_flag_that_is_none_is_refused_after_construction_too():
    model = PAVE_TD3("MlpPolicy", "Pendulum-v1", **SMALL)
    model.scale_free = "False"
    with pytest.raises(ValueError, match="scale_free must be True or False"):
        model.learn(65)


@pytest.mark.parametrize("way", [ClosedForm, StandIns])
@pytest.mark.parametrize("rows", [None, 8])
def test_every_way_gives_the_definitions_numbers(way, rows, monkeypatch):
    def update(execution):
        monkeypatch.setattr("sb3_pave.algorithms.mixin.choose_execution", execution)
        model = PAVE_SAC("MlpPolicy", "Pendulum-v1", scale_free=True, pave_batch_size=rows, **SMALL).learn(60)
        th.manual_seed(1)
        np.random.seed(1)
        model.train(10, batch_size=32)
        return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()]), model._scales.return_scale

    (ours, scale), (expected, expected_scale) = update(way), update(Execution)
    th.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    th.testing.assert_close(scale, expected_scale)


def test_rewards_in_other_units_train_alike():
    """One step of SGD on the last layers, which grow with the rewards: the same step, times the factor, bit for bit."""

    def step(factor):
        policy_kwargs = dict(net_arch=[16], optimizer_class=th.optim.SGD)
        model = PAVE_TD3("MlpPolicy", scaled(factor), scale_free=True, **{**SMALL, "policy_kwargs": policy_kwargs})
        for critic in (model.critic, model.critic_target):
            for network in critic.q_networks:
                network[-1].weight.data *= factor
                network[-1].bias.data *= factor
        model.learn(60)  # collects
        before = [network[-1].weight.detach().clone() for network in model.critic.q_networks]
        model.train(1, batch_size=32)
        return [network[-1].weight.detach() - own for network, own in zip(model.critic.q_networks, before, strict=True)]

    for plain, larger in zip(step(1.0), step(64.0), strict=True):
        assert plain.abs().max() > 0
        th.testing.assert_close(larger, 64 * plain, rtol=1e-5, atol=1e-6 * 64)


def test_what_was_learned_of_the_data_is_in_the_zip_as_plain_numbers(tmp_path):
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", scale_free=True, **SMALL).learn(90)
    model.save(tmp_path / "agent")
    plain = SAC.load(tmp_path / "agent")
    assert type(plain.return_scale) is float and type(plain.observation_spread) is np.ndarray
    loaded = PAVE_SAC.load(tmp_path / "agent", env=model.get_env())
    assert loaded.scale_free is True
    for ours, own in zip(loaded._scales.tensors, model._scales.tensors, strict=True):
        th.testing.assert_close(ours, own)


def test_parameters_of_another_time_have_another_scale(tmp_path):
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", **SMALL).learn(90)
    good = copy.deepcopy(model.get_parameters())
    model._scales.return_scale.fill_(1e6)  # as after rewards that were wrong for a while
    model.save(tmp_path / "agent")
    assert PAVE_SAC.load(tmp_path / "agent")._scales.return_scale == 1e6
    model.set_parameters(good)
    model.train(1, 32)
    assert 0 < model._scales.return_scale < 1e3


def test_an_agent_with_parameters_from_before_a_broken_reward_goes_on():
    model = PAVE_TD3("MlpPolicy", "Pendulum-v1", **SMALL).learn(90)
    good, rewards = copy.deepcopy(model.get_parameters()), model.replay_buffer.rewards.copy()
    model.replay_buffer.rewards[:] = np.nan
    with pytest.raises(ValueError, match="probably the TD loss was not finite"):
        model.train(2, 32)
    model.replay_buffer.rewards[:] = rewards
    model.set_parameters(good)
    model.train(2, 32)
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_load_changes_the_meaning_of_the_weights_with_the_weights(tmp_path):
    PAVE_SAC("MlpPolicy", "Pendulum-v1", scale_free=False, curv_coef=0.5, **SMALL).save(tmp_path / "paper")
    PAVE_SAC("MlpPolicy", "Pendulum-v1", scale_free=True, curv_coef=0.03, **SMALL).save(tmp_path / "free")
    SAC("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": {"activation_fn": nn.SiLU}}).save(tmp_path / "plain")

    def weights(name, **kwargs):
        model = PAVE_SAC.load(tmp_path / name, **kwargs)
        return model.scale_free, {key: getattr(model, key) for key in PAPER}

    assert weights("paper") == (False, {**PAPER, "curv_coef": 0.5})
    assert weights("free") == (True, {**SCALE_FREE, "curv_coef": 0.03})
    assert weights("paper", scale_free=True) == (True, SCALE_FREE)
    assert weights("free", scale_free=False, vfc_coef=0.3) == (False, {**PAPER, "vfc_coef": 0.3})
    assert weights("paper", custom_objects={"scale_free": True, "curv_coef": 0.7}) == (True, {**SCALE_FREE, "curv_coef": 0.7})
    assert weights("paper", scale_free=True, custom_objects={"curv_coef": 0.7}) == (True, {**SCALE_FREE, "curv_coef": 0.7})
    assert weights("plain", scale_free=True) == (True, SCALE_FREE)
    assert weights("plain", scale_free=False) == (False, PAPER)


def test_a_zip_from_before_has_the_papers_units(tmp_path):
    model = PAVE_TD3("MlpPolicy", "Pendulum-v1", scale_free=False, curv_coef=2.0, **SMALL)
    model.save(tmp_path / "old", exclude=["scale_free", "return_scale", "observation_spread"])
    loaded = PAVE_TD3.load(tmp_path / "old", env=model.get_env())
    assert loaded.scale_free is False and loaded.curv_coef == 2.0
    TD3.load(tmp_path / "old")


def test_around_a_train_of_the_users_own_the_range_of_returns_is_that_of_the_critics_mean_value():
    model = pave(with_own_train(SAC))("MlpPolicy", "Pendulum-v1", scale_free=True, **SMALL).learn(60)  # collects
    np.random.seed(1)
    batch = model.replay_buffer.sample(32)
    with th.no_grad():
        values = th.cat(model.critic(batch.observations, batch.actions), dim=1)
    np.random.seed(1)
    model.train(1, batch_size=32)
    low, high = np.percentile(values.mean(dim=1).numpy(), [5, 95])
    assert model._scales.return_scale.item() == pytest.approx(high - low, rel=1e-4)
    assert model.logger.name_to_value["train/return_scale"] == pytest.approx(high - low, rel=1e-4)


@pytest.mark.parametrize("algorithm", [PAVE_SAC, pave(with_own_train(SAC))])
def test_the_log_has_the_range_of_returns_of_each_update(algorithm, monkeypatch):
    monkeypatch.setattr(Scales, "observe", lambda self, *_: self.return_scale.add_(1))
    model = algorithm("MlpPolicy", "Pendulum-v1", **SMALL).learn(60)  # collects
    model.train(3, batch_size=32)
    assert model._scales.return_scale == 3 and model.logger.name_to_value["train/return_scale"] == (1 + 2 + 3) / 3


def test_the_turn_of_the_field_is_its_change_over_its_size():
    diagnostics = Diagnostics()
    # Two critics: the losses are sums, the RMS is a mean
    turns = diagnostics.turns({"action_grad_rms": [2.0, 4.0], "mpr_loss": [0.8, 0.8], "vfc_loss": [4.0, 4.0]}, n_critics=2)
    average = 4.0 + 0.01 * (16.0 - 4.0)
    assert turns["field_turn_noise"] == pytest.approx([0.4 / 4.0, 0.4 / average])
    assert turns["field_turn_step"] == pytest.approx([2.0 / 4.0, 2.0 / average])
    assert Diagnostics().turns({"critic_loss": [1.0]}, n_critics=1) == {}
    # A flat field does not turn, and the average begins after it
    assert Diagnostics().turns({"action_grad_rms": [0.0, 2.0], "mpr_loss": [0.0, 0.8]}, n_critics=1) == {
        "field_turn_noise": [0.2]
    }


def test_one_warning_when_a_term_drowns_the_task():
    def updates(curv_loss, n):
        return {"td_loss": [0.1] * n, "mpr_loss": [0.001] * n, "curv_loss": [curv_loss] * n}, {
            "mpr_loss": [1.0] * n,
            "curv_loss": [2.0] * n,
        }

    diagnostics = Diagnostics()
    diagnostics.watch(*updates(1.0, 1999), "Lower {term}_coef.")
    with pytest.warns(UserWarning, match=r"weighted curv term has been 20 times the TD loss.*Lower curv_coef\.") as caught:
        diagnostics.watch(*updates(1.0, 1), "Lower {term}_coef.")
        diagnostics.watch(*updates(1.0, 3000), "Lower {term}_coef.")
    assert len(caught) == 1
    Diagnostics().watch(*updates(0.4, 3000), "")  # 8 times: the critic may still be on its way


def watched(values, n=2000, diagnostics=None, **hyperparameters):
    """The warnings about an agent with two action dimensions, each of whose updates logged these values."""
    model = SimpleNamespace(action_space=spaces.Box(-1, 1, (2,)), **hyperparameters)
    model._coefs = lambda: {"mpr": 0.0, "vfc": 0.0, "curv": model.curv_coef}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (diagnostics or Diagnostics()).watch_agent(model, {tag: [value] * n for tag, value in values.items()})
    return [str(warning.message) for warning in caught]


def test_the_papers_curvature_is_steep_by_ranges_of_the_return_per_action_dimension():
    papers = {"scale_free": False, "curv_coef": 1.0, "curv_delta": 1.0}
    assert not watched({"return_scale": 2.0}, **papers)  # a quarter
    assert not watched({"return_scale": 1.0}, **{**papers, "curv_coef": 0.0})
    (warning,) = watched({"return_scale": 1.0}, **papers)
    assert "curvature of 0.5 times" in warning and "use scale_free=True" in warning


def test_curvature_has_to_be_steep_over_the_whole_window():
    papers, diagnostics = {"scale_free": False, "curv_coef": 1.0, "curv_delta": 1.0}, Diagnostics()
    for return_scale, n in ((1.0, 1999), (2.0, 1), (1.0, 1999)):
        assert not watched({"return_scale": return_scale}, n, diagnostics, **papers)
    assert len(watched({"return_scale": 1.0}, 1, diagnostics, **papers)) == 1


@pytest.mark.parametrize(("huber_share", "times"), [({}, 15), ({"huber_share": 0.8}, 12), ({"huber_share": 0.5}, None)])
def test_scale_free_curv_is_watched_with_the_weight_that_it_has_in_the_loss(huber_share, times):
    # 1.0 / 2 * 3 of the loss is 15 times the TD loss; 10 times, and nobody is warned
    values = {"td_loss": 0.1, "curv_loss": 1.0, "return_scale": 3.0, **huber_share}
    found = watched(values, scale_free=True, curv_coef=1.0)
    if times is None:
        assert not found
    else:
        assert len(found) == 1 and f"weighted curv term has been {times} times the TD loss" in found[0]


def test_rewards_far_below_the_weights_units_are_said():
    settings = {**SMALL, "buffer_size": 3000, "batch_size": 16, "train_freq": 100, "gradient_steps": 400}
    model = PAVE_TD3("MlpPolicy", scaled(1e-3), scale_free=False, curv_coef=2.0, **settings)
    with pytest.warns(UserWarning, match="asks for a curvature of .* lower curv_coef .* or use scale_free=True"):
        model.learn(700)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_logged_turn_is_that_of_the_mean_over_the_agents_critics(algorithm):
    model = make(algorithm, "mlp").learn(20)  # collects
    model.train(1, 8)
    log, n_critics = model.logger.name_to_value, len(model.critic.q_networks)
    for tag, loss in (("field_turn_noise", "mpr_loss"), ("field_turn_step", "vfc_loss")):
        expected = log[f"train/{loss}"] / n_critics / log["train/action_grad_rms"] ** 2
        assert log[f"train/{tag}"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_range_of_returns_is_that_of_the_targets_which_hold_the_next_value(algorithm):
    model = make(algorithm, "mlp").learn(20)  # collects
    model.replay_buffer.rewards[:] = 0
    model.train(1, 8)
    assert model._scales.return_scale > 0


def test_before_the_first_reward_the_papers_curvature_is_not_called_steep():
    assert not watched({"return_scale": 0.0}, scale_free=False, curv_coef=1.0, curv_delta=1.0)


def test_a_term_that_drowned_the_task_at_the_beginning_alone_is_forgotten():
    td_loss, curv_loss = [0.1] * 2000, [10.0] * 100 + [0.1] * 1900
    Diagnostics().watch({"td_loss": td_loss, "curv_loss": curv_loss}, {"curv_loss": [2.0] * 2000}, "")


def test_the_other_terms_are_watched_with_hubers_share_too():
    model = SimpleNamespace(action_space=spaces.Box(-1, 1, (2,)), scale_free=True, curv_coef=0.0)
    model._coefs = lambda: {"mpr": 1.0, "vfc": 0.0, "curv": 0.0}
    values = {"td_loss": 0.1, "mpr_loss": 1.5, "return_scale": 1.0, "huber_share": 0.5}
    Diagnostics().watch_agent(model, {tag: [value] * 2000 for tag, value in values.items()})  # 7.5 times the TD loss
