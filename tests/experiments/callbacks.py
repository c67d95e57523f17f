"""Callbacks that tests put into the trainings of a grid."""

import os
import time

from stable_baselines3.common.callbacks import BaseCallback


class Abort(BaseCallback):
    """Ends the process as a crash of native code does."""

    def _on_step(self) -> bool:
        if self.num_timesteps == 20:
            os.abort()
        return True


class Slow(BaseCallback):
    """Gives tests time to do something to the training."""

    def _on_step(self) -> bool:
        time.sleep(0.005)
        return True
