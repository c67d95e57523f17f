"""The callback beside SB3's own: the same training, the same files, more in them."""

from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_pave.callbacks import SmoothnessEvalCallback
from sb3_pave.evaluation.rollout import record_rollout
from sb3_pave.evaluation.rollout_geometry import rollout_geometry


class Dumps(KVWriter):
    """Keeps what is dumped, with its timestep."""

    def __init__(self):
        self.rows = {}

    def write(self, key_values, key_excluded, step=0):
        self.rows.setdefault(step, {}).update(key_values)

    def close(self):
        pass


def small(env="Pendulum-v1", **kwargs):
    policy_kwargs = {"net_arch": [8], "activation_fn": nn.SiLU}
    return SAC("MlpPolicy", env, policy_kwargs=policy_kwargs, seed=0, device="cpu", learning_starts=20, **kwargs)


def seeded(n_envs=1, env_id="Pendulum-v1"):
    return make_vec_env(env_id, n_envs=n_envs, seed=5)


def learn(callback, model=None, steps=100):
    model, dumps = model or small(), Dumps()
    model.set_logger(Logger(None, [dumps]))
    model.learn(steps, callback=callback)
    return model, dumps.rows


def test_training_best_model_and_sb3s_numbers_are_those_of_evalcallback(tmp_path):
    theirs = EvalCallback(seeded(), eval_freq=50, n_eval_episodes=2, log_path=str(tmp_path / "sb3"), verbose=0)
    ours = SmoothnessEvalCallback(
        seeded(), eval_freq=50, n_eval_episodes=2, log_path=str(tmp_path / "ours"), verbose=0, geometry_interval=1
    )
    (first, _), (second, _) = learn(theirs), learn(ours)
    for name, parameter in first.policy.state_dict().items():
        np.testing.assert_array_equal(parameter, second.policy.state_dict()[name])
    plain, more = np.load(tmp_path / "sb3/evaluations.npz"), np.load(tmp_path / "ours/evaluations.npz")
    assert set(plain) < set(more)
    for key in plain:
        np.testing.assert_array_equal(plain[key], more[key])
    assert ours.best_mean_reward == theirs.best_mean_reward


@pytest.mark.parametrize("n_envs", [1, 2])
def test_logs_and_saves_what_the_library_measures_on_the_same_episodes(tmp_path, n_envs):
    files = {"log_path": str(tmp_path), "best_model_save_path": str(tmp_path)}
    callback = SmoothnessEvalCallback(
        seeded(n_envs),
        eval_freq=100,
        n_eval_episodes=3,
        geometry_interval=1,
        cutoff=1.0,
        verbose=0,
        **files,
    )
    _, rows = learn(callback)
    model = SAC.load(tmp_path / "best_model", device="cpu")  # as it was evaluated, before the last update
    recorded = record_rollout(model, seeded(n_envs), 3)
    saved = np.load(tmp_path / "evaluations.npz")
    measures = recorded.smoothness(20.0, cutoff=1.0)  # the rate that the pendulum's dt says
    for name in ("sm", "sm_hz", "action_change", "saturation", "high_frequency_share"):
        np.testing.assert_allclose(saved[name], [measures[name]], rtol=1e-6)
        assert rows[100][f"eval/{name}"] == pytest.approx(measures[name].mean())
    np.testing.assert_allclose(saved["results"], [measures["return"]])
    geometry = rollout_geometry(model, recorded).summary()
    for name, value in geometry.items():
        np.testing.assert_allclose(saved[f"geometry_{name}"], [value], rtol=1e-5)
        np.testing.assert_allclose(rows[100][f"geometry/{name}"], value, rtol=1e-5)
    assert "field_turn_noise" in geometry
    # In one dump with SB3's own
    assert "eval/mean_reward" in rows[100]


def test_the_geometry_has_an_interval_and_timesteps_of_its_own(tmp_path):
    callback = SmoothnessEvalCallback(
        seeded(), eval_freq=20, n_eval_episodes=1, log_path=str(tmp_path), verbose=0, geometry_interval=2
    )
    learn(callback)
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["timesteps"].tolist() == [20, 40, 60, 80, 100]
    assert saved["sm"].shape == (5, 1)
    assert saved["geometry_timesteps"].tolist() == [20, 60, 100]
    assert saved["geometry_M_sup"].shape == (3,)


class Script(SmoothnessEvalCallback):
    """Evaluations with given returns and scores."""

    def play(self, script):
        for mean_reward, score in script:
            saved = f"{mean_reward} {score}".encode()
            self.model = SimpleNamespace(save=lambda file, saved=saved: file.write(saved), get_vec_normalize_env=lambda: None)
            self.last_mean_reward = mean_reward
            self.best_mean_reward = max(self.best_mean_reward, mean_reward)
            self.evaluations_smoothness = {"sm": [np.array([score])]}
            self._keep_smoothest()
            path = Path(self.best_model_save_path, "smoothest_model.zip")
            yield path.read_text() if path.exists() else None


