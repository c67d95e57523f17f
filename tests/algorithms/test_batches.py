"""What the terms compare: perturbed observations and one-step successors."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pave import PAVE_SAC, pave
from sb3_pave.algorithms.fast_execution import choose_execution
from sb3_pave.method.perturbation import is_perturbable, perturb
from sb3_pave.method.successor import sample_with_successor
from tests.algorithms.environments import CountingEnv, RandomObservationEnv, is_one_step
from tests.algorithms.own_algorithms import OWN_TRAIN
from tests.algorithms.scenarios import (
    ALGORITHMS,
    EVERY_POLICY,
    HAS_N_STEPS,
    DroppingExtractor,
    NormalizedExtractor,
    host_of,
    layers_of,
)
from tests.method.closed_form import field_in_training

every = pytest.mark.parametrize("algorithm", ALGORITHMS)
IMAGE = spaces.Box(0, 255, (3, 8, 8), np.uint8)
MIXED = spaces.Dict(image=IMAGE, kind=spaces.Discrete(3), vector=spaces.Box(-1, 1, (4,), np.float64))
SMALL = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 5, "buffer_size": 40, "batch_size": 32, "seed": 0}


def test_vectors_get_gaussian_noise_of_the_given_deviation():
    th.manual_seed(0)
    observations = th.zeros(50_000, 3)
    noise = perturb(observations, spaces.Box(-1, 1, (3,)), sigma=0.01)
    assert noise.mean().abs() < 1e-4 and noise.std().item() == pytest.approx(0.01, rel=0.01)
    assert (observations == 0).all()


def test_images_get_it_on_the_scale_that_the_critic_sees():
    th.manual_seed(0)
    images = th.full((500, 3, 8, 8), 100, dtype=th.uint8)
    assert ((perturb(images, IMAGE, 0.01) - 100) / 255).std().item() == pytest.approx(0.01, rel=0.02)


def test_half_precision_gets_noise_that_it_could_not_hold():
    observations = th.full((1000, 3), 1000.0, dtype=th.float16)
    noise = perturb(observations, spaces.Box(-1e4, 1e4, (3,), np.float16), 0.01) - observations
    assert noise.std().item() == pytest.approx(0.01, rel=0.05)


def test_of_a_dict_only_continuous_entries_change_and_keep_their_type():
    batch = {"image": th.zeros(4, 3, 8, 8, dtype=th.uint8), "kind": th.ones(4, 1), "vector": th.zeros(4, 4).double()}
    noisy = perturb(batch, MIXED, 0.01)
    assert noisy["kind"] is batch["kind"]
    assert (noisy["vector"] != 0).all() and noisy["vector"].dtype == th.float64
    assert (noisy["image"] != 0).all()


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Box(-1, 1, (2,)), True),
        (IMAGE, True),
        (MIXED, True),
        (spaces.Discrete(3), False),
        (spaces.MultiBinary(3), False),
        (spaces.MultiDiscrete([2, 3]), False),
        (spaces.Box(0, 5, (2,), np.int64), False),
        (spaces.Dict(a=spaces.Discrete(3)), False),
    ],
)
def test_which_spaces_can_be_perturbed(space, expected):
    assert is_perturbable(space) is expected


class OneKey(gym.ObservationWrapper):
    """The same observations as a Dict."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = spaces.Dict(only=env.observation_space)

    def observation(self, observation):
        return {"only": observation}


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if host_of(a) in EVERY_POLICY])
def test_a_dict_with_one_key_trains_like_the_flat_environment(algorithm):
    flat = algorithm("MlpPolicy", "Pendulum-v1", **SMALL).learn(60)
    one_key = algorithm("MultiInputPolicy", OneKey(gym.make("Pendulum-v1")), **SMALL).learn(60)
    for ours, theirs in zip(flat.policy.parameters(), one_key.policy.parameters(), strict=True):
        assert th.equal(ours, theirs)


