"""The field of TQC: that of each critic's mean quantile."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.tqc.policies import Critic
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_pave import PAVE_TQC
from sb3_pave.algorithms import mixin
from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.fast_execution import ClosedForm, StandIns
from sb3_pave.algorithms.tqc import _huber_share
from sb3_pave.fast.eligibility import has_closed_form
from sb3_pave.method.field import gradient_field
from sb3_pave.method.losses import pave_losses
from sb3_pave.method.points import FieldInputs
from tests.method.closed_form import closed_form_field, closed_form_values_and_field

OBS_DIM, ACTION_DIM, BATCH = 4, 2, 5
OBS_SPACE = spaces.Box(-np.inf, np.inf, (OBS_DIM,), np.float64)
ACTION_SPACE = spaces.Box(-1, 1, (ACTION_DIM,), np.float64)


@pytest.fixture
def critic(monkeypatch, request):
    """In float64, to which SB3's preprocessing would not keep."""
    monkeypatch.setattr(BaseModel, "extract_features", lambda self, obs, extractor: extractor(obs.double()))
    th.manual_seed(0)
    extractor = FlattenExtractor(OBS_SPACE)
    shape = {"n_quantiles": 7, "n_critics": request.param}
    return Critic(OBS_SPACE, ACTION_SPACE, [8, 6], extractor, OBS_DIM, nn.SiLU, **shape).double()


def draw_points():
    obs, noisy, successor = th.randn(3, BATCH, OBS_DIM, dtype=th.float64)
    actions = th.rand(BATCH, ACTION_DIM, dtype=th.float64) * 2 - 1
    direction = th.randint(0, 2, (BATCH, ACTION_DIM)).double() * 2 - 1
    return (obs, actions), {"noisy_observations": noisy, "next_observations": successor, "direction": direction}


@pytest.mark.parametrize("critic", [1, 2, 3], indirect=True)
def test_closed_form_and_autograd_are_the_field_of_the_mean_quantile(critic):
    (obs, actions), others = draw_points()
    assert has_closed_form(critic)
    parameters = list(critic.parameters())
    gradients = []
    for evaluate in (closed_form_field, gradient_field):
        field = evaluate(critic, FieldInputs(obs, actions, **others))
        for i in range(critic.n_critics):
            for row in range(BATCH):

                def mean_quantile(state, action, i=i):
                    return critic(state.unsqueeze(0), action.unsqueeze(0))[0, i].mean()

                def grad_at(state, action, q=mean_quantile):
                    return th.autograd.functional.jacobian(lambda a: q(state, a), action)

                action, v = actions[row], others["direction"][row]
                th.testing.assert_close(field.grad[i, row], grad_at(obs[row], action))
                th.testing.assert_close(field.grad_noisy[i, row], grad_at(others["noisy_observations"][row], action))
                th.testing.assert_close(field.grad_next[i, row], grad_at(others["next_observations"][row], action))
                hessian = th.autograd.functional.hessian(lambda a, q=mean_quantile, row=row: q(obs[row], a), action)
                th.testing.assert_close(field.curvature[i, row], v @ hessian @ v)
        losses = pave_losses(field, 5.0)
        assert min(losses) > 0
        total = 0.3 * losses.mpr + 0.7 * losses.vfc + 1.1 * losses.curv
        gradients.append(th.autograd.grad(total, parameters, allow_unused=True))
    values, _ = closed_form_values_and_field(critic, FieldInputs(obs, actions))
    th.testing.assert_close(PAVE_TQC._critic_output(values), critic(obs, actions))
    for ours, definition, parameter in zip(*gradients, parameters, strict=True):
        ours, definition = (th.zeros_like(parameter) if g is None else g for g in (ours, definition))
        th.testing.assert_close(ours, definition, rtol=0, atol=1e-10)


def test_a_tqc_agent_takes_the_closed_form():
    assert has_closed_form(PAVE_TQC("MlpPolicy", "Pendulum-v1", buffer_size=1).critic)


@pytest.mark.parametrize("way", [StandIns, ClosedForm, Execution])
def test_scale_free_terms_weigh_the_same_beside_tqcs_loss_whatever_rewards_and_critics(way, monkeypatch):
    def shares(factor=1.0, n_critics=2):
        policy_kwargs = {"net_arch": [16], "n_critics": n_critics}
        settings = {"learning_starts": 60, "buffer_size": 500, "seed": 0, "ent_coef": 0.0, "policy_kwargs": policy_kwargs}
        model = PAVE_TQC("MlpPolicy", "Pendulum-v1", scale_free=True, **settings).learn(60)
        model.replay_buffer.rewards *= factor
        first = model.critic.q_networks[0]
        with th.no_grad():
            first[-1].weight.mul_(factor)
            first[-1].bias.mul_(factor)
        for critic in (model.critic, model.critic_target):
            for network in critic.q_networks:
                network.load_state_dict(first.state_dict())
        monkeypatch.setattr(mixin, "choose_execution", way)
        th.manual_seed(1)
        np.random.seed(1)
        model.train(1, batch_size=64)
        log = {tag.removeprefix("train/"): value for tag, value in model.logger.name_to_value.items()}
        weights = {"mpr_loss": model.mpr_coef, "vfc_loss": model.vfc_coef, "curv_loss": model.curv_coef * log["return_scale"]}
        terms = sum(weight * log[term] for term, weight in weights.items())
        assert log["critic_loss"] == pytest.approx(log["td_loss"] + log["huber_share"] * terms, rel=1e-5)
        return log["huber_share"] * terms / log["td_loss"], log["huber_share"]

    (small, square), (plain, _), (large, huber) = map(shares, (1e-3, 1.0, 1e3))
    assert square == pytest.approx(1) and huber < 0.01
    assert small == pytest.approx(plain, rel=1e-3) and large == pytest.approx(plain, rel=1e-3)
    # TQC's loss is a mean over its critics, here copies of one; the terms are sums
    for n_critics in (1, 5):
        assert shares(n_critics=n_critics)[0] == pytest.approx(plain, rel=1e-4)


def test_in_the_papers_units_the_weights_are_what_they_are():
    model = PAVE_TQC("MlpPolicy", "Pendulum-v1", scale_free=False, buffer_size=100, learning_starts=20, batch_size=8).learn(30)
    assert "train/huber_share" not in model.logger.name_to_value


def test_hubers_share_by_hand():
    # Quantiles at 1/4 and 3/4, one target: errors 3 and -0.5 weigh a quarter, and cost 2.5 and 0.125 for 4.5 and 0.125
    def share(current, target):
        return _huber_share(current, target, PAVE_TQC._td_loss(current, target)).item()

    current, target = th.tensor([[[1.0, 4.5]] * 2]), th.tensor([[4.0]])
    assert share(current, target) == pytest.approx((2.5 + 0.125) / (4.5 + 0.125))
    assert share(current, current[0, :1, :1]) < 1
    assert share(th.ones(1, 2, 2), th.ones(1, 1)) == 1
    # A mean over critics: four weigh half as much as two
    assert share(th.tensor([[[0.0, 0.5]] * 4]), th.ones(1, 1)) == pytest.approx(0.5)