def test_an_environment_that_changes_its_action_in_place_is_measured_at_the_policys(tmp_path):
    class Scaling(gym.Wrapper):
        def step(self, action):
            action *= 0.5
            return self.env.step(action)

    def make():
        return VecNormalize(make_vec_env("Pendulum-v1", seed=5, wrapper_class=Scaling), norm_reward=False)

    callback = SmoothnessEvalCallback(
        make(), eval_freq=50, n_eval_episodes=1, geometry_interval=1, best_model_save_path=str(tmp_path), verbose=0
    )
    learn(callback, small(make()), steps=50)
    policy = SAC.load(tmp_path / "best_model", device="cpu")
    (episode,) = callback._recorder.episodes
    expected, _ = policy.predict(episode.observations, deterministic=True)
    np.testing.assert_allclose(episode.actions, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("script", "kept"),
    [
        # smoother and close enough; smoother but too far off; as close, not smoother
        ([(100, 1.0), (91, 0.5), (89, 0.1), (100, 0.6)], ["100 1.0", "91 0.5", "91 0.5", "91 0.5"]),
        # a new best puts the one that was kept out of reach
        ([(50, 0.1), (100, 1.0), (95, 2.0)], ["50 0.1", "100 1.0", "100 1.0"]),
        # ... and an earlier one in its place, rather than the new best or what comes after it
        ([(91, 0.1), (100, 0.5), (102, 0.9), (100, 0.7)], ["91 0.1", "91 0.1", "100 0.5", "100 0.5"]),
        # negative returns: a tenth below -150 is -165
        ([(-150, 1.0), (-164, 0.5), (-166, 0.1)], ["-150 1.0", "-164 0.5", "-164 0.5"]),
        # returns that are no numbers, before the first that is one and after it
        ([(np.nan, 1.0), (-np.inf, 0.9), (100, 0.8), (np.nan, 0.5), (95, 0.7)], [None, None, "100 0.8", "100 0.8", "95 0.7"]),
        # a policy that has diverged
        ([(100, np.nan), (90, 0.8), (100, np.nan)], [None, "90 0.8", "90 0.8"]),
        # nothing is close to infinity
        ([(100, 1.0), (np.inf, 0.5), (100, 0.1)], ["100 1.0", "100 1.0", "100 1.0"]),
    ],
)
def test_the_smoothest_model_is_as_good_as_asked_for(tmp_path, script, kept):
    callback = Script(seeded(), best_model_save_path=str(tmp_path), verbose=0)
    assert list(callback.play(script)) == kept


def test_the_best_and_the_smoothest_model_are_saved_with_their_normalisation(tmp_path):
    env = VecNormalize(seeded())
    evaluation = VecNormalize(seeded(), training=False, norm_reward=False)
    callback = SmoothnessEvalCallback(
        evaluation, eval_freq=50, n_eval_episodes=1, best_model_save_path=str(tmp_path), verbose=0, smoothest_share=0.01
    )
    learn(callback, small(env), steps=50)
    np.testing.assert_array_equal(evaluation.obs_rms.mean, env.obs_rms.mean)
    best = VecNormalize.load(str(tmp_path / "best_model_vecnormalize.pkl"), seeded())
    np.testing.assert_array_equal(best.obs_rms.mean, env.obs_rms.mean)
    restored = VecNormalize.load(str(tmp_path / "smoothest_model_vecnormalize.pkl"), seeded())
    restored.training = False
    np.testing.assert_array_equal(restored.obs_rms.mean, env.obs_rms.mean)
    smoothest = SAC.load(tmp_path / "smoothest_model", device="cpu")
    assert evaluate_policy(smoothest, restored, 1)[0] == callback.smoothest_mean_reward


def test_statistics_of_an_earlier_training_go_with_its_models(tmp_path):
    for env in (VecNormalize(seeded()), seeded()):
        evaluation = VecNormalize(seeded(), training=False) if isinstance(env, VecNormalize) else seeded()
        settings = {"eval_freq": 50, "n_eval_episodes": 1, "verbose": 0}
        learn(SmoothnessEvalCallback(evaluation, best_model_save_path=str(tmp_path), **settings), small(env), steps=50)
    assert {path.name for path in tmp_path.iterdir()} == {"best_model.zip", "smoothest_model.zip"}