def collect(algorithm=SAC, terminates=False, n_envs=1, **kwargs):
    """A model that has filled its buffer with ``[episode, step]`` observations, of 4 steps an episode."""
    env = make_vec_env(lambda: CountingEnv(terminates=terminates), n_envs=n_envs)
    return algorithm("MlpPolicy", env, learning_starts=1000, buffer_size=40, seed=0, **kwargs).learn(60)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_successor_is_the_stored_next_observation_also_across_a_termination(n_envs):
    model = collect(terminates=True, n_envs=n_envs)
    replay_data, successor = sample_with_successor(model.replay_buffer, partial(model.replay_buffer.sample, 200))
    assert successor.exists is None and replay_data.dones.any()
    assert is_one_step(replay_data.observations, successor.observations).all()


@pytest.mark.skipif(not HAS_N_STEPS, reason="this SB3 has no n-step returns")
@pytest.mark.parametrize("n_envs", [1, 3])
def test_with_n_step_returns_the_successor_is_still_one_step_away(n_envs):
    model = collect(n_steps=3, n_envs=n_envs)
    np.random.seed(5)
    expected = model.replay_buffer.sample(200)
    after = np.random.random()
    np.random.seed(5)
    replay_data, successor = sample_with_successor(model.replay_buffer, partial(model.replay_buffer.sample, 200))
    assert np.random.random() == after and model.replay_buffer.n_steps == 3
    for ours, own in zip(replay_data, expected, strict=True):
        assert th.equal(ours, own)
    assert not th.equal(replay_data.next_observations, successor.observations)
    assert is_one_step(replay_data.observations, successor.observations).all()


@pytest.mark.skipif(not HAS_N_STEPS, reason="this SB3 has no n-step returns")
def test_another_threads_random_numbers_in_the_middle_do_not_end_the_training():
    buffer = collect(n_steps=3).replay_buffer
    n_draws = 0

    def draw():
        nonlocal n_draws
        n_draws += 1
        if n_draws == 2:  # the repetition of the first draw
            np.random.random(7)
        return buffer.sample(200)

    replay_data, successor = sample_with_successor(buffer, draw)
    assert n_draws == 4 and is_one_step(replay_data.observations, successor.observations).all()


class Forgetful(ReplayBuffer):
    """Never draws the same transitions again."""

    n_steps = 3

    def sample(self, batch_size, env=None):
        np.random.seed(None)
        return super().sample(batch_size, env)


@pytest.mark.skipif(not HAS_N_STEPS, reason="this SB3 has no n-step returns")
@every
def test_an_n_step_buffer_that_cannot_repeat_its_draw_is_refused(algorithm):
    with pytest.warns(UserWarning, match="custom `replay_buffer_class`"):
        model = algorithm("MlpPolicy", CountingEnv(), **{**SMALL, "n_steps": 3, "replay_buffer_class": Forgetful})
    with pytest.raises(ValueError, match="does not draw the same transitions again"):
        model.learn(30)


@pytest.mark.parametrize("terminates", [False, True])
def test_in_a_memory_optimized_buffer_the_next_episodes_first_observation_is_left_out(terminates):
    model = collect(
        terminates=terminates, optimize_memory_usage=True, replay_buffer_kwargs={"handle_timeout_termination": False}
    )
    replay_data, successor = sample_with_successor(model.replay_buffer, partial(model.replay_buffer.sample, 300))
    assert 0 < successor.exists.sum() < 300
    follows = is_one_step(replay_data.observations, successor.observations)
    assert not follows.all()  # SB3's batch does hold first observations of other episodes
    assert follows[successor.exists == 1].all()
    assert th.equal(successor.exists == 0, replay_data.dones.flatten() == 1)


def test_noise_is_added_to_what_vec_normalize_gives():
    env = VecNormalize(make_vec_env(CountingEnv, 1))
    model = PAVE_SAC("MlpPolicy", env, **SMALL).learn(60)
    replay_data, successor = model._sample(32)
    np.testing.assert_allclose(
        replay_data.observations.numpy(), env.normalize_obs(env.unnormalize_obs(replay_data.observations.numpy())), atol=1e-5
    )
    assert replay_data.observations.abs().max() <= env.clip_obs
    field = field_in_training(model.critic, model._field_inputs(replay_data, successor))
    assert th.isfinite(field.grad_noisy).all()


