"""
Train a smooth Pendulum controller, look at it, save it, and run it without sb3-pave.

    python examples/quickstart.py [timesteps]
"""

import sys

from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_pave import PAVE_SAC


def main(timesteps: int = 20_000) -> None:
    model = PAVE_SAC(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=1e-3,
        learning_starts=min(10_000, timesteps // 2),
        train_freq=50,
        gradient_steps=50,
        batch_size=100,
        ent_coef=0.2,
        seed=0,
        verbose=1,  # a table of signals every few episodes
    )
    model.learn(timesteps)
    mean_return, std_return = evaluate_policy(model, model.get_env(), n_eval_episodes=10)
    print(f"Return {mean_return:.0f} ± {std_return:.0f}")

    model.save("pave_pendulum")
    # The zip is SB3's own: the robot needs stable-baselines3 only
    on_the_robot = SAC.load("pave_pendulum")
    observation, _ = model.get_env().envs[0].reset(seed=0)
    print("Action", on_the_robot.predict(observation, deterministic=True)[0])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
