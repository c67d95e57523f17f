"""Where a graph is compared with model.predict, and what difference is let through."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_pave.evaluation.networks import actor_output
from sb3_pave.export import ExportError, export_onnx, exporting
from sb3_pave.export.comparison import _units, compare, rounding
from sb3_pave.export.graph import PolicyGraph
from sb3_pave.export.observations import (
    drawn_observations,
    given_observations,
    recorded_observations,
    rollout_observations,
)
from tests.commands.test_evaluate import small as small_agent
from tests.export.agents import SpaceEnv, make, run, scaling

FLOAT32, FLOAT64 = np.finfo(np.float32).max, np.finfo(np.float64).max


@pytest.fixture
def untraced(monkeypatch):
    """The graph stays in PyTorch: these tests are of the comparison, not of the exporter, which takes seconds."""

    class Kept:
        def __init__(self, module):
            self.module = module

        def SerializeToString(self):
            return self.module

    def session(module, batch_size):
        def call(entries):
            with th.no_grad():
                return module(*(th.as_tensor(value) for value in entries.values())).numpy()

        return call

    monkeypatch.setattr(exporting, "to_onnx", lambda module, *args, **kwargs: Kept(module))
    monkeypatch.setattr(exporting, "_onnxruntime", session)
    monkeypatch.setattr(exporting, "destination", _nowhere)


class _nowhere:
    def __init__(self, path, overwrite):
        pass

    def __enter__(self):
        return lambda content: None

    def __exit__(self, *error):
        return None


def box(bound, size=5, dtype=np.float32):
    return SpaceEnv(spaces.Box(-bound, bound, (size,), dtype))


@pytest.mark.parametrize(
    ("algorithm", "bound", "factor"), [(SAC, 1000, 1.0), (SAC, 10_000, 3.0), (TD3, 1000, 3.0), (PPO, 10_000, 1.0)]
)
def test_correct_graphs_are_accepted_at_large_bounds(algorithm, bound, factor, tmp_path):
    model = make(algorithm, box(bound, 17), factor=factor, net_arch=(64, 64))
    found = export_onnx(model, tmp_path / "policy.onnx").comparison
    assert found.n_inside > found.n_actions / 4
    observations = np.random.default_rng(0).uniform(-bound, bound, (50, 17)).astype(np.float32)
    expected = model.predict(observations, deterministic=True)[0]
    np.testing.assert_allclose(run(tmp_path / "policy.onnx", observation=observations), expected, atol=0.01)


@pytest.mark.parametrize("bound", [1, 5e6, FLOAT32, np.inf])
@pytest.mark.parametrize("size", [1e-6, 0.5, 1.1, 1000.0])
def test_a_wrong_graph_is_refused_whatever_the_bounds(bound, size, untraced):
    model = make(scaling(size), box(bound))
    with pytest.raises(ExportError, match=r"differs from model\.predict"):
        export_onnx(model, "policy.onnx")
    assert export_onnx(make(scaling(1.0), box(bound)), "policy.onnx").comparison.n_inside > 100


@pytest.mark.parametrize("bound", [5e6, FLOAT32])
def test_a_wrong_graph_is_not_written(bound, tmp_path):
    with pytest.raises(ExportError, match=r"differs from model\.predict"):
        export_onnx(make(scaling(0.5), box(bound)), tmp_path / "policy.onnx")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-FLOAT64, FLOAT64, (3,), np.float64),
        spaces.Box(-np.inf, np.inf, (3,), np.float64),
        spaces.Box(0, FLOAT64, (2, 2), np.float64),
        spaces.Box(np.float32([-1e6, 0, 250]), np.float32([-1e5, FLOAT32, 350])),
        spaces.Box(1e6, 1e6 + 10, (3,), np.float32),
        spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (3,), np.int64),
        spaces.Box(np.iinfo(np.int32).min, np.iinfo(np.int32).max, (3,), np.int32),
        spaces.Box(0, np.iinfo(np.uint16).max, (3,), np.uint16),
        spaces.MultiDiscrete([1000, 2]),
    ],
    ids=str,
)
def test_numbers_are_drawn_in_any_bounds(space):
    drawn = drawn_observations(space, None).entries["observation"]
    assert np.all(np.isfinite(drawn)) and all(space.contains(one.astype(space.dtype)) for one in drawn)
    assert len(np.unique(drawn)) > 20


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_numbers_are_drawn_inside_a_bound_at_zero(side):
    low, high = sorted((0.0, side * np.inf))
    assert np.all(side * drawn_observations(spaces.Box(low, high, (3,), np.float32), None).entries["observation"] > 0)


def test_numbers_beyond_those_of_a_type_are_its_last():
    space = spaces.Box(0, 255, (3,), np.uint8)
    env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(space)]), training=False)
    env.obs_rms.mean, env.obs_rms.var = np.full(3, 255.0), np.full(3, 1.0)
    assert drawn_observations(space, env).entries["observation"].min() > 240


def test_numbers_are_drawn_by_the_deviation_of_the_statistics():
    env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(spaces.Box(-np.inf, np.inf, (2,), np.float64))]), training=False)
    env.obs_rms.mean, env.obs_rms.var = np.array([5.0, -300.0]), np.array([1e-4, 400.0])
    drawn = drawn_observations(env.observation_space, env).entries["observation"]
    np.testing.assert_allclose(drawn.std(axis=0), [1e-2, 20.0], rtol=0.2)


def test_drawing_leaves_the_generator_of_a_space_alone():
    space = spaces.Dict(a=spaces.Discrete(100, seed=3))
    expected = copy.deepcopy(space).sample()
    drawn_observations(space, None)
    assert space.sample() == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_and_observations_between_the_largest_numbers_are_exported(dtype, tmp_path):
    actions = spaces.Box(np.finfo(dtype).min, np.finfo(dtype).max, (2,), dtype)
    model = make(PPO, SpaceEnv(spaces.Box(-FLOAT64, FLOAT64, (3,), np.float64), actions))
    assert export_onnx(model, tmp_path / "policy.onnx").comparison.difference < 1e-4


def test_actions_without_a_finite_width_are_refused():
    model = make(SAC, SpaceEnv(spaces.Box(-1, 1, (3,)), spaces.Box(-FLOAT32, FLOAT32, (2,), np.float32)))
    with pytest.raises(ExportError, match="no finite float32"):
        export_onnx(model, "policy.onnx")


@pytest.mark.parametrize("half_range", [1e-4, 1e4])
def test_differences_count_in_half_the_action_range(half_range, untraced, monkeypatch):
    space = spaces.Box(-half_range, half_range, (2,), np.float32)
    forward = PolicyGraph.forward
    for error, is_allowed in ((0.8e-5, True), (3e-5, False)):
        monkeypatch.setattr(PolicyGraph, "forward", lambda self, *obs, error=error: forward(self, *obs) + error * half_range)
        model = make(SAC, SpaceEnv(spaces.Box(-1, 1, (3,)), space))
        observations = np.zeros((1, 3), np.float32)
        if is_allowed:
            export_onnx(model, "policy.onnx", observations=observations)
        else:
            with pytest.raises(ExportError, match=r"differs from model\.predict by 3e-05"):
                export_onnx(model, "policy.onnx", observations=observations)
            export_onnx(model, "policy.onnx", observations=observations, tolerance=4e-5)


@pytest.mark.parametrize("seen", [lambda o: 1.1 * o, th.zeros_like], ids=["enlarged", "nothing"])
def test_a_graph_that_is_wrong_for_a_single_observation_is_refused(seen, untraced, monkeypatch):
    """Of the smallest ones, both look right."""
    forward = PolicyGraph.forward
    monkeypatch.setattr(PolicyGraph, "forward", lambda self, o: forward(self, seen(o) if len(o) == 1 else o))
    with pytest.raises(ExportError, match=r"differs from model\.predict"):
        export_onnx(make(SAC, box(1)), "policy.onnx")


@pytest.mark.parametrize("size", [1, 5, 300])
def test_single_observations_are_compared_from_the_first_to_the_last_and_count_once(size, untraced, monkeypatch):
    alone, forward = [], PolicyGraph.forward

    def noted(self, o):
        alone.extend(o[:, 0].tolist() if len(o) == 1 else [])
        return forward(self, o)

    monkeypatch.setattr(PolicyGraph, "forward", noted)
    observations = np.tile(np.arange(size), (5, 1)).T / size
    found = export_onnx(make(SAC, box(1), factor=1.0), "policy.onnx", observations=observations).comparison
    assert (found.n_observations, found.n_actions) == (size, 2 * size) and 0 < found.n_inside <= 2 * size
    assert set(alone) >= {0.0, np.float32((size - 1) / size)} and len(set(alone)) == min(size, 13)


@pytest.mark.parametrize("tolerance", [0, -1e-3, 1.0, np.nan, "much", True])
def test_a_tolerance_is_a_part_of_half_the_range(tolerance):
    with pytest.raises(ExportError, match="tolerance"):
        export_onnx(make(SAC, box(1)), "policy.onnx", tolerance=tolerance)


@pytest.mark.parametrize("bound", [1.0, 100.0, 10_000.0])
@pytest.mark.parametrize("algorithm", [SAC, PPO])
def test_rounding_is_of_the_size_of_float32s_errors(algorithm, bound):
    """Against the same policy in float64."""
    model = make(algorithm, box(bound, 17), net_arch=(128, 128), factor=2.0)
    graph = PolicyGraph(model.policy.eval(), None)
    observations = np.random.default_rng(0).uniform(-bound, bound, (200, 17)).astype(np.float32)
    exact = PolicyGraph(copy.deepcopy(model.policy).double(), None)
    with th.no_grad():
        ours = graph(th.as_tensor(observations)).double().numpy()
        inputs = preprocess_obs(th.as_tensor(observations), model.observation_space).double()
        output = actor_output(exact.policy, inputs)
        low, high = (th.as_tensor(bound, dtype=th.float64) for bound in (model.action_space.low, model.action_space.high))
        truth = (low + 0.5 * (output + 1) * (high - low) if algorithm is SAC else output.clamp(low, high)).numpy()
    estimate = rounding(graph, {"observation": observations})
    error = np.abs(ours - truth)
    assert np.all(error <= 8 * estimate + 1e-7)
    assert np.sqrt(np.mean(estimate**2)) <= 30 * np.sqrt(np.mean(error**2)) + 1e-6


def test_what_float32_cannot_tell_apart_does_not_count():
    """At the second observation the action is a difference of large numbers, and half of its range is allowed."""
    model = make(PPO, SpaceEnv(spaces.Box(-1e6, 1e6, (2,)), spaces.Box(-1, 1, (1,))), net_arch=())
    model.policy.action_net.weight.data = th.tensor([[1.0, -1.0]])
    sample = given_observations(np.array([[0.25, 0.0], [1e5, 1e5]]), model.observation_space)

    def run(entries):
        action, _ = model.predict(entries["observation"], deterministic=True)
        return action + 0.5 * (entries["observation"][:, :1] > 1e4)

    found = compare(run, model, None, PolicyGraph(model.policy, None), sample)
    assert (found.n_actions, found.n_inside) == (2, 1) and found.difference < 1e-6


def test_units_of_actions_and_where_they_count_as_inside():
    space = spaces.Box(np.float32([-2, 3, -np.inf]), np.float32([2, 3, np.inf]))
    unit, inside = _units(space, np.array([[-1.9995, 3.0, 0.1], [1.9995, 3.0, -70.0], [-1.99, 3.0, 70.0], [1.99, 3.0, 0.0]]))
    assert unit.tolist() == [[2.0, 3.0, 1.0], [2.0, 3.0, 70.0], [2.0, 3.0, 70.0], [2.0, 3.0, 1.0]]
    assert inside.T.tolist() == [[False, False, True, True], [False] * 4, [True] * 4]


def test_a_policy_that_answers_in_another_shape_is_refused(untraced, monkeypatch):
    forward = PolicyGraph.forward
    monkeypatch.setattr(PolicyGraph, "forward", lambda self, o: forward(self, o)[:, :1])
    with pytest.raises(ExportError, match=r"The policy answers with shape \(1,\); the actions have \(2,\)"):
        export_onnx(make(SAC, box(1)), "policy.onnx")


def test_all_bits_of_float32_are_compared_and_what_a_gpu_may_leave_out_is_as_before():
    def left_out():
        return [backend.allow_tf32 for backend in (th.backends.cuda.matmul, th.backends.cudnn)]

    before = left_out()
    with exporting._exactly(make(SAC, box(1))):
        assert left_out() == [False, False]
    assert left_out() == before and any(before)


def test_a_graph_that_answers_in_another_shape_is_refused():
    model = make(SAC, box(1))
    sample, graph = drawn_observations(model.observation_space, None), PolicyGraph(model.policy, None)

    def run(entries):
        return model.predict(entries["observation"], deterministic=True)[0][:, :1]

    with pytest.raises(ExportError, match=r"shape \(256, 1\), model\.predict with \(256, 2\)"):
        compare(run, model, None, graph, sample)
    model.predict = lambda *args, **kwargs: (np.full((256, 1), np.nan), None)
    with pytest.raises(ExportError, match=r"^model\.predict answers with actions that are not finite"):
        compare(lambda entries: np.zeros((256, 1)), model, None, graph, sample)


def test_where_every_action_is_at_a_bound_nothing_is_written(untraced):
    model = make(SAC, box(FLOAT32))
    model.actor.mu.bias.data += 1000.0
    with pytest.raises(ExportError, match=r"None of the .* actions compared .* was inside its bounds"):
        export_onnx(model, "policy.onnx")
    far = np.full((4, 5), 1e20, np.float32)
    model = make(SAC, box(FLOAT32))
    with pytest.raises(ExportError, match="at 4 given observations was inside its bounds"):
        export_onnx(model, "policy.onnx", observations=far)


def test_given_observations_are_those_compared(untraced):
    """A policy that is wrong at ten and beyond, compared below and above."""
    model = make(scaling(1.0), box(1000, 3), factor=1.0)
    predict = model.predict

    def wrong(observation, **kwargs):
        action, state = predict(observation, **kwargs)
        return np.where(np.abs(observation).max(axis=-1, keepdims=True) >= 10, 0.999 * action, action), state

    model.predict = wrong
    small = np.random.default_rng(0).uniform(-9, 9, (20, 3))
    found = export_onnx(model, "policy.onnx", observations=small).comparison
    assert (found.n_observations, found.n_actions, found.source) == (20, 40, "given observations")
    with pytest.raises(ExportError, match=r"differs from model\.predict"):
        export_onnx(model, "policy.onnx", observations=np.array([10.0, 0.0, 0.0]))  # a single one


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        (np.zeros((4, 6)), r"have shape \(4, 6\); the model's have \(n, 5\)"),
        (np.zeros((0, 5)), "hold 0 of"),
        (np.array([["a"] * 5]), "not numbers"),
        ([[0.0, 1.0], [2.0]], "no array"),
        (np.full((1, 5), np.nan), "not finite"),
        (np.full((1, 5), 1e300), "not finite in float32"),
        ({"a": np.zeros((1, 5)), "b": np.zeros((1, 5))}, "are 2 arrays"),
    ],
)
def test_what_is_no_observation_is_refused(observations, message):
    with pytest.raises(ExportError, match=message):
        export_onnx(make(SAC, box(1)), "policy.onnx", observations=observations)


def test_images_may_be_given_as_an_environment_has_them():
    images = np.random.default_rng(0).integers(0, 255, (2, 36, 40, 3), np.uint8)
    for given in (images, images[0]):
        entry = given_observations(given, spaces.Box(0, 255, (3, 36, 40), np.uint8)).entries["observation"]
        np.testing.assert_array_equal(entry[0], images[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gear": np.array([4, 0])}, r"'gear' hold some that are not in Discrete\(4\)"),
        ({"gear": np.array([0.5, 0.0])}, "no int64"),
        ({"gear": None}, "are of speed; the model observes gear, speed"),
        ({"speed": np.zeros((3, 2))}, "2 of 'gear', 3 of 'speed'"),
    ],
)
def test_what_is_no_dict_observation_is_refused(changes, message):
    env = SpaceEnv(spaces.Dict(gear=spaces.Discrete(4), speed=spaces.Box(-50, 50, (2,), np.float32)))
    observations = {"gear": np.array([3, 0]), "speed": np.zeros((2, 2)), **changes}
    with pytest.raises(ExportError, match=message):
        export_onnx(
            make(SAC, env, "MultiInputPolicy"),
            "policy.onnx",
            observations={name: value for name, value in observations.items() if value is not None},
        )


def test_a_rollout_is_where_the_policy_runs_and_leaves_the_statistics_alone(untraced):
    env = VecNormalize(make_vec_env("Pendulum-v1", 2))
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, -1.0, 2.0]), np.array([0.1, 4.0, 9.0])
    model = make(SAC, env, factor=1.0)
    before = copy.deepcopy(env.obs_rms.mean), copy.deepcopy(env.ret_rms.var)
    sample = rollout_observations(model, env, env)
    cosine, sine, speed = sample.entries["observation"].T
    np.testing.assert_allclose(cosine**2 + sine**2, 1.0, atol=1e-5)  # raw ones
    assert np.abs(speed).max() <= 8.0 and sample.size == 500
    assert sample.source == "observations of a rollout in Pendulum-v1"
    assert env.training and env.norm_obs and np.array_equal(env.obs_rms.mean, before[0])
    assert np.array_equal(env.ret_rms.var, before[1])
    assert export_onnx(model, "policy.onnx", env=env).comparison.source == sample.source


def test_after_a_rollout_where_it_trains_the_agent_begins_a_new_episode():
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    settings = dict(policy_kwargs={"net_arch": [8]}, learning_starts=100, buffer_size=100)
    model = SAC("MlpPolicy", env, seed=0, **settings).learn(20)
    returns, generator = env.returns.copy(), copy.deepcopy(env.get_attr("np_random")[0])
    rollout_observations(model, env, env)
    assert np.array_equal(env.returns, returns) and returns.any()
    assert env.get_attr("np_random")[0].bit_generator.state == generator.bit_generator.state
    model.learn(5, reset_num_timesteps=False)
    buffer = model.replay_buffer
    assert buffer.dones[19] and buffer.timeouts[19] and not buffer.dones[18]
    # Pendulum turns by at most 8 rad/s * 0.05 s in a step
    before, after = (env.unnormalize_obs(one[20, 0]) for one in (buffer.observations, buffer.next_observations))
    assert np.abs(after[:2] - before[:2]).max() < 0.5


def test_observations_of_a_rollout_follow_the_normalised_policy():
    """The observation is the sum of the actions so far, which the policy sees normalised."""

    class Sum(SpaceEnv):
        def reset(self, seed=None, options=None):
            self.sum = np.zeros(1)
            return self.sum, {}

        def step(self, action):
            self.sum = self.sum + action
            return self.sum, 0.0, False, False, {}

    sum_env = Sum(spaces.Box(-np.inf, np.inf, (1,), np.float64), spaces.Box(-1, 1, (1,), np.float32))
    env = VecNormalize(DummyVecEnv([lambda: sum_env]), training=False)
    env.obs_rms.mean, env.obs_rms.var = np.array([5.0]), np.array([4.0])
    model = make(SAC, env, factor=1.0)
    seen = rollout_observations(model, env, env).entries["observation"].astype(np.float64)
    expected, _ = model.predict(np.clip((seen - 5.0) / 2.0, -10, 10).astype(np.float32), deterministic=True)
    np.testing.assert_allclose(np.diff(seen, axis=0), expected[:-1], atol=1e-4)


@pytest.mark.parametrize(("name", "n_envs"), [("_ROLLOUT_SECONDS", 1), ("_ROLLOUT_STEPS", 2)])
def test_a_rollout_ends_in_time_and_has_a_step_at_least(name, n_envs, monkeypatch):
    monkeypatch.setattr(f"sb3_pave.export.observations.{name}", 1 if name == "_ROLLOUT_STEPS" else -1.0)
    assert rollout_observations(make(SAC, "Pendulum-v1"), make_vec_env("Pendulum-v1", n_envs), None).size == n_envs


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_an_environment_that_can_not_leave_its_process_is_run_there():
    space = spaces.Box(-1, 1, (2,), np.float32)

    def start():
        env = SpaceEnv(space)
        env.drawing = lambda: None  # can't be pickled
        return env

    env = SubprocVecEnv([start], start_method="fork")
    sample = rollout_observations(make(SAC, SpaceEnv(space)), env, None)
    assert sample.size == 500 and sample.source == "observations of a rollout in SubprocVecEnv"
    env.close()


def test_an_environment_that_does_not_fit_or_fails_is_said():
    model = make(SAC, "Pendulum-v1")
    with pytest.raises(ExportError, match="the environment takes"):
        rollout_observations(model, gym.make("MountainCarContinuous-v0"), None)
    other = SpaceEnv(spaces.Box(-1, 1, (4,), np.float32), model.action_space)
    with pytest.raises(ExportError, match=r"SpaceEnv have shape \(1, 4\); the model's have \(n, 3\)"):
        rollout_observations(model, other, None)

    class Broken(SpaceEnv):
        def step(self, action):
            raise ZeroDivisionError("no mass")

    with pytest.raises(ExportError, match=r"rollout in Broken failed: ZeroDivisionError: no mass"):
        rollout_observations(model, Broken(model.observation_space, model.action_space), None)


@pytest.mark.parametrize("algorithm", [SAC, PPO])
def test_else_the_buffer_tells_where_the_policy_was_trained(algorithm, untraced):
    """Observations of 123 to 124 lie where none would be drawn."""
    env = SpaceEnv(spaces.Dict(count=spaces.Box(123, 124, (2,), np.float64), gear=spaces.Discrete(3)))
    model = make(algorithm, env, "MultiInputPolicy", factor=1.0)
    assert recorded_observations(model, None) is None
    model.learn(8)
    sample = recorded_observations(model, None)
    assert sample.size == 8 and np.all(sample.entries["count"] >= 123)
    assert sample.source == f"observations of the {'replay' if algorithm is SAC else 'rollout'} buffer"
    assert set(sample.entries) == {"count", "gear"} and sample.entries["gear"].shape == (8,)
    assert export_onnx(model, "policy.onnx").comparison.n_observations in (8, 312)  # the rest, where all are at bounds


def test_a_rollout_buffer_of_normalised_observations_tells_nothing_raw():
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    model = make(PPO, env).learn(8)
    assert recorded_observations(model, None).size == 8 and recorded_observations(model, env) is None


@pytest.mark.parametrize(
    ("space", "kept"), [(spaces.Box(-1, 1, (2,), np.float32), 512), (spaces.Box(0, 255, (3, 36, 36), np.uint8), 32)], ids=str
)
def test_of_a_large_buffer_some_are_kept_from_its_beginning_to_its_end(space, kept):
    model = make(SAC, SpaceEnv(space))
    buffer = model.replay_buffer
    age = np.arange(600).reshape(600, *[1] * (len(space.shape) + 1)) // 3
    buffer.observations, buffer.buffer_size, buffer.full = np.tile(age, (1, *space.shape)).astype(space.dtype), 600, True
    ages = recorded_observations(model, None).entries["observation"].reshape(kept, -1)[:, 0]
    assert ages[0] == 0 and ages[-1] == 199 and np.all(np.diff(ages.astype(int)) >= 0)


def test_normalisation_is_the_models_own_by_default(untraced):
    env = VecNormalize(make_vec_env("Pendulum-v1"), training=False)
    env.obs_rms.mean = np.array([0.5, -1.0, 100.0])
    found = export_onnx(make(SAC, env), "policy.onnx")
    assert found.normalized == ("observation",) and "VecNormalize" in found.comparison.source
    assert not export_onnx(make(SAC, "Pendulum-v1"), "policy.onnx").normalized
    env.norm_obs = False
    assert not export_onnx(make(SAC, env), "policy.onnx").normalized


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("mean", [0.3, 100.0, 3e7 + 0.3])
def test_normalisation_in_float32_is_as_good_as_in_float64(dtype, mean):
    if dtype is np.uint8 and mean > 255:
        pytest.skip("beyond bytes")
    space = spaces.Box(0, 255, (3,), np.uint8) if dtype is np.uint8 else spaces.Box(-(2**31), 2**31 - 1, (3,), dtype)
    env = VecNormalize(DummyVecEnv([lambda: SpaceEnv(space)]), training=False)
    env.obs_rms.mean, env.obs_rms.var = np.full(3, mean), np.array([1e-4, 1.0, 1e12])
    graph = PolicyGraph(make(SAC, env).policy, env)
    drawn = drawn_observations(space, env).entries["observation"]
    expected = env.normalize_obs(drawn)
    normalised = graph.network_input(th.as_tensor(drawn))
    assert normalised.dtype == th.float32
    np.testing.assert_allclose(normalised.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_drawing_observations_leaves_the_generator_of_the_models_space_alone():
    space = spaces.Discrete(5, seed=3)
    before = space.np_random.bit_generator.state
    first, second = (drawn_observations(space, None).entries for _ in range(2))
    assert space.np_random.bit_generator.state == before
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_a_rollout_to_compare_in_is_the_same_each_time_and_leaves_the_normalisation_as_it_was():
    model = small_agent(SAC, seed=0)
    envs = [VecNormalize(make_vec_env("Pendulum-v1")) for _ in range(2)]
    first, second = (rollout_observations(model, env, None).entries["observation"] for env in envs)
    np.testing.assert_array_equal(first, second)
    assert all(env.training and env.norm_obs for env in envs)


def test_a_rollout_buffer_of_normalised_observations_is_not_taken_for_raw_ones():
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    model = small_agent(PPO, env, n_steps=8, batch_size=8, n_epochs=1)
    model.learn(8)
    assert recorded_observations(model, env) is None
    assert recorded_observations(model, None).size == 8
