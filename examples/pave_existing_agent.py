"""
Pave an agent that you already have: load a plain SB3 zip and continue its training with PAVE.

    python examples/pave_existing_agent.py [timesteps]
"""

import sys

from stable_baselines3 import TD3
from torch import nn

from sb3_pave import PAVE_TD3


def main(timesteps: int = 10_000) -> None:
    # Stands for the agent that you have. PAVE needs a smooth activation: an agent with ReLU, SB3's default, loads with a
    # warning and trains with MPR and VFC only.
    plain = TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"activation_fn": nn.SiLU}, learning_starts=100, seed=0)
    plain.learn(timesteps)
    plain.save("td3_pendulum")
    plain.save_replay_buffer("td3_pendulum_buffer")

    model = PAVE_TD3.load("td3_pendulum", env=plain.get_env(), verbose=1)
    model.load_replay_buffer("td3_pendulum_buffer")
    model.learn(timesteps, reset_num_timesteps=False)
    print(
        f"{model.num_timesteps} steps, {timesteps} of them with PAVE: field RMS",
        round(model.logger.name_to_value["train/action_grad_rms"], 3),
    )
    model.save("pave_td3_pendulum")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