@pytest.mark.filterwarnings("ignore:.*WARN")
def test_a_policy_that_answers_nan_does_not_end_the_training(tmp_path):
    model = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", learning_starts=50)
    model.actor.mu[-2].bias.data.fill_(np.nan)
    callback = SmoothnessEvalCallback(
        seeded(), eval_freq=10, n_eval_episodes=1, log_path=str(tmp_path), verbose=0, geometry_interval=1
    )
    with pytest.warns(UserWarning, match="policy has diverged") as caught:
        learn(callback, model, steps=20)
    saved = np.load(tmp_path / "evaluations.npz")
    assert np.isnan(saved["sm"]).all() and saved["sm"].shape == (2, 1) and "geometry_timesteps" not in saved
    assert sum("policy has diverged" in str(warning.message) for warning in caught) == 1


def test_it_takes_the_place_of_the_evalcallback_beside_it(tmp_path, capsys):
    """As in the zoo, which makes its own EvalCallback and instantiates those of the YAML without an environment."""

    class Count(BaseCallback):
        def _on_step(self):
            return True

    on_best = Count()
    beside = EvalCallback(
        seeded(),
        eval_freq=50,
        n_eval_episodes=2,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        callback_on_new_best=on_best,
    )
    ours = SmoothnessEvalCallback(n_eval_episodes=1)
    learn([ours, CheckpointCallback(1000, str(tmp_path)), beside])
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["results"].shape == saved["sm"].shape == (2, 1)  # one episode, as given; every 50 steps, as found
    assert beside.evaluations_results == []
    assert on_best.n_calls >= 1 and on_best.parent is ours
    assert (tmp_path / "best_model.zip").is_file() and (tmp_path / "smoothest_model.zip").is_file()
    assert "takes the place" in capsys.readouterr().out


def test_a_callback_of_its_own_on_a_new_best_has_its_model_when_it_takes_over():
    beside = EvalCallback(seeded(), eval_freq=50, n_eval_episodes=1, verbose=0)
    stop = StopTrainingOnRewardThreshold(-5000)  # the pendulum's worst is about -3300
    model, _ = learn([beside, SmoothnessEvalCallback(verbose=0, callback_on_new_best=stop)])
    assert model.num_timesteps == 50 and stop.model is model


def test_a_subclass_beside_it_goes_on_and_keeps_its_files(tmp_path):
    class Trial(EvalCallback):
        pass

    beside = Trial(seeded(), eval_freq=50, n_eval_episodes=1, log_path=str(tmp_path), verbose=0)
    ours = SmoothnessEvalCallback(verbose=0)
    _, rows = learn([ours, beside])
    assert "sm" not in np.load(tmp_path / "evaluations.npz")
    assert len(beside.evaluations_results) == 2 and ours.log_path is None
    assert "eval/sm" in rows[50]


def test_the_zoo_makes_it_from_yaml(tmp_path):
    zoo = pytest.importorskip("rl_zoo3.utils")
    yaml = {"callback": [{"sb3_pave.callbacks.SmoothnessEvalCallback": {"geometry_interval": 2}}]}
    (callback,) = zoo.get_callback_list(yaml)
    assert isinstance(callback, SmoothnessEvalCallback) and callback.geometry_interval == 2


def test_ppo_is_measured_too():
    model = PPO("MlpPolicy", "Pendulum-v1", n_steps=50, batch_size=50, seed=0, device="cpu")
    callback = SmoothnessEvalCallback(seeded(), eval_freq=50, n_eval_episodes=1, verbose=0, geometry_interval=1)
    _, rows = learn(callback, model)
    assert "geometry/actor_jacobian_mean" in rows[50] and "geometry/M_sup" not in rows[50]


