"""
Run an exported policy in a control loop, as a robot would: NumPy and onnxruntime, no torch, no Stable-Baselines3.

    sb3-pave export model.zip policy.onnx
    python examples/deploy.py policy.onnx --rate 50 --seconds 5 --max-change 1.0 --max-jerk 1.5 --max-missed 0

The robot here is a simulated pendulum with the observations and actions of Pendulum-v1. Put your own in its place: a class
with `read` and `write`; or give `--replay observations.npy`, a recording of shape (steps, observation size), in the numbers
that the policy was trained on, to see how it would have answered.

The exit status is 1 if a limit was broken or could not be measured, or an action was not finite, so that a script can refuse
such a policy; 2 if it could not be run.
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
    """Recorded observations, whatever the policy answers; from the start again when they are over."""

    def __init__(self, recording: np.ndarray):
        self.recording, self.i = recording, 0

    def read(self) -> np.ndarray:
        return self.recording[self.i % len(self.recording)]

    def write(self, action: np.ndarray) -> None:
        self.i += 1


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
        # Where integers are expected, fractions are an error and not cut off
        batch = observation[None].astype(self.dtype, casting="same_kind")
        (action,) = self.session.run(None, {self.name: batch})
        return action[0].ravel()


def recorded(path: str, policy: Policy) -> np.ndarray:
    """The observations in a file, as the policy takes them."""
    try:
        with open(path, "rb") as file:
            loaded = np.load(file)
    except (EOFError, ValueError) as error:  # its own advice is to allow what may run foreign code
        raise ValueError(f"{path} holds no numbers saved by numpy.save") from error
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path} holds several arrays: save the observations alone, by numpy.save")
    if loaded.dtype.kind not in "biuf":
        raise ValueError(f"a recording is of numbers, not of {loaded.dtype}")
    if loaded.ndim == 0 or len(loaded) == 0 or list(loaded.shape[1:]) != policy.shape:
        wanted = ", ".join(map(str, ("steps", *policy.shape)))
        raise ValueError(f"a recording for this policy has the shape ({wanted}), not {loaded.shape}")
    with np.errstate(invalid="ignore"):
        recording = loaded.astype(policy.dtype)
    if policy.dtype.kind != "f" and not np.array_equal(recording, loaded):
        raise ValueError(f"the policy observes {policy.dtype}, {path} holds other numbers: record what it was trained on")
    return recording


def control(
    policy: Policy, robot: Pendulum | Replay, rate: float, seconds: float = np.inf, max_decisions: float = np.inf
) -> tuple[np.ndarray, np.ndarray, int]:
    """
    Read, decide, write, at a fixed rate. A decision that comes late is followed by the next whole tick, so that delays don't
    pile up. (The simulated pendulum waits for it; a real one would not.)

    :param policy: the policy
    :param robot: what it controls
    :param rate: ticks a second in Hz
    :param seconds: how long
    :param max_decisions: and after how many decisions it is over, however long they took
    :return: the actions, shape ``(n_decisions, action_dim)``; of each, how long the policy took and how long after its tick it
        was there, in s, shape ``(n_decisions, 2)``; and how many ticks passed without a decision or had it too late
    :raises FloatingPointError: if an action is not finite: it is not written
    """
    period, n_ticks = 1.0 / rate, max(1.0, np.rint(seconds * rate))
    for _ in range(20):  # the first calls allocate
        policy(robot.read())
    actions, times, missed, tick = [], [], 0, 0
    gc.collect()
    gc.disable()  # no pause in the middle
    try:
        start = time.perf_counter()
        while tick < n_ticks and len(actions) < max_decisions:
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
            missed += int(min(passed, n_ticks - tick)) if passed > 1 else 0
            tick += passed
    finally:
        gc.enable()
    return np.array(actions), np.array(times), missed


def largest(runs: list[np.ndarray], order: int) -> np.ndarray:
    """Largest difference of that order within a run, in each action dimension; NaN where all runs are too short for one."""
    differences = np.concatenate([np.diff(actions, order, axis=0) for actions in runs])
    return np.abs(differences).max(axis=0) if len(differences) else np.full(differences.shape[1], np.nan)


def broken(what: str, values: np.ndarray, limits: Sequence[float] | None) -> list[str]:
    """A sentence for each action dimension that is over its limit; one limit stands for all."""
    if limits is None:
        return []
    if np.isnan(values).any():
        return [f"{what}: not measured, too few decisions in a row"]
    limits = np.broadcast_to(limits, values.shape)
    return [f"{what} of action {i}: {values[i]:.3g} > {limits[i]:g}" for i in np.flatnonzero(values > limits)]


def limit(text: str) -> float:
    """A limit of the command line: NaN and infinity would let everything pass."""
    if not np.isfinite(value := float(text)):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description="An exported policy in a control loop at a fixed rate.")
    add = parser.add_argument
    add("policy", metavar="policy.onnx", help="what sb3-pave export wrote")
    add("--rate", type=float, default=50.0, metavar="HZ", help="control rate (default: 50)")
    add("--seconds", type=float, help="how long (default: 5, or the recording once)")
    add("--replay", metavar="FILE.npy", help="recorded observations in place of the simulated pendulum")
    add("--seed", type=int, default=0, help="seed of the pendulum's start (default: 0)")
    add("--max-change", type=limit, nargs="+", help="limit of |a[t] - a[t-1]|: one, or one for each action")
    add("--max-jerk", type=limit, nargs="+", help="limit of |a[t] - 2 a[t-1] + a[t-2]|, likewise")
    add("--max-missed", type=int, help="how many deadlines may be missed")
    args = parser.parse_args()
    if not (0 < args.rate < np.inf and (args.seconds is None or 0 < args.seconds < np.inf)):
        parser.error("--rate and --seconds must be positive")

    try:
        policy = Policy(args.policy)
        recording = None if args.replay is None else recorded(args.replay, policy)
        robot = Pendulum(1 / args.rate, args.seed) if recording is None else Replay(recording)
        if list(robot.read().shape) != policy.shape:
            raise ValueError(
                f"the policy observes {policy.shape}, the robot gives {list(robot.read().shape)}: put your robot in place of "
                "the pendulum, or give --replay"
            )
        n_actions = len(policy(robot.read()))
    except Exception as error:  # onnxruntime has its own kinds
        parser.error(str(error))
    for what, limits in (("change", args.max_change), ("jerk", args.max_jerk)):
        if limits is not None and len(limits) not in (1, n_actions):
            parser.error(f"--max-{what}: {n_actions} actions need one limit or {n_actions}, not {len(limits)}")
    try:
        if recording is None or args.seconds is not None:
            actions, times, missed = control(policy, robot, args.rate, seconds=args.seconds or 5.0)
        else:
            actions, times, missed = control(policy, robot, args.rate, max_decisions=len(recording))
    except FloatingPointError as error:
        parser.exit(1, f"{error}\n")

    # From a recording's end to its start again, actions jump for no fault of the policy
    length = len(actions) if recording is None else len(recording)
    runs = np.split(actions, range(length, len(actions), length))
    changes, jerks = largest(runs, 1), largest(runs, 2)
    print(f"{len(actions)} decisions at {args.rate:g} Hz, a period of {1000 / args.rate:.3g} ms")
    if recording is not None:
        print(f"replayed          {len(runs[0])} of {len(recording)} observations")
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
