"""Every example runs as a user would run it, for a few steps."""

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_pave import PAVE_TD3

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "quickstart": "Action [",
    "pave_existing_agent": "400 steps, 200 of them with PAVE",
    "own_environment": "Last mean return",
    "goal_environment": "Success rate",
}


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAYS, "deploy", "gradient_shares", "units"}


def test_gradient_shares_are_those_of_autograd(monkeypatch):
    shares = importlib.import_module("examples.gradient_shares")
    monkeypatch.setattr(shares, "N_BATCHES", 1)
    settings = {"learning_starts": 40, "target_policy_noise": 0.0, "gamma": 0.5, "policy_kwargs": {"net_arch": [16]}}
    model = PAVE_TD3("MlpPolicy", "Pendulum-v1", vfc_coef=0.3, seed=0, device="cpu", **settings).learn(60)
    np.random.seed(0)
    found = shares.gradient_shares(model, 32)
    np.random.seed(0)
    data, critic = model.replay_buffer.sample(32), model.critic
    actions = data.actions.requires_grad_()

    def field(observations):
        return th.stack([th.autograd.grad(q.sum(), actions, create_graph=True)[0] for q in critic(observations, actions)])

    vfc = 0.3 * (field(data.next_observations) - field(data.observations)).square().mean(dim=(1, 2)).sum()
    with th.no_grad():
        successors = model.critic_target(data.next_observations, model.actor_target(data.next_observations))
        target = data.rewards + 0.5 * (1 - data.dones) * th.minimum(*successors)
    td = sum((q - target).square().mean() for q in critic(data.observations, data.actions))
    lengths = [
        th.cat(
            [g.flatten() for g in th.autograd.grad(loss, list(critic.parameters()), allow_unused=True) if g is not None]
        ).norm()
        for loss in (vfc, td)
    ]
    assert found["vfc"] == pytest.approx(float(lengths[0] / lengths[1]), rel=1e-4) and found["vfc"] > 0
    assert found["mpr"] > 0 and found["curv"] >= 0


@pytest.mark.parametrize(
    ("name", "rewards", "velocity"), [("PendulumRewards1e-2-v0", 0.01, 1), ("PendulumVelocity100-v0", 1, 100)]
)
def test_pendulum_in_other_units_is_the_same_pendulum(name, rewards, velocity):
    importlib.import_module("examples.units")
    ours, plain = gym.make(name), gym.make("Pendulum-v1")
    first, expected_first = ours.reset(seed=1)[0], plain.reset(seed=1)[0]
    np.testing.assert_allclose(first, expected_first * [1, 1, velocity], rtol=1e-6)
    for _ in range(3):
        observation, reward, *_ = ours.step(np.ones(1, np.float32))
        expected, expected_reward, *_ = plain.step(np.ones(1, np.float32))
        np.testing.assert_allclose(observation, expected * [1, 1, velocity], rtol=1e-6)
        assert reward == pytest.approx(rewards * expected_reward)
        assert observation in ours.observation_space


def test_the_table_of_units_counts_returns_in_those_of_the_pendulum(tmp_path):
    for environment, seed, returns, sm in (
        ("Pendulum-v1", 2, [-100, -200], [0.5, 0.7]),
        ("Pendulum-v1", 1, [-160, -160], [0.1, 0.3]),
        ("PendulumRewards1e-2-v0", 1, [-1.4, -1.6], [1.0, 1.0]),
    ):
        (tmp_path / f"{environment}-{seed}").mkdir()
        result = {"environment": environment, "method": "TD3", "seed": seed}
        result["evaluation"] = {"episodes": {"return": returns, "sm": sm}}
        (tmp_path / f"{environment}-{seed}" / "result.json").write_text(json.dumps(result))
    rows = importlib.import_module("examples.units").table(tmp_path).splitlines()
    assert rows[2:] == ["| Pendulum-v1 | -155 / 0.20, 0.60 |", "| PendulumRewards1e-2-v0 | -150 / 1.00 |"]


@pytest.mark.parametrize("name", SAYS)
def test_example(name, tmp_path):
    pytest.importorskip("rich")  # the progress bar
    run = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "200"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert SAYS[name] in run.stdout
    assert "Warning" not in run.stderr


