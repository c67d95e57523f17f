from stable_baselines3 import DDPG

from sb3_pave.algorithms.td3 import PAVE_TD3


class PAVE_DDPG(PAVE_TD3, DDPG):
    """
    DDPG whose critic is trained with PAVE. Takes all arguments of ``stable_baselines3.DDPG``, and those of ``Pave``.

    DDPG is a configuration of TD3 (one critic, no policy delay, no target noise), and so is this of ``PAVE_TD3``.
    """

    _added_policy_kwargs = ("n_critics",)