def test_curv_looks_along_signs_drawn_anew_for_each_sample_and_dimension():
    env = RandomObservationEnv(spaces.Box(-1, 1, (4,), np.float32))
    env.action_space = spaces.Box(-1, 1, (3,), np.float32)
    model = PAVE_SAC("MlpPolicy", env, **SMALL).learn(5)  # collects
    first, second = (model._field_inputs(*model._sample(100)).direction for _ in range(2))
    assert (first.abs() == 1).all() and len(first.unique(dim=0)) == 2**3
    assert not th.equal(first, second)


@every
def test_the_field_neither_moves_running_statistics_nor_sees_dropout(algorithm):
    for extractor in (NormalizedExtractor, DroppingExtractor):
        model = algorithm(
            "MlpPolicy",
            "Pendulum-v1",
            **{**SMALL, "policy_kwargs": {"net_arch": [8], "features_extractor_class": extractor}},
        ).learn(30)
        model.policy.set_training_mode(True)
        before = {name: value.clone() for name, value in model.critic.state_dict().items()}
        replay_data, successor = model._sample(32)
        still = successor._replace(observations=replay_data.observations)
        field = field_in_training(model.critic, model._field_inputs(replay_data, still))
        # A state that stays where it is has the same field: no mask and no batch statistics differ
        assert th.equal(field.grad_next, field.grad)
        assert all(th.equal(value, before[name]) for name, value in model.critic.state_dict().items())
        assert all(module.training for module in model.critic.modules())


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, pave(OWN_TRAIN[SAC])])
def test_running_statistics_move_as_in_the_host(algorithm):
    def first_update(**weights):
        policy_kwargs = {"net_arch": [8], "features_extractor_class": NormalizedExtractor}
        model = algorithm("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": policy_kwargs, **weights})
        model.learn(6)
        return model.critic.features_extractor.norm

    ours, plain = first_update(), first_update(mpr_coef=0, vfc_coef=0, curv_coef=0)
    assert ours.num_batches_tracked == plain.num_batches_tracked > 0
    assert th.equal(ours.running_mean, plain.running_mean) and th.equal(ours.running_var, plain.running_var)


@every
def test_each_weight_scales_its_own_gradient(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", scale_free=False, **SMALL).learn(30)
    model.policy.set_training_mode(False)
    replay_data, successor = model._sample(32)

    def critic_gradient(**weights):
        for name in ("mpr_coef", "vfc_coef", "curv_coef"):
            setattr(model, name, weights.get(name, 0.0))
        th.manual_seed(0)
        weights = [layers_of(network, nn.Linear)[0].weight for network in model.critic.q_networks]
        model.critic.zero_grad()
        loss, _ = choose_execution(model).terms(model._critic_terms(replay_data, successor, replay_data.rewards))
        loss.backward(inputs=weights)
        return th.cat([weight.grad.flatten() for weight in weights])

    single = {name: critic_gradient(**{name: 1.0}) for name in ("vfc_coef", "curv_coef", "mpr_coef")}
    for name, grad in single.items():
        assert grad.abs().max() > 0
        th.testing.assert_close(critic_gradient(**{name: 3.0}), 3 * grad)


@pytest.mark.skipif(not HAS_N_STEPS, reason="this SB3 has no n-step returns")
@pytest.mark.parametrize("algorithm", [PAVE_SAC, pave(OWN_TRAIN[SAC])])
def test_without_vfc_an_n_step_buffer_need_not_repeat_its_draw(algorithm):
    with pytest.warns(UserWarning, match="custom `replay_buffer_class`"):
        model = algorithm(
            "MlpPolicy", CountingEnv(), **{**SMALL, "n_steps": 3, "replay_buffer_class": Forgetful, "vfc_coef": 0.0}
        )
    model.learn(30)
    assert model.logger.name_to_value["train/mpr_loss"] > 0