# What a robot does not have: importing it raises
BARE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("torch", "stable_baselines3", "gymnasium", "sb3_pave")))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy that answers ``[2 tanh(x), 2 tanh(-x)]`` with the first observation ``x``; NaN where that is infinite."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.array([[1, -1], [0, 0], [0, 0]], np.float32), "weights")
    two = onnx.numpy_helper.from_array(np.array(2, np.float32), "two")
    nodes = [
        helper.make_node("MatMul", ["observation", "weights"], ["x"]),
        helper.make_node("Tanh", ["x"], ["squashed"]),
        helper.make_node("Mul", ["squashed", "two"], ["action"]),
    ]
    inputs = [helper.make_tensor_value_info("observation", kind, ["batch", 3])]
    outputs = [helper.make_tensor_value_info("action", kind, ["batch", 2])]
    graph = helper.make_graph(nodes, "policy", inputs, outputs, [weights, two])
    path = tmp_path_factory.mktemp("policy") / "policy.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def deploy(monkeypatch, capsys):
    """``deploy.py`` as of the command line, in this process: starting another one takes a second."""

    def run(policy, *arguments):
        command = ["deploy.py", policy, "--rate", "500", *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        monkeypatch.setattr("gc.collect", lambda: 0)  # slow beside torch
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(EXAMPLES / "deploy.py"), run_name="__main__")
        return subprocess.CompletedProcess(command, done.value.code, *capsys.readouterr())

    return run


