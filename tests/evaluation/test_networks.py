"""Whose forward pass is one's own, and whose only rounds."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3

from sb3_pave.evaluation.actor_jacobian import actor_jacobian_norm
from sb3_pave.evaluation.geometry import critic_geometry
from sb3_pave.evaluation.networks import action_rounding, check_agreement
from sb3_pave.evaluation.rollout import record_rollout
from sb3_pave.evaluation.rollout_geometry import rollout_geometry
from tests.evaluation.test_geometry import BoxEnv, silu

ACTIONS = {
    "far from zero": ([1e6, -1e6 - 10], [1e6 + 10, -1e6]),
    "one of them": ([-1.0, 1e6], [1.0, 1e6 + 10]),
    "large": ([-1e6, -1e9], [1e6, 1e9]),
    "small": ([-1e-6, -1e-9], [1e-6, 1e-9]),
    "narrow": ([273.15, 1e4], [273.2, 1e4 + 0.5]),
}


def agent(algorithm, low, high):
    space = spaces.Box(np.array(low, np.float64), np.array(high, np.float64), dtype=np.float64)
    more = {PPO: {"n_steps": 8, "batch_size": 8}}.get(algorithm, {"buffer_size": 10})
    env = BoxEnv(spaces.Box(-1, 1, (3,), np.float32), space)
    return algorithm("MlpPolicy", env, policy_kwargs=silu(), device="cpu", seed=0, **more)


@pytest.mark.parametrize("algorithm", [SAC, TD3, PPO])
@pytest.mark.parametrize(("low", "high"), ACTIONS.values(), ids=ACTIONS)
def test_sb3s_own_policies_are_not_accused_wherever_actions_lie(algorithm, low, high):
    model = agent(algorithm, low, high)
    recorded = record_rollout(model, model.get_env(), 2, seed=0)
    geometry = rollout_geometry(model, recorded)
    assert geometry.actor_jacobian_norm is not None
    assert (geometry.critic is not None) == (algorithm is not PPO)
    if algorithm is not PPO:
        assert not geometry.notes
        # The network does not know its bounds: its Jacobian is that of the same network on [-1, 1]
        expected = actor_jacobian_norm(
            agent(algorithm, [-1, -1], [1, 1]), np.concatenate([e.observations for e in recorded.episodes])
        )
        np.testing.assert_allclose(geometry.actor_jacobian_norm, expected, rtol=1e-5)


@pytest.mark.parametrize(("low", "high"), ACTIONS.values(), ids=ACTIONS)
def test_an_actor_of_its_own_making_is_found_out_all_the_same(low, high):
    """A policy that answers with half of its action in the dimension that float32 knows best."""
    model = agent(SAC, low, high)
    model.actor.mu.weight.data *= 30.0
    rounding = action_rounding(model.action_space)
    k = int(rounding.argmin())
    predict = model.policy._predict

    def halved(*args, **kwargs):
        action = predict(*args, **kwargs).clone()
        action[:, k] *= 0.5
        return action

    model.policy._predict = halved
    with pytest.raises(ValueError, match="overrides its forward pass"):
        actor_jacobian_norm(model, model.observation_space.sample()[None].repeat(20, 0))


def test_the_rounding_of_an_action_is_what_float32_makes_of_it():
    """To the bounds and back in float32, against the same in float64; the estimate is an upper bound, and not a loose one."""
    rng = np.random.default_rng(0)
    for low, high in ACTIONS.values():
        space = spaces.Box(np.array(low, np.float64), np.array(high, np.float64), dtype=np.float64)
        scaled = rng.uniform(-1, 1, (2000, 2)).astype(np.float32)
        low32, high32 = space.low.astype(np.float32), space.high.astype(np.float32)
        there = low32 + np.float32(0.5) * (scaled + np.float32(1)) * (high32 - low32)
        back = 2.0 * (there.astype(np.float64) - space.low) / (space.high - space.low) - 1.0
        worst = np.abs(back - scaled).max(axis=0)
        estimate = action_rounding(space)
        assert (worst <= estimate).all() and (estimate < 50 * np.maximum(worst, 1e-8)).all()


def test_tolerance_is_relative_to_what_is_compared():
    network = th.nn.Identity()
    check_agreement(th.tensor([1e6 + 500.0]), th.tensor([1e6]), network)
    with pytest.raises(ValueError, match="overrides"):
        check_agreement(th.tensor([1e6 + 2000.0]), th.tensor([1e6]), network)
    check_agreement(th.tensor([[0.0, 0.5]]), th.tensor([[0.0, 0.0]]), network, np.array([0.0, 0.6]))
    with pytest.raises(ValueError, match="overrides"):
        check_agreement(th.tensor([[0.5, 0.0]]), th.tensor([[0.0, 0.0]]), network, np.array([0.0, 0.6]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diverged_network_is_not_called_overridden(value):
    model = agent(TD3, [-1, -1], [1, 1])
    model.critic.qf0[0].bias.data[:] = value
    with pytest.raises(ValueError, match="diverged"):
        critic_geometry(model, np.zeros((2, 3), np.float32), np.zeros((2, 2)))
