"""
Train with PAVE through the unmodified zoo command: importing this module lets its ``td3``, ``sac``, ``ddpg``, ``tqc`` and
``crossq`` train with PAVE.

::

    python -m rl_zoo3.train --algo sac --env Pendulum-v1 --gym-packages sb3_pave.zoo.drop_in

The hyperparameters are the zoo's own, with PAVE's default weights (``-params mpr_coef:1.0 ...`` changes them). The agents
are plain SB3 files, which the zoo's ``enjoy --algo sac`` loads without this module.
"""

from sb3_pave.zoo.registration import replace_hosts

replace_hosts()
