"""The closed form against the autograd definition, and both against a naive per-sample one, in float64."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pave.fast.eligibility import has_closed_form
from sb3_pave.fast.ensemble import is_mlp
from sb3_pave.method.field import gradient_field
from sb3_pave.method.losses import pave_losses
from sb3_pave.method.points import FieldInputs
from tests.method.closed_form import closed_form_field, closed_form_values_and_field, field_in_training

OBS_DIM, ACTION_DIM, BATCH = 5, 3, 6
SMOOTH = {
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "softplus": nn.Softplus,
    "softplus_sharp": lambda: nn.Softplus(beta=3, threshold=2),
    "mish": nn.Mish,
    "elu": nn.ELU,
    "elu_alpha": lambda: nn.ELU(alpha=0.7),
}
OBS_SPACE = spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float64)
ACTION_SPACE = spaces.Box(-1, 1, (ACTION_DIM,), np.float64)


def make_critic(net_arch, activation_fn=nn.SiLU, n_critics=2):
    extractor = FlattenExtractor(OBS_SPACE)
    critic = ContinuousCritic(
        OBS_SPACE,
        ACTION_SPACE,
        net_arch,
        extractor,
        OBS_DIM,
        activation_fn,
        n_critics=n_critics,
        share_features_extractor=False,
    )
    return critic.double()


@pytest.fixture(autouse=True)
def float64_critics(monkeypatch):
    """SB3 casts observations to float32; here they stay in float64, in either path."""
    th.manual_seed(0)
    monkeypatch.setattr(ContinuousCritic, "extract_features", lambda self, obs, extractor: extractor(obs.double()))


def draw_points():
    obs, noisy, successor = th.randn(3, BATCH, OBS_DIM, dtype=th.float64)
    actions = th.rand(BATCH, ACTION_DIM, dtype=th.float64) * 2 - 1
    direction = th.randint(0, 2, (BATCH, ACTION_DIM)).double() * 2 - 1
    return (obs, actions), dict(noisy_observations=noisy, next_observations=successor, direction=direction)


def evaluate(critic, points, path):
    args, kwargs = points
    return (closed_form_field if path == "closed form" else gradient_field)(critic, FieldInputs(*args, **kwargs))


def parameter_gradients(critic, losses):
    total = 0.3 * losses.mpr + 0.7 * losses.vfc + 1.1 * losses.curv
    grads = th.autograd.grad(total, list(critic.parameters()), allow_unused=True)
    return [th.zeros_like(p) if g is None else g for p, g in zip(critic.parameters(), grads, strict=True)]


@pytest.mark.parametrize("n_critics", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("activation", SMOOTH)
def test_closed_form_equals_autograd(activation, depth, n_critics):
    critic = make_critic([8, 7, 6, 5][:depth], SMOOTH[activation], n_critics)
    assert has_closed_form(critic)
    points = draw_points()
    closed = evaluate(critic, points, "closed form")
    slow = evaluate(critic, points, "autograd")
    for name in ("grad", "grad_noisy", "grad_next", "curvature"):
        th.testing.assert_close(getattr(closed, name), getattr(slow, name), rtol=0, atol=1e-10)
    closed_losses, slow_losses = pave_losses(closed, 5.0), pave_losses(slow, 5.0)
    assert min(closed_losses) > 0
    for ours, definition in zip(
        parameter_gradients(critic, closed_losses), parameter_gradients(critic, slow_losses), strict=True
    ):
        th.testing.assert_close(ours, definition, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", ["closed form", "autograd"])
@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_both_equal_a_naive_per_sample_definition(activation, path):
    critic = make_critic([8, 7], SMOOTH[activation])
    points = draw_points()
    (obs, actions), others = points
    field = evaluate(critic, points, path)
    for i in range(critic.n_critics):
        for row in range(BATCH):

            def q(state, action, i=i):
                return critic(state.unsqueeze(0), action.unsqueeze(0))[i].squeeze()

            def grad_at(state, action, q=q):
                return th.autograd.functional.jacobian(lambda a: q(state, a), action)

            action, v = actions[row], others["direction"][row]
            th.testing.assert_close(field.grad[i, row], grad_at(obs[row], action))
            th.testing.assert_close(field.grad_noisy[i, row], grad_at(others["noisy_observations"][row], action))
            th.testing.assert_close(field.grad_next[i, row], grad_at(others["next_observations"][row], action))
            hessian = th.autograd.functional.hessian(lambda a, q=q, row=row: q(obs[row], a), action)
            th.testing.assert_close(field.curvature[i, row], v @ hessian @ v)


@pytest.mark.parametrize("path", ["closed form", "autograd"])
@pytest.mark.parametrize("term", ["mpr", "vfc", "curv"])
def test_each_term_moves_the_parameters_as_finite_differences_say(term, path):
    critic = make_critic([6, 5])
    points = draw_points()

    def loss():
        return getattr(pave_losses(evaluate(critic, points, path), 5.0), term)

    grads = th.autograd.grad(loss(), list(critic.parameters()), allow_unused=True)
    step = 1e-6
    for parameter, grad in zip(critic.parameters(), grads, strict=True):
        index = np.unravel_index(parameter.numel() // 2, parameter.shape)
        parameter.data[index] += step
        above = loss().item()
        parameter.data[index] -= 2 * step
        below = loss().item()
        parameter.data[index] += step
        analytic = 0.0 if grad is None else grad[index].item()
        assert analytic == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-8)


def test_a_linear_critic_has_a_constant_field_without_curvature():
    critic = make_critic([])
    points = draw_points()
    for path in ("closed form", "autograd"):
        field = evaluate(critic, points, path)
        for i, network in enumerate(critic.q_networks):
            th.testing.assert_close(field.grad[i], network[0].weight[:, OBS_DIM:].expand(BATCH, -1))
        th.testing.assert_close(field.grad_noisy, field.grad)
        assert (field.curvature == 0).all()


def test_relu_has_no_curvature():
    critic = make_critic([8, 8], nn.ReLU)
    points = draw_points()
    closed = evaluate(critic, points, "closed form")
    slow = evaluate(critic, points, "autograd")
    th.testing.assert_close(closed.grad_next, slow.grad_next)
    assert (closed.curvature == 0).all() and (slow.curvature == 0).all()


def test_the_closed_form_returns_the_critics_own_values():
    critic = make_critic([8, 7])
    points = draw_points()
    values, _ = closed_form_values_and_field(critic, FieldInputs(*points[0], **points[1]))
    for ours, own in zip(values, critic(*points[0]), strict=True):
        th.testing.assert_close(ours, own)


class Values(nn.Module):
    """Critics that give their values in another form."""

    def __init__(self, critic, form):
        super().__init__()
        self.critic, self.form = critic, form

    def forward(self, observations, actions):
        return self.form(self.critic(observations, actions))


def test_values_of_all_critics_may_come_as_one_tensor():
    critic, points = make_critic([16]), draw_points()
    expected = evaluate(critic, points, "definition")
    for form in (th.stack, list, lambda values: th.stack([th.cat([v - 1, v + 1], dim=1) for v in values], dim=1)):
        for ours, own in zip(evaluate(Values(critic, form), points, "definition"), expected, strict=True):
            th.testing.assert_close(ours, own)
    alone = evaluate(Values(critic, lambda values: values[0]), points, "definition")
    th.testing.assert_close(alone.grad, expected.grad[:1])


@pytest.mark.parametrize("form", [lambda v: v[0].squeeze(1), lambda v: th.cat(v, dim=1), lambda v: [x.squeeze(1) for x in v]])
def test_values_of_another_shape_are_refused_with_the_shapes_that_are_known(form):
    with pytest.raises(RuntimeError, match=r"The critic returns .* for 6 transitions\. PAVE takes .*\(batch, 1\)"):
        evaluate(Values(make_critic([16]), form), draw_points(), "definition")


def test_the_path_is_chosen_by_type():
    linear = nn.Linear(2, 1)
    assert is_mlp(nn.Sequential(nn.Linear(2, 2), nn.SiLU(), linear)) and is_mlp(nn.Sequential(linear))
    assert not is_mlp(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.SiLU(), linear))
    assert not is_mlp(nn.Sequential(nn.Linear(2, 2), nn.Hardswish(), linear))
    assert not is_mlp(nn.Sequential(nn.Linear(2, 2), nn.SiLU(), linear, nn.Tanh()))
    assert not is_mlp(nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2)), nn.SiLU(), linear))

    class OwnForward(ContinuousCritic):
        def forward(self, obs, actions):
            return super().forward(obs, -actions)

    extractor = FlattenExtractor(OBS_SPACE)
    own = OwnForward(OBS_SPACE, ACTION_SPACE, [4], extractor, OBS_DIM, nn.SiLU)
    assert not has_closed_form(own) and has_closed_form(make_critic([4]))


@pytest.mark.parametrize(
    "layers",
    [
        {0: nn.Linear(OBS_DIM + ACTION_DIM, 6), 2: nn.Linear(6, 1)},
        {2: nn.Linear(4, 1, bias=False)},
        {1: nn.SiLU()},
        {1: nn.ELU(0.5)},
    ],
    ids=["width", "bias", "activation", "its setting"],
)
def test_critics_that_differ_in_more_than_their_numbers_have_no_closed_form(layers):
    critic = make_critic([4], nn.ELU)
    assert has_closed_form(critic)
    for i, layer in layers.items():
        critic.q_networks[1][i] = layer
    assert not has_closed_form(critic)


HOOKS = (
    "register_forward_pre_hook",
    "register_forward_hook",
    "register_full_backward_pre_hook",
    "register_full_backward_hook",
)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_critic_with_a_hook_anywhere_has_no_closed_form(hook):
    critic = make_critic([4])
    network = critic.q_networks[1]
    for module in (critic, network, network[0], network[1]):
        handle = getattr(module, hook)(lambda *_: None)
        assert not has_closed_form(critic) and is_mlp(network) is (module is critic)
        handle.remove()
    assert has_closed_form(critic)


def test_what_a_hook_makes_of_a_layers_gradient_is_in_the_field():
    critic, (args, kwargs) = make_critic([4]), draw_points()
    inputs = FieldInputs(*args, **kwargs)
    plain = field_in_training(critic, inputs)
    critic.q_networks[1][0].register_full_backward_hook(lambda module, into, out_of: tuple(2 * grad for grad in into))
    th.testing.assert_close(field_in_training(critic, inputs).grad, plain.grad * th.tensor([1.0, 2.0]).reshape(2, 1, 1))


class Detached(nn.Module):
    def __init__(self, wrapped):
        super().__init__()
        self.wrapped = wrapped

    def forward(self, obs, actions):
        return self.wrapped(obs, actions.detach())


class FirstOrderOnly(th.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    @th.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad


class OnceDifferentiable(Detached):
    def forward(self, obs, actions):
        return tuple(self.wrapped(obs, FirstOrderOnly.apply(actions)))


@pytest.mark.parametrize("wrapper", [Detached, OnceDifferentiable])
def test_a_critic_that_cuts_the_second_order_graph_is_refused(wrapper):
    critic = wrapper(make_critic([8]))
    args, kwargs = draw_points()
    with pytest.raises(RuntimeError, match=r"cuts it|once_differentiable"):
        pave_losses(gradient_field(critic, FieldInputs(*args, **kwargs)), 1.0).mpr.backward()


@pytest.mark.parametrize("part", ["critic", "network"])
def test_a_compiled_critic_is_refused(part):
    critic = make_critic([8])
    if part == "critic":
        critic = th.compile(critic)
    else:
        critic.q_networks[0].compile()
    args, _ = draw_points()
    with pytest.raises(RuntimeError, match=r"torch\.compile"):
        gradient_field(critic, FieldInputs(*args))