def save_cast(path, kind, *shape):
    """A policy that answers with the numbers that it observes, which are of some kind."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Cast", ["observation"], ["action"], to=kinds.FLOAT)]
    inputs = [helper.make_tensor_value_info("observation", getattr(kinds, kind), shape)]
    outputs = [helper.make_tensor_value_info("action", kinds.FLOAT, shape)]
    graph = helper.make_graph(nodes, "policy", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


@pytest.mark.parametrize(("kind", "batch", "code"), [("FLOAT", 4, 2), ("INT32", 1, 0), ("FLOAT", 1, 0)])
def test_deploy_takes_what_export_writes(deploy, tmp_path, kind, batch, code):
    """Integers stay integers there; and a batch of four is none of one."""
    save_cast(tmp_path / "p.onnx", kind, batch, 3)
    np.save(tmp_path / "observations.npy", np.array([[1, 2, 3], [2, 2, 3]]))
    done = deploy(tmp_path / "p.onnx", "--replay", tmp_path / "observations.npy")
    assert done.returncode == code, done.stderr
    assert ("largest change    [1. 0. 0.]" in done.stdout) if code == 0 else ("--batch-size 1" in done.stderr)


@pytest.mark.parametrize(("shape", "code"), [((3,), 0), ((3, 1), 2)])
def test_deploy_replays_categories(deploy, tmp_path, shape, code):
    """Of a Discrete space, each observation is a number and no array of one."""
    save_cast(tmp_path / "p.onnx", "INT64", "batch")
    np.save(tmp_path / "observations.npy", np.reshape([0, 3, 1], shape))
    done = deploy(tmp_path / "p.onnx", "--replay", tmp_path / "observations.npy")
    assert done.returncode == code, done.stderr
    assert ("largest change    [3.]" in done.stdout) if code == 0 else ("has the shape (steps), not (3, 1)" in done.stderr)


@pytest.mark.parametrize(
    ("recorded", "code"), [([0.0, 0.5], 2), ([0, -1], 2), ([0, 256], 2), ([0.0, np.nan], 2), ([0.0, 255.0], 0)]
)
def test_deploy_replays_integers_as_they_are_or_not_at_all(deploy, tmp_path, recorded, code):
    save_cast(tmp_path / "p.onnx", "UINT8", "batch", 1)
    np.save(tmp_path / "observations.npy", np.reshape(recorded, (2, 1)))
    done = deploy(tmp_path / "p.onnx", "--replay", tmp_path / "observations.npy", "--max-change", "300")
    assert done.returncode == code, done.stderr
    assert ("change    [255.]" in done.stdout) if code == 0 else ("observes uint8, " in done.stderr and not done.stdout)


def test_deploy_refuses_a_robot_whose_fractions_the_policy_would_not_see(deploy, tmp_path):
    save_cast(tmp_path / "p.onnx", "UINT8", "batch", 3)
    done = deploy(tmp_path / "p.onnx", "--seconds", "0.02")
    assert done.returncode == 2 and "Cannot cast" in done.stderr


@pytest.fixture
def recording(tmp_path):
    np.save(tmp_path / "observations.npy", np.array([[0, 0, 0], [100, 0, 0], [100, 0, 0], [0, 0, 0], [100, 0, 0]], np.float64))
    return ("--replay", tmp_path / "observations.npy")


def test_deploy_runs_with_numpy_and_onnxruntime_alone(policy):
    command = [sys.executable, "-c", BARE, EXAMPLES / "deploy.py", policy, "--rate", "500", "--seconds", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "decisions at 500 Hz, a period of 2 ms" in done.stdout and "missed deadlines" in done.stdout


def test_deploys_pendulum_starts_where_the_seed_says(deploy, policy, monkeypatch):
    seeds, generator = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or generator(seed))
    assert deploy(policy, "--seed", "7", "--seconds", "0.02").returncode == 0
    assert seeds == [7]


def test_deploy_measures_the_largest_change_and_jerk(deploy, policy, recording):
    """Actions of 0, 2, 2, 0, 2: they change by 2, and 2 - 2 * 2 + 0 = -2 to 2 - 2 * 0 + 2 = 4."""
    done = deploy(policy, *recording)
    assert "largest change    [2. 2.] a step, [1000. 1000.] a second" in done.stdout
    assert "largest jerk      [4. 4.] a step²" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [([], 20, 20), (["--seconds", "0.5"], 21, 50), (["--seconds", "0.15"], 3, 15)],
    ids=["once", "and from its start again", "cut"],
)
def test_deploy_replays_a_recording_once_or_as_long_as_it_is_told(deploy, policy, tmp_path, seconds, least, most):
    """An action that grows steadily from -0.2 to 0.2; where it starts again it falls by 0.4, which does not count."""
    observations = np.zeros((20, 3))
    observations[:, 0] = np.arctanh(np.linspace(-0.1, 0.1, 20))
    np.save(tmp_path / "observations.npy", observations)
    limits = ("--max-change", "0.022", "--max-jerk", "0.001")
    done = deploy(policy, "--replay", tmp_path / "observations.npy", "--rate", "100", *seconds, *limits)
    assert done.returncode == 0, done.stdout + done.stderr
    decisions = int(done.stdout.split()[0])
    assert least <= decisions <= most and f"replayed          {min(decisions, 20)} of 20 observations" in done.stdout
    assert "largest change    [0.021 0.021]" in done.stdout


def test_deploy_replays_every_observation_however_late_the_policy_is(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("gc.collect", lambda: 0)
    deployed = runpy.run_path(str(EXAMPLES / "deploy.py"))
    robot = deployed["Replay"](np.arange(4.0))
    actions, _, missed = deployed["control"](lambda observation: observation[None], robot, rate=1e8, max_decisions=4)
    assert actions.ravel().tolist() == [0.0, 1.0, 2.0, 3.0] and missed > 4


@pytest.mark.parametrize(("steps", "failures"), [(1, ["change", "jerk"]), (2, ["jerk"]), (3, [])], ids=["one", "two", "three"])
@pytest.mark.parametrize("seconds", [[], ["--seconds", "0.1"]], ids=["once", "again and again"])
def test_deploy_lets_no_limit_pass_that_it_has_not_measured(deploy, policy, tmp_path, steps, failures, seconds):
    np.save(tmp_path / "observations.npy", np.zeros((steps, 3)))
    limits = ("--max-change", "1", "--max-jerk", "1")
    done = deploy(policy, "--replay", tmp_path / "observations.npy", "--rate", "100", *seconds, *limits)
    assert done.returncode == bool(failures), done.stderr
    said = [line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if "LIMIT BROKEN" in line]
    assert said == [f"{what}: not measured, too few decisions in a row" for what in failures]


@pytest.mark.parametrize(
    ("limits", "failures"),
    [
        (["--max-change", "2", "--max-jerk", "4"], []),
        (["--max-change", "1.9"], ["change of action 0: 2 > 1.9", "change of action 1: 2 > 1.9"]),
        (["--max-change", "2", "1"], ["change of action 1: 2 > 1"]),
        (["--max-jerk", "3", "4"], ["jerk of action 0: 4 > 3"]),
    ],
)
def test_deploy_fails_where_a_limit_is_broken(deploy, policy, recording, limits, failures):
    done = deploy(policy, *recording, *limits)
    assert done.returncode == bool(failures), done.stderr
    assert [line.split(maxsplit=2)[2] for line in done.stdout.splitlines() if "LIMIT BROKEN" in line] == failures


def test_deploy_counts_missed_deadlines(deploy, policy):
    """No process answers a million times a second."""
    done = deploy(policy, "--rate", "1000000", "--seconds", "0.001", "--max-missed", "0")
    assert done.returncode == 1 and "LIMIT BROKEN      missed deadlines:" in done.stdout


def test_deploy_never_writes_what_is_not_finite(deploy, policy, tmp_path):
    np.save(tmp_path / "observations.npy", np.full((2, 3), np.inf))
    done = deploy(policy, "--replay", tmp_path / "observations.npy")
    assert done.returncode == 1 and "stopped before it was written" in done.stderr


def save_several(path, array):
    np.savez(path.with_suffix(".npz"), a=array)
    path.with_suffix(".npz").rename(path)


@pytest.mark.parametrize(
    ("save", "recorded", "message"),
    [
        (np.save, np.zeros((5, 4)), "a recording for this policy has the shape (steps, 3), not (5, 4)"),
        (np.save, np.zeros(3), "has the shape (steps, 3), not (3,)"),
        (np.save, np.zeros((0, 3)), "has the shape (steps, 3), not (0, 3)"),
        (np.save, np.float64(3), "has the shape (steps, 3), not ()"),
        (np.save, np.full((5, 3), "x"), "a recording is of numbers, not of <U1"),
        (np.save, np.full((5, 3), None), "observations.npy holds no numbers saved by numpy.save"),
        (lambda path, array: path.write_text("1, 2, 3"), None, "observations.npy holds no numbers saved by numpy.save"),
        (save_several, np.zeros((5, 3)), "holds several arrays: save the observations alone, by numpy.save"),
    ],
)
def test_deploy_refuses_observations_that_do_not_fit(deploy, policy, tmp_path, save, recorded, message):
    save(tmp_path / "observations.npy", recorded)
    done = deploy(policy, "--replay", tmp_path / "observations.npy")
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize("limit", ["change", "jerk"])
def test_deploy_runs_nothing_where_limits_do_not_fit(deploy, policy, recording, limit):
    done = deploy(policy, *recording, f"--max-{limit}", "1", "1", "1")
    assert done.returncode == 2 and not done.stdout
    assert f"--max-{limit}: 2 actions need one limit or 2, not 3" in done.stderr
    for no_limit in ("nan", "inf"):
        done = deploy(policy, *recording, f"--max-{limit}", "1", no_limit)
        assert done.returncode == 2 and f"--max-{limit}: {no_limit} is no finite number" in done.stderr


def test_the_pendulum_is_gymnasiums():
    pytest.importorskip("onnxruntime")
    import gymnasium as gym

    ours = runpy.run_path(str(EXAMPLES / "deploy.py"))["Pendulum"](period=0.05)
    env = gym.make("Pendulum-v1")
    env.reset(seed=0)
    env.unwrapped.state = np.array([ours.angle, ours.velocity])
    for torque in (2.0, -1.0, 3.0, 0.5):
        ours.write(np.array([torque]))
        expected = env.step(np.array([torque], np.float32))[0]
        np.testing.assert_allclose(ours.read(), expected, atol=1e-5)


def test_deploy_allows_as_many_missed_deadlines_as_it_is_told(deploy, policy, recording, monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    done = deploy(policy, *recording, "--max-missed", "0")
    assert done.returncode == 0 and "missed deadlines  0" in done.stdout, done.stdout


def test_deploy_counts_by_the_clock(monkeypatch):
    """A period of 10 ms; reading takes 2 ms; decisions of 4, 23, 9, 3 and 95 ms."""
    pytest.importorskip("onnxruntime")
    deployed, now = runpy.run_path(str(EXAMPLES / "deploy.py")), [0.0]

    def spend(seconds):
        now[0] += seconds

    class Robot(deployed["Replay"]):
        def read(self):
            spend(0.002)
            return super().read()

    durations = iter([0.0] * 20 + [0.004, 0.023, 0.009, 0.003, 0.095])

    def decide(observation):
        spend(next(durations))
        return observation[None]

    monkeypatch.setattr("gc.collect", lambda: 0)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.sleep", spend)
    _, times, missed = deployed["control"](decide, Robot(np.arange(9.0)), rate=100, seconds=0.1)
    # At ticks 0, 1 (three of them), 4 (two), 6 and 7 (of ten, the three that are left)
    assert missed == 3 + 2 + 3
    np.testing.assert_allclose(times[:, 0], [0.004, 0.023, 0.009, 0.003, 0.095])
    np.testing.assert_allclose(times[:, 1], times[:, 0] + 0.002)


@pytest.mark.parametrize("period", [0.02, 0.1])
def test_the_pendulum_moves_for_one_period(period):
    pytest.importorskip("onnxruntime")
    robot = runpy.run_path(str(EXAMPLES / "deploy.py"))["Pendulum"](period=period)
    robot.gravity, robot.velocity, before = 0.0, 1.0, robot.angle
    robot.write(np.array([0.0]))
    assert robot.angle == pytest.approx(before + period)
