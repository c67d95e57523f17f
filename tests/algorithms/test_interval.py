"""``pave_interval``: the terms in every k-th update with k times their weights, the host's own updates between."""

import shutil

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3

from sb3_pave import PAVE_SAC, PAVE_TD3, PAVE_CrossQ, pave
from sb3_pave.algorithms.execution import Execution
from sb3_pave.algorithms.finite import check_finite
from tests.algorithms.own_algorithms import with_own_train
from tests.algorithms.scenarios import ALGORITHMS, make

WEIGHTS = dict(scale_free=False, mpr_coef=0.3, vfc_coef=0.2, curv_coef=0.1)
SMALL = dict(learning_starts=60, batch_size=32, buffer_size=500, seed=0, policy_kwargs={"net_arch": [16]})


def parameters(model):
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


def updated(model, n_updates):
    th.manual_seed(1)
    np.random.seed(1)
    model.train(n_updates, batch_size=32)
    return parameters(model)


@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_the_first_updates_are_the_hosts_and_the_fourth_has_four_times_the_weights(algorithm):
    def trained(n_updates, **kwargs):
        model = algorithm("MlpPolicy", "Pendulum-v1", **{**SMALL, **kwargs}).learn(60)
        model._n_updates = 0
        return updated(model, n_updates)

    zero = dict(mpr_coef=0, vfc_coef=0, curv_coef=0)
    th.testing.assert_close(trained(3, pave_interval=4, **WEIGHTS), trained(3, **zero), rtol=0, atol=1e-6)
    assert not th.allclose(trained(4, pave_interval=4, **WEIGHTS), trained(4, **zero), rtol=0, atol=1e-5)
    # One update that is due, with k times the weights
    times = {name: 4 * value for name, value in WEIGHTS.items() if name.endswith("coef")}

    def fourth(**kwargs):
        model = algorithm("MlpPolicy", "Pendulum-v1", **{**SMALL, **kwargs}).learn(60)
        model._n_updates = 3
        return updated(model, 1)

    assert th.equal(fourth(pave_interval=4, **WEIGHTS), fourth(scale_free=False, **times))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_logged_is_what_was_computed(algorithm):
    model = make(algorithm, "mlp", pave_interval=3).learn(40)
    model._n_updates = 0
    model.train(2, batch_size=16)
    model.logger.name_to_value.clear()
    model.train(1, batch_size=16)
    with_terms = dict(model.logger.name_to_value)
    model.logger.name_to_value.clear()
    model.train(2, batch_size=16)
    without = model.logger.name_to_value
    assert {"train/mpr_loss", "train/td_loss", "train/return_scale"} <= set(with_terms)
    assert "train/mpr_loss" not in without
    assert without["train/td_loss"] == without["train/critic_loss"]


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")
@pytest.mark.parametrize("algorithm", [PAVE_TD3, PAVE_SAC])
def test_compiled_it_is_the_definition(algorithm, monkeypatch):
    ours = algorithm("MlpPolicy", "Pendulum-v1", pave_interval=2, compile=True, **SMALL).learn(60)
    expected = algorithm("MlpPolicy", "Pendulum-v1", pave_interval=2, **SMALL).learn(60)
    monkeypatch.setattr("sb3_pave.algorithms.mixin.choose_execution", lambda model: Execution(model))
    definition = updated(expected, 9)
    monkeypatch.undo()
    th.testing.assert_close(updated(ours, 9), definition, rtol=0, atol=1e-5)


