"""
Pendulum-v1 in other units: the same task, whose rewards or angular velocity are multiplied.

``PendulumRewards1e-2-v0`` has a hundredth of the rewards, ``PendulumVelocity100-v0`` a hundred times the angular velocity in
the observation, and so on. For a grid: ``gym_packages: [examples.units]``, from the folder above; its results as a table:

    python -m examples.units examples/results/units
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv

FACTORS = ("1e-2", "100")  # without a dot: SB3 would take what follows it for the ending of the agent's file


class OtherUnits(gym.Wrapper):
    """
    Pendulum in other units.

    :param rewards: what rewards are multiplied by
    :param velocity: what the angular velocity in the observation is multiplied by
    """

    def __init__(self, rewards: float = 1.0, velocity: float = 1.0, **kwargs):
        super().__init__(gym.wrappers.TimeLimit(PendulumEnv(**kwargs), 200))
        self.rewards = rewards
        self.units = np.array([1, 1, velocity], np.float32)
        high = self.env.observation_space.high * self.units
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)

    def reset(self, **kwargs):
        observation, info = self.env.reset(**kwargs)
        return observation * self.units, info

    def step(self, action):
        observation, reward, *rest = self.env.step(action)
        return observation * self.units, float(self.rewards * reward), *rest


for factor in FACTORS:
    gym.register(f"PendulumRewards{factor}-v0", OtherUnits, kwargs={"rewards": float(factor)})
    gym.register(f"PendulumVelocity{factor}-v0", OtherUnits, kwargs={"velocity": float(factor)})


def table(folder: Path) -> str:
    """
    A row for each unit and a column for each method, in Markdown: mean return over seeds, in the units of Pendulum-v1, and
    ``sm`` of each seed.

    :param folder: with a ``result.json`` for each run
    """
    cells = defaultdict(list)
    for path in sorted(folder.glob("*/result.json")):
        result = json.loads(path.read_text())
        cells[result["environment"], result["method"]].append((result["seed"], result["evaluation"]["episodes"]))
    environments, methods = (sorted({key[i] for key in cells}) for i in (0, 1))
    lines = [["", *methods], ["---"] * (1 + len(methods))]
    for environment in environments:
        scale = float(environment.removeprefix("PendulumRewards").removesuffix("-v0")) if "Rewards" in environment else 1
        line = [environment]
        for method in methods:
            runs = [episodes for _, episodes in sorted(cells[environment, method], key=lambda run: run[0])]
            smooth = ", ".join(f"{mean(episodes['sm']):.2f}" for episodes in runs)
            returns = [mean(episodes["return"]) / scale for episodes in runs]
            line.append(f"{mean(returns):.0f} / {smooth}" if runs else "not run")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
