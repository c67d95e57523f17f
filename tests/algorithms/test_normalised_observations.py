"""MPR perturbs what the critic sees: integers under VecNormalize are floats of standard deviation 1 to it."""

import warnings

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_pave import PAVE_SAC, PAVE_TD3, pave
from sb3_pave.method.perturbation import is_perturbable, normalised_space, perturb
from tests.algorithms.environments import RandomObservationEnv

SMALL = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 20, "buffer_size": 200, "batch_size": 64, "seed": 0}
COUNTS = spaces.Box(0, 4096, (4,), np.int32)
SIGMA = 0.01
MIXED = spaces.Dict(
    {
        "counts": COUNTS,
        "bytes": spaces.Box(0, 255, (3,), np.uint8),
        "angles": spaces.Box(-1, 1, (2,), np.float32),
        "cell": spaces.Discrete(5),
    }
)


def vec_normalize(space, **kwargs):
    return VecNormalize(DummyVecEnv([lambda: RandomObservationEnv(space)]), **kwargs)


def change(model):
    """What MPR's noise is at a batch, an entry at a time: standard deviations of the noise and of the observations."""
    replay_data, successor = model._sample(64)
    before, after = replay_data.observations, model._field_inputs(replay_data, successor).noisy_observations
    if not isinstance(before, dict):
        before, after = {"": before}, {"": after}
    return {key: ((after[key] - before[key]).float().std().item(), before[key].float().std().item()) for key in before}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("algorithm", [PAVE_SAC, PAVE_TD3])
def test_normalised_integers_get_noise_of_sigma(algorithm, dtype):
    env = vec_normalize(spaces.Box(0, 100, (4,), dtype))
    model = algorithm("MlpPolicy", env, mpr_sigma=SIGMA, **SMALL).learn(40)
    noise, observations = change(model)[""]
    assert noise == pytest.approx(SIGMA, rel=0.2) and 0.5 < observations < 2
    assert model.logger.name_to_value["train/mpr_loss"] > 0


@pytest.mark.parametrize(
    ("keys", "perturbed"),
    [
        (["counts", "bytes", "angles"], {"counts", "bytes", "angles"}),
        (["counts"], {"counts", "angles"}),
        (["angles"], {"angles"}),
        ([], {"angles"}),
    ],
)
def test_of_a_dict_the_normalised_entries_and_the_floats_get_noise(keys, perturbed):
    env = vec_normalize(MIXED, norm_obs_keys=keys)
    model = PAVE_SAC("MultiInputPolicy", env, mpr_sigma=SIGMA, scale_free=False, **SMALL).learn(40)
    for key, (noise, _) in change(model).items():
        assert noise == (pytest.approx(SIGMA, rel=0.25) if key in perturbed else 0), key


def test_scale_free_noise_is_in_standard_deviations_of_what_the_critic_sees():
    env = vec_normalize(COUNTS)
    model = PAVE_SAC("MlpPolicy", env, mpr_sigma=SIGMA, scale_free=True, **SMALL).learn(60)
    noise, observations = change(model)[""]
    assert noise == pytest.approx(SIGMA * observations, rel=0.3)
    with pytest.warns(UserWarning, match="MPR contributes nothing"):
        model = PAVE_SAC("MlpPolicy", vec_normalize(COUNTS, norm_obs=False), scale_free=True, **SMALL).learn(30)
    assert "train/mpr_loss" not in model.logger.name_to_value and "train/vfc_loss" in model.logger.name_to_value


def test_a_vecnormalize_of_rewards_alone_leaves_integers_integers():
    env = vec_normalize(COUNTS, norm_obs=False)
    with pytest.warns(UserWarning, match="MPR contributes nothing"):
        PAVE_SAC("MlpPolicy", env, **SMALL).learn(25)
    with pytest.warns(UserWarning, match="MPR contributes nothing"):
        PAVE_SAC("MultiInputPolicy", vec_normalize(spaces.Dict({"counts": COUNTS}), norm_obs=False), **SMALL)


def test_another_normalisation_by_set_env_counts_from_the_next_update():
    normalised, raw = vec_normalize(COUNTS), vec_normalize(COUNTS, norm_obs=False)
    model = PAVE_SAC("MlpPolicy", normalised, **SMALL).learn(30)
    assert model.logger.name_to_value["train/mpr_loss"] > 0
    model.set_env(raw)
    with pytest.warns(UserWarning, match="MPR contributes nothing") as warned:
        model.learn(30)
    assert len(warned) == 1 and "train/mpr_loss" not in model.logger.name_to_value
    model.set_env(normalised)
    model.learn(30)
    assert model.logger.name_to_value["train/mpr_loss"] > 0


def test_a_loaded_agent_takes_the_normalisation_of_its_new_environment(tmp_path):
    env = vec_normalize(COUNTS)
    PAVE_SAC("MlpPolicy", env, **SMALL).learn(30).save(tmp_path / "agent")
    model = PAVE_SAC.load(tmp_path / "agent")  # no environment: no warning
    model.set_env(env)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(30)
    assert change(model)[""][0] > 0


def test_around_a_train_of_the_users():
    class OwnTrain(SAC):
        normalising = True

        def train(self, gradient_steps, batch_size=64):
            for _ in range(gradient_steps):
                batch = self.replay_buffer.sample(batch_size, self._vec_normalize_env if self.normalising else None)
                loss = sum(q.square().mean() for q in self.critic(batch.observations, batch.actions))
                self.critic.optimizer.zero_grad()
                loss.backward()
                self.critic.optimizer.step()

    model = pave(OwnTrain)("MlpPolicy", vec_normalize(COUNTS), **SMALL).learn(30)
    assert model.logger.name_to_value["train/mpr_loss"] > 0
    # Drawn raw, they are integers to the critic
    model.normalising = False
    model.learn(30)
    assert model.logger.name_to_value["train/mpr_loss"] == 0


def test_images_and_floats_are_normalised_into_what_they_are():
    image = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    env = vec_normalize(image)
    assert normalised_space(image, None) is image
    assert noise_of(normalised_space(env.observation_space, env), env.observation_space.shape) == pytest.approx(SIGMA, rel=0.1)
    double = spaces.Box(-1, 1, (2,), np.float64)
    assert normalised_space(double, vec_normalize(double)) is double
    assert is_perturbable(normalised_space(COUNTS, vec_normalize(COUNTS))) and not is_perturbable(COUNTS)
    # Beside a normalised vector it stays an image, and gets its noise
    both = spaces.Dict(image=image, counts=COUNTS)
    seen = normalised_space(both, vec_normalize(both, norm_obs_keys=["counts"]))
    assert seen["image"] is image and is_perturbable(seen["counts"])
    noisy = perturb({"image": th.zeros(20, *image.shape, dtype=th.uint8), "counts": th.zeros(2000, 4)}, seen, SIGMA)
    assert noisy["image"].std().item() == pytest.approx(255 * SIGMA, rel=0.1)
    assert noisy["counts"].std().item() == pytest.approx(SIGMA, rel=0.1)


def noise_of(space, shape):
    return perturb(th.zeros(20, *shape), space, SIGMA).std().item()