def test_around_a_train_of_the_users_own():
    model = pave(with_own_train(SAC))("MlpPolicy", "Pendulum-v1", pave_interval=3, **SMALL).learn(60)
    model.logger.name_to_value.clear()
    model.train(2, batch_size=32)
    assert "train/mpr_loss" not in model.logger.name_to_value
    model.train(1, batch_size=32)
    assert model.logger.name_to_value["train/mpr_loss"] > 0


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_adams_mean_step_shrinks_only_where_the_terms_outweigh_the_task(share):
    """
    Gradients g of the task and p of the terms, both constant: with p always, Adam moves by lr; with k p in every k-th
    update, by ``lr (g + p) / sqrt(g² + 2 g p + k p²)``: less than 1 % less for p = 0.03 g, half as much where p is all.
    """
    k, g = 4, 1.0
    p = share * g
    parameter = th.nn.Parameter(th.zeros(1, dtype=th.float64))
    adam = th.optim.Adam([parameter], lr=1e-3, betas=(0.9, 0.99))
    for update in range(1, 8001):
        if update == 4001:
            begin = parameter.item()
        parameter.grad = th.full_like(parameter, g + (k * p if update % k == 0 else 0.0))
        adam.step()
    step = (begin - parameter.item()) / 4000
    assert step == pytest.approx(1e-3 * (g + p) / np.sqrt(g**2 + 2 * g * p + k * p**2), rel=1e-2)
    assert (step > 0.99e-3) == (share < 0.03)


def nan_after(algorithm, n_steps, **kwargs):
    """Training of a critic whose parameters are no numbers after so many of its steps."""
    model = algorithm(
        "MlpPolicy", "Pendulum-v1", train_freq=kwargs["gradient_steps"], **{**SMALL, "learning_starts": 20}, **kwargs
    )
    steps = iter(range(1, 1000))

    def spoil(*_):
        if next(steps) == n_steps:
            with th.no_grad():
                next(model.critic.parameters()).fill_(float("nan"))

    model.critic.optimizer.register_step_post_hook(spoil)
    model.learn(60)


@pytest.mark.parametrize(
    ("algorithm", "n_steps", "gradient_steps", "interval", "update"),
    [
        (PAVE_TD3, 8, 5, 1, 9),
        (PAVE_TD3, 8, 5, 3, 9),
        (PAVE_TD3, 5, 5, 3, 6),
        (PAVE_SAC, 11, 8, 4, 12),
        (PAVE_CrossQ, 8, 20, 1, 9),
        (PAVE_CrossQ, 7, 20, 2, 8),
        (pave(with_own_train(TD3)), 5, 10, 3, 6),
        (pave(with_own_train(TD3)), 9, 20, 4, 12),
    ],
)
def test_a_term_that_is_not_finite_is_placed_at_its_update(algorithm, n_steps, gradient_steps, interval, update):
    with pytest.raises(ValueError, match=rf"loss is nan at update {update}; probably the critic diverges"):
        nan_after(algorithm, n_steps, gradient_steps=gradient_steps, pave_interval=interval)


def test_a_td_loss_that_broke_before_the_terms_is_the_cause():
    nan = float("nan")
    terms = {"mpr_loss": [1.0, nan]}
    for td_loss, cause in (
        ([1.0, nan, nan], "the TD loss was not finite before it"),
        ([1.0, 1.0, nan], "the critic diverges"),
    ):
        with pytest.raises(ValueError, match=f"mpr_loss is nan at update 9; probably {cause}"):
            check_finite({"td_loss": td_loss, **terms}, n_updates=9, interval=3)


@pytest.mark.parametrize("interval", [0, -1, 1.5, True, None])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match="pave_interval must be a positive whole number of updates"):
        PAVE_SAC("MlpPolicy", "Pendulum-v1", pave_interval=interval, **SMALL)


def test_of_several_terms_that_are_not_finite_the_first_to_break_is_named():
    nan = float("nan")
    values = {"td_loss": [1.0] * 3, "mpr_loss": [1.0, 1.0, nan], "curv_loss": [1.0, nan, nan]}
    with pytest.raises(ValueError, match="curv_loss is nan at update 8"):
        check_finite(values, n_updates=9)


def test_around_a_train_of_the_users_own_a_loaded_agent_counts_its_updates_on(tmp_path):
    model = pave(with_own_train(SAC))("MlpPolicy", "Pendulum-v1", pave_interval=3, **SMALL).learn(60)
    model.train(2, batch_size=32)
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=model.get_env())
    loaded.replay_buffer, loaded._logger = model.replay_buffer, model._logger
    loaded.train(1, batch_size=32)
    assert loaded.logger.name_to_value["train/mpr_loss"] > 0
