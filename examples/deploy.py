"""
Run an exported policy in a control loop, as a robot would: NumPy and onnxruntime, no torch, no Stable-Baselines3.

    sb3-pave export model.zip policy.onnx
    python examples/deploy.py policy.onnx --rate 50 --seconds 5 --max-change 1.0 --max-jerk 1.5 --max-missed 0

The robot here is a simulated pendulum with the observations and actions of Pendulum-v1. Put your own in its place: a class
with `read`, `write` and `seconds`; or give `--replay observations.npy`, a recording of shape (steps, observation size),
to see how your policy would have answered.

The exit status is 1 if a limit was broken, so that a script can refuse such a policy; 2 if it could not be run.
"""

import argparse
import gc
import sys
import time
from collections.abc import Sequence

import numpy as np
import onnxruntime


class Pendulum:
    """Pendulum-v1: observes the cosine and sine of its angle from upright and its velocity (rad/s), moved by ±2 N m."""

    gravity, mass, length = 10.0, 1.0, 1.0
    longest_step = 0.05  # s, Gymnasium's

    def __init__(self, period: float, seed: int = 0):
        self.angle, self.velocity = np.random.default_rng(seed).uniform([-np.pi, -1.0], [np.pi, 1.0])
        self.n_steps = max(1, int(np.ceil(period / self.longest_step - 1e-9)))
        self.step = period / self.n_steps

    def read(self) -> np.ndarray:
        return np.array([np.cos(self.angle), np.sin(self.angle), self.velocity], dtype=np.float32)

    def write(self, action: np.ndarray) -> None:
        """The torque holds for one period."""
        torque = float(np.clip(action[0], -2.0, 2.0))
        for _ in range(self.n_steps):
            fall = 1.5 * self.gravity / self.length * np.sin(self.angle)
            drive = 3.0 / (self.mass * self.length**2) * torque
            self.velocity = np.clip(self.velocity + (fall + drive) * self.step, -8.0, 8.0)
            self.angle += self.velocity * self.step


class Replay:
    """Observations from a file, whatever the policy answers; from the start again when they are over."""

    def __init__(self, observations: np.ndarray):
        if observations.ndim < 2 or not len(observations):
            raise ValueError(f"a recording has the shape (steps, observation size), not {observations.shape}")
        if observations.dtype.kind not in "biuf":
            raise ValueError(f"a recording is of numbers, not of {observations.dtype}")
        self.observations, self.i = observations, 0

    def read(self) -> np.ndarray:
        return self.observations[self.i % len(self.observations)]

    def write(self, action: np.ndarray) -> None:
        self.i += 1


def recorded(path: str) -> np.ndarray:
    """The observations in a file."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file)
    except (EOFError, ValueError) as error:  # its own advice is to allow what may run foreign code
        raise ValueError(f"{path} holds no numbers saved by numpy.save") from error
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path} holds several arrays: save the observations alone, by numpy.save")
    return loaded


class Policy:
    """The exported graph: an observation in, an action in the robot's units out."""

    def __init__(self, path: str, threads: int = 1):
        options = onnxruntime.SessionOptions()
        # More threads than one make a small network slower, and less predictable
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise ValueError(f"{path} observes {', '.join(one.name for one in inputs)}: this example feeds one observation")
        self.name, (batch, *self.shape) = inputs[0].name, inputs[0].shape
        if isinstance(batch, int) and batch != 1:
            raise ValueError(f"{path} takes {batch} observations at once, this loop has one: export it with --batch-size 1")
        # "tensor(float)", "tensor(int32)" ...
        self.dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind := inputs[0].type[7:-1], kind))

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        (action,) = self.session.run(None, {self.name: observation[None].astype(self.dtype)})
        return action[0].ravel()


