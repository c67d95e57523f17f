"""Floating-point operations that a gradient step cannot do without, counted from the shapes of its networks."""

from typing import Any, NamedTuple

from stable_baselines3 import SAC, TD3
from torch import nn


class GradientStepFlops(NamedTuple):
    """
    Multiplications and additions of the matrix products of one gradient step.

    :param target: target critics and the policy's next action
    :param forward: critics at the replayed, the perturbed and the next states
    :param field: backward pass to the action and the tangent of the curvature
    :param backward: gradient of the critic's loss with respect to the parameters
    :param actor: the actor's update (a fraction of one, where the host delays it)
    """

    target: int
    forward: int
    field: int
    backward: int
    actor: int

    @property
    def total(self) -> int:
        return sum(self)


def gradient_step_flops(model: Any, batch_size: int, field_rows: int = 0) -> GradientStepFlops | None:
    """
    Count the matrix products of ``model.train(1, batch_size)``, each of them once, with all three terms on.

    :param model: a TD3 or SAC agent, plain or PAVE
    :param batch_size: transitions of the TD term
    :param field_rows: transitions of which the field is evaluated; 0 for the plain host
    :return: None where the networks are not multilayer perceptrons or the host is another one
    """
    sac = isinstance(model, SAC)
    if not (sac or isinstance(model, TD3)):
        return None
    critics = [_shapes(network) for network in model.critic.q_networks]
    actor = _shapes(nn.Sequential(model.actor.latent_pi, model.actor.mu) if sac else model.actor.mu)
    action_dim = model.action_space.shape[0]
    if any(not shapes for shapes in [*critics, actor]):
        return None
    if sac:  # the second head, log_std
        actor = [*actor, actor[-1]]
    per_critic = [_critic_flops(shapes, action_dim, batch_size, field_rows) for shapes in critics]
    climbed = critics if sac else critics[:1]
    actor_update = batch_size * (3 * _size(actor) - _size(actor[:1]))
    # Value and action gradient of the critics that it climbs
    actor_update += batch_size * sum(
        2 * _size(shapes[1:]) + _size(shapes[:1]) + action_dim * shapes[0][1] for shapes in climbed
    )
    return GradientStepFlops(
        target=2 * batch_size * (_size(actor) + sum(map(_size, critics))),
        forward=2 * sum(forward for forward, _, _ in per_critic),
        field=2 * sum(field for _, field, _ in per_critic),
        backward=2 * sum(backward for _, _, backward in per_critic),
        actor=2 * actor_update // (1 if sac else model.policy_delay),
    )


_Shape = tuple[int, int]


def _shapes(network: nn.Module) -> list[_Shape]:
    return [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]


def _size(shapes: list[_Shape]) -> int:
    """Multiplications of one sample's forward pass."""
    return sum(n_in * n_out for n_in, n_out in shapes)


def _critic_flops(shapes: list[_Shape], action_dim: int, batch: int, k: int) -> tuple[int, int, int]:
    """Multiplications of one critic's forward pass, field and backward pass; the field at three points of ``k`` states."""
    first, inner, last = _size(shapes[:1]), _size(shapes[1:-1]), _size(shapes[-1:])
    action = action_dim * shapes[0][1]  # the columns of the first layer that the action enters by
    rows = batch + 2 * k
    forward = rows * (first + inner) + batch * last
    field = 3 * k * (inner + action) + k * (action + inner)
    # The products of the forward pass, then those of the field and the tangent: one for the weights, one for the inputs
    backward = rows * (first + 2 * inner) + 2 * batch * last
    backward += 3 * k * 2 * (action + inner) + k * (action + 2 * inner)
    return forward, field, backward