def test_an_actor_that_can_not_be_differentiated_costs_nothing_but_its_jacobian_and_is_said_once():
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.RecurrentPPO("MlpLstmPolicy", "Pendulum-v1", n_steps=50, batch_size=50, seed=0, device="cpu")
    callback = SmoothnessEvalCallback(seeded(), eval_freq=50, n_eval_episodes=1, verbose=0, geometry_interval=1)
    with pytest.warns(UserWarning, match="no Jacobian of its actor") as caught:
        _, rows = learn(callback, model)
    assert len(caught) == 1
    assert all("eval/sm" in rows[step] and "geometry/at_bound_rate" in rows[step] for step in (50, 100))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smoothest_share": 0.0}, "smoothest_share"),
        ({"geometry_interval": -1}, "geometry_interval"),
        ({"smoothest_by": "speed"}, "smoothest_by must be one of sm"),
        ({"control_rate": -5.0}, "control_rate"),
        ({"cutoff": 20.0}, "cutoff"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        SmoothnessEvalCallback(seeded(), **arguments)


@pytest.mark.parametrize("takes_over", [False, True])
def test_a_critic_that_there_is_not_is_refused_before_training(takes_over):
    callback = SmoothnessEvalCallback(None if takes_over else seeded(), geometry_interval=1, critic=5, verbose=0)
    model = small()
    with pytest.raises(ValueError, match="There is no critic 5: choose 0 to 1"):
        learn([EvalCallback(seeded(), verbose=0), callback] if takes_over else callback, model)
    assert model.num_timesteps == 0


def test_nothing_to_evaluate_on_is_an_error():
    with pytest.raises(ValueError, match="--eval-freq"):
        learn(SmoothnessEvalCallback())


def test_discrete_actions_are_refused():
    model = DQN("MlpPolicy", "CartPole-v1", device="cpu", policy_kwargs={"net_arch": [8]})
    assert isinstance(model.action_space, spaces.Discrete)
    with pytest.raises(ValueError, match="continuous"):
        model.learn(10, callback=SmoothnessEvalCallback(seeded(env_id="CartPole-v1")))


def test_the_best_models_normalisation_is_not_replaced_by_that_of_a_later_evaluation(tmp_path):
    evaluation = VecNormalize(seeded(), training=False, norm_reward=False)
    settings = {"eval_freq": 50, "n_eval_episodes": 1, "best_model_save_path": str(tmp_path), "verbose": 0}
    callback = SmoothnessEvalCallback(evaluation, **settings)
    model, _ = learn(callback, small(VecNormalize(seeded())), steps=50)
    saved = (tmp_path / "best_model_vecnormalize.pkl").read_bytes()
    callback.best_mean_reward = np.inf  # so that what follows is no new best
    model.learn(50, callback=callback, reset_num_timesteps=False)
    assert callback.n_calls == 100 and (tmp_path / "best_model_vecnormalize.pkl").read_bytes() == saved


def test_successes_are_saved_beside_the_smoothness(tmp_path):
    class Succeeds(gym.Wrapper):
        def step(self, action):
            *rest, truncated, info = self.env.step(action)
            return (*rest, truncated, {**info, "is_success": truncated})

    env = make_vec_env("Pendulum-v1", seed=5, wrapper_class=Succeeds)
    learn(SmoothnessEvalCallback(env, eval_freq=50, n_eval_episodes=2, log_path=str(tmp_path), verbose=0), steps=50)
    saved = np.load(tmp_path / "evaluations.npz")
    assert saved["successes"].tolist() == [[True, True]] and saved["sm"].shape == (1, 2)


def test_a_callback_of_its_own_after_each_evaluation_is_kept_when_it_takes_over():
    class Count(BaseCallback):
        def _on_step(self):
            return True

    own, others = Count(), Count()
    beside = EvalCallback(seeded(), eval_freq=50, n_eval_episodes=1, verbose=0, callback_after_eval=others)
    learn([beside, SmoothnessEvalCallback(verbose=0, callback_after_eval=own)])
    assert (own.n_calls, others.n_calls) == (2, 0)


def test_folders_of_its_own_are_made_when_it_takes_over(tmp_path):
    beside = EvalCallback(seeded(), eval_freq=50, n_eval_episodes=1, verbose=0)
    folders = {"log_path": str(tmp_path / "log"), "best_model_save_path": str(tmp_path / "best")}
    learn([beside, SmoothnessEvalCallback(verbose=0, **folders)], steps=50)
    assert (tmp_path / "log" / "evaluations.npz").is_file() and (tmp_path / "best" / "best_model.zip").is_file()


def test_the_geometry_that_is_logged_is_that_of_the_critic_that_was_asked_for(tmp_path):
    settings = {"eval_freq": 50, "n_eval_episodes": 1, "geometry_interval": 1, "verbose": 0}
    learn(callback := SmoothnessEvalCallback(seeded(), critic=1, best_model_save_path=str(tmp_path), **settings), steps=50)
    model = SAC.load(tmp_path / "best_model", device="cpu")
    expected = rollout_geometry(model, record_rollout(model, seeded(), 1), critic=1).summary()["trace_mean"]
    np.testing.assert_allclose(callback.evaluations_geometry["geometry_trace_mean"], [expected], rtol=1e-5)


def test_the_smoothest_model_is_so_by_the_measure_that_was_asked_for():
    callback = SmoothnessEvalCallback(seeded(), smoothest_by="action_change", verbose=0)
    callback.last_mean_reward = callback.best_mean_reward = 100.0
    callback.evaluations_smoothness = {"sm": [np.array([0.1])], "action_change": [np.array([0.6, 0.8])]}
    callback._keep_smoothest()
    assert callback.smoothest_score == pytest.approx(0.7)
