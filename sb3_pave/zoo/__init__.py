"""PAVE in RL Zoo: ``register()`` adds the algorithms to the zoo, in place."""

try:
    import rl_zoo3  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "rl_zoo3":
        raise
    raise ModuleNotFoundError('sb3_pave.zoo needs RL Zoo: pip install "sb3-pave[zoo]"', name="rl_zoo3") from error

from sb3_pave.zoo.registration import register

__all__ = ["register"]
