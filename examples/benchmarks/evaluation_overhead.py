"""What recording and measuring episodes costs over SB3's ``evaluate_policy``, on the same episodes.

    python examples/benchmarks/evaluation_overhead.py --env Walker2d-v5 --episodes 10 --repeats 9

An untrained Walker2d falls after some twenty steps; ``--healthy`` lets it lie there, so that an episode has its 1000 steps.
The two are timed in turn, in an order that changes each time, in CPU time of the process: what else the machine does then
bears on both alike. Printed are the medians and the median of the ratios of neighbouring runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import gymnasium as gym
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_pave.evaluation.rollout import record_rollout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Walker2d-v5")
    parser.add_argument("--model", help="an SAC zip file; default: a fresh SAC")
    parser.add_argument("--healthy", action="store_true", help="MuJoCo: do not end an episode at a fall")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    th.set_num_threads(1)

    kwargs = {"terminate_when_unhealthy": False} if args.healthy else {}
    env = DummyVecEnv([lambda: Monitor(gym.make(args.env, **kwargs))])
    model = SAC.load(args.model, device="cpu") if args.model else SAC("MlpPolicy", env, device="cpu", seed=0, buffer_size=1)
    lengths = []

    def plain() -> None:
        env.seed(0)
        evaluate_policy(model, env, n_eval_episodes=args.episodes)

    def measured() -> None:
        recorded = record_rollout(model, env, n_eval_episodes=args.episodes, seed=0)
        lengths.append(recorded.smoothness()["length"].sum())

    timings: dict[Callable[[], None], list[float]] = {plain: [], measured: []}
    plain()  # warm up
    for repeat in range(args.repeats):
        for function in (plain, measured) if repeat % 2 == 0 else (measured, plain):
            start = time.process_time()
            function()
            timings[function].append(time.process_time() - start)
    ratios = [ours / theirs for theirs, ours in zip(timings[plain], timings[measured], strict=True)]
    print(f"{args.env}: {args.episodes} episodes, {lengths[0]:.0f} steps, {args.repeats} repeats")
    print(f"evaluate_policy            {statistics.median(timings[plain]):.3f} s")
    print(f"rollout and its smoothness {statistics.median(timings[measured]):.3f} s")
    print(f"ratio                      {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})")


if __name__ == "__main__":
    main()
