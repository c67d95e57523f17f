"""
Measurements of any SB3 agent: episodes, smoothness, robustness, geometry of the critic.

Numbers only, with what Stable-Baselines3 itself depends on. The tables (:mod:`sb3_pave.evaluation.tables`) and pictures
(:mod:`sb3_pave.evaluation.plots`) need the packages of the extra ``eval``.
"""

from sb3_pave.evaluation.actor_jacobian import actor_jacobian_norm
from sb3_pave.evaluation.geometry import CriticGeometry, critic_geometry
from sb3_pave.evaluation.networks import critic_values
from sb3_pave.evaluation.robustness import evaluate_robustness, observation_scale
from sb3_pave.evaluation.rollout import Episode, Rollout, record_rollout
from sb3_pave.evaluation.rollout_geometry import RolloutGeometry, rollout_geometry
from sb3_pave.evaluation.smoothness import (
    action_change,
    action_spectrum,
    continuity_cost,
    control_effort,
    high_frequency_share,
    saturation_rate,
    scale_actions,
    second_difference,
    smoothness_measures,
    smoothness_score,
)
from sb3_pave.evaluation.surface import SurfacePlane, field_surface, surface_plane
from sb3_pave.evaluation.turn import FieldTurn, field_turn

__all__ = [
    "CriticGeometry",
    "Episode",
    "FieldTurn",
    "Rollout",
    "RolloutGeometry",
    "SurfacePlane",
    "action_change",
    "action_spectrum",
    "actor_jacobian_norm",
    "continuity_cost",
    "control_effort",
    "critic_geometry",
    "critic_values",
    "evaluate_robustness",
    "field_surface",
    "field_turn",
    "high_frequency_share",
    "observation_scale",
    "record_rollout",
    "rollout_geometry",
    "saturation_rate",
    "scale_actions",
    "second_difference",
    "smoothness_measures",
    "smoothness_score",
    "surface_plane",
]