def control(policy: Policy, robot: Pendulum | Replay, rate: float, seconds: float) -> tuple[np.ndarray, np.ndarray, int]:
    """
    Read, decide, write, at a fixed rate. A decision that comes late is followed by the next whole tick, so that delays don't
    pile up. (The simulated pendulum waits for it; a real one would not.)

    :param policy: the policy
    :param robot: what it controls
    :param rate: ticks a second in Hz
    :param seconds: how long
    :return: the actions, shape ``(n_decisions, action_dim)``; of each, how long the policy took and how long after its tick it
        was there, in s, shape ``(n_decisions, 2)``; and how many ticks passed without a decision or had it too late
    :raises FloatingPointError: if an action is not finite: it is not written
    """
    period, n_ticks = 1.0 / rate, max(1, round(seconds * rate))
    for _ in range(20):  # the first calls allocate
        policy(robot.read())
    actions, times, missed, tick = [], [], 0, 0
    gc.collect()
    gc.disable()  # no pause in the middle
    try:
        start = time.perf_counter()
        while tick < n_ticks:
            due = start + tick * period
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            observation = robot.read()
            asked = time.perf_counter()
            action = policy(observation)
            answered = time.perf_counter()
            if not np.isfinite(action).all():
                raise FloatingPointError(f"the action at tick {tick} is {action}: stopped before it was written")
            robot.write(action)
            actions.append(action)
            times.append((answered - asked, answered - due))
            passed = max(1, int(np.ceil((answered - due) / period)))  # the ticks that this decision took
            missed += min(passed, n_ticks - tick) if passed > 1 else 0
            tick += passed
    finally:
        gc.enable()
    return np.array(actions), np.array(times), missed


def largest(differences: np.ndarray) -> np.ndarray:
    """Largest magnitude in each action dimension."""
    return np.abs(differences).max(axis=0, initial=0.0)


def broken(what: str, values: np.ndarray, limits: Sequence[float] | None) -> list[str]:
    """A sentence for each action dimension that is over its limit; one limit stands for all."""
    if limits is None:
        return []
    limits = np.broadcast_to(limits, values.shape)
    return [f"{what} of action {i}: {values[i]:.3g} > {limits[i]:g}" for i in np.flatnonzero(values > limits)]


def main() -> int:
    parser = argparse.ArgumentParser(description="An exported policy in a control loop at a fixed rate.")
    add = parser.add_argument
    add("policy", metavar="policy.onnx", help="what sb3-pave export wrote")
    add("--rate", type=float, default=50.0, metavar="HZ", help="control rate (default: 50)")
    add("--seconds", type=float, default=5.0, help="how long (default: 5)")
    add("--replay", metavar="FILE.npy", help="recorded observations in place of the simulated pendulum")
    add("--seed", type=int, default=0, help="seed of the pendulum's start (default: 0)")
    add("--max-change", type=float, nargs="+", help="limit of |a[t] - a[t-1]|: one, or one for each action")
    add("--max-jerk", type=float, nargs="+", help="limit of |a[t] - 2 a[t-1] + a[t-2]|, likewise")
    add("--max-missed", type=int, help="how many deadlines may be missed")
    args = parser.parse_args()
    if not (0 < args.rate < float("inf") and 0 < args.seconds < float("inf")):
        parser.error("--rate and --seconds must be positive")

    try:
        policy = Policy(args.policy)
        robot = Pendulum(1 / args.rate, args.seed) if args.replay is None else Replay(recorded(args.replay))
    except Exception as error:  # onnxruntime has its own kinds
        parser.error(str(error))
    if list(robot.read().shape) != policy.shape:
        parser.error(
            f"the policy observes {policy.shape}, the robot gives {list(robot.read().shape)}: put your robot in place of the "
            "pendulum, or give --replay"
        )
    n_actions = len(policy(robot.read()))
    for what, limits in (("change", args.max_change), ("jerk", args.max_jerk)):
        if limits is not None and len(limits) not in (1, n_actions):
            parser.error(f"--max-{what}: {n_actions} actions need one limit or {n_actions}, not {len(limits)}")
    try:
        actions, times, missed = control(policy, robot, args.rate, args.seconds)
    except FloatingPointError as error:
        parser.exit(1, f"{error}\n")

    changes, jerks = largest(np.diff(actions, axis=0)), largest(np.diff(actions, n=2, axis=0))
    print(f"{len(actions)} decisions at {args.rate:g} Hz, a period of {1000 / args.rate:.3g} ms")
    for what, measured in zip(("policy alone", "tick to action"), times.T, strict=True):
        p50, p99, longest = 1000 * np.percentile(measured, [50, 99, 100])
        print(f"{what:<18}median {p50:.3f} ms, 99th percentile {p99:.3f} ms, longest {longest:.3f} ms")
    print(f"missed deadlines  {missed}")
    print(f"largest change    {changes.round(3)} a step, {(changes * args.rate).round(1)} a second")
    print(f"largest jerk      {jerks.round(3)} a step²")
    failures = broken("change", changes, args.max_change) + broken("jerk", jerks, args.max_jerk)
    if args.max_missed is not None and missed > args.max_missed:
        failures.append(f"missed deadlines: {missed} > {args.max_missed}")
    for failure in failures:
        print(f"LIMIT BROKEN      {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
