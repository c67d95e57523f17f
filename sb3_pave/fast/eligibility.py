"""Which critics the closed form serves: those for which it equals ``method.field.gradient_field``, told by type."""

import sys
from typing import Any

from stable_baselines3.common.policies import ContinuousCritic

from sb3_pave.fast.ensemble import has_hooks, is_ensemble
from sb3_pave.fast.folding import without_normalization
from sb3_pave.fast.stacked_points import has_mode_free_features


def has_closed_form(critic: Any) -> bool:
    """
    Whether the critic is SB3's own, or that of sb3-contrib's TQC or CrossQ (no forward pass of its own, no hooks), with
    networks that the closed form serves: MLPs, perhaps with contrib's batch renormalisation before their linear layers.
    """
    known = (ContinuousCritic, *of_contrib("tqc", "Critic"), *of_contrib("crossq", "CrossQCritic"))
    own_forward = any(type(critic).forward is upstream.forward for upstream in known)
    own_features = getattr(type(critic), "extract_features", None) is ContinuousCritic.extract_features
    return (
        own_forward
        and own_features
        and not has_hooks(critic)
        and is_ensemble([*map(without_normalization, critic.q_networks)])
    )


def is_mode_free(critic: Any) -> bool:
    """
    Whether the critic computes the same in training as in evaluation mode, where its field is evaluated.

    :param critic: one that has a closed form
    """
    return has_mode_free_features(critic) and is_ensemble(critic.q_networks)


def of_contrib(algorithm: str, name: str) -> list[Any]:
    """
    A class of sb3-contrib's policies, alone in a list. The list is empty where the class was not imported, so that no module
    can be one of it: contrib need not be installed.

    :param algorithm: its package
    :param name: its name
    """
    module = sys.modules.get(f"sb3_contrib.{algorithm}.policies")
    return [] if module is None else [getattr(module, name)]
