"""All of SB3 works: every feature trained, saved, loaded and trained on, and without weights exactly SB3's own."""

import numpy as np
import pytest
import torch as th

from tests.algorithms.scenarios import ALGORITHMS, cases, host_of, logged_by_calls, make

STEPS = 60
TERMS = ("mpr", "vfc", "curv")


def assert_same_parameters(first, second):
    ours, theirs = first.policy.state_dict(), second.policy.state_dict()
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not th.equal(ours[name], theirs[name])]
    assert not different


def weighted_terms(model):
    """What each term added to the critic's loss in the last ``train()`` call, by its log."""
    logged = model.logger.name_to_value
    weights = {term: getattr(model, f"{term}_coef") for term in TERMS}
    # In ranges of the return, per action dimension; and TQC's loss is no square
    weights["curv"] *= logged["train/return_scale"] / model.action_space.shape[0]
    share = logged.get("train/huber_share", 1.0)
    return {term: share * weight * logged.get(f"train/{term}_loss", 0.0) for term, weight in weights.items()}


@pytest.mark.parametrize(("algorithm", "name"), cases(*ALGORITHMS))
def test_zero_weights_equal_the_host_bit_for_bit(algorithm, name):
    host = make(host_of(algorithm), name).learn(STEPS)
    ours = make(algorithm, name, mpr_coef=0, vfc_coef=0, curv_coef=0).learn(STEPS)
    assert ours._n_updates == host._n_updates > 0
    assert_same_parameters(ours, host)
    assert ours.logger.name_to_value.keys() == host.logger.name_to_value.keys()
    if getattr(host, "log_ent_coef", None) is not None:
        assert th.equal(ours.log_ent_coef, host.log_ent_coef)


# SB3's own load() takes the buffer class that it chose for n-step returns for the user's
@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored because a custom `replay_buffer_class`:UserWarning")
@pytest.mark.parametrize(("algorithm", "name"), cases(*ALGORITHMS))
def test_it_trains_saves_loads_and_trains_on(algorithm, name, tmp_path):
    model = make(algorithm, name).learn(STEPS)
    model.train(1, 8)
    logged = model.logger.name_to_value
    assert all(np.isfinite(logged[f"train/{term}_loss"]) for term in TERMS if getattr(model, f"{term}_coef") > 0)
    expected = logged["train/td_loss"] + sum(weighted_terms(model).values())
    assert logged["train/critic_loss"] == pytest.approx(expected, rel=1e-4)

    model.save(tmp_path / "model.zip")
    env = model.get_env()
    loaded = algorithm.load(tmp_path / "model.zip", env=env)
    assert_same_parameters(loaded, model)
    observation = env.reset()
    np.testing.assert_array_equal(
        loaded.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )
    updates = loaded._n_updates
    loaded.learn(STEPS, reset_num_timesteps=True)
    assert loaded._n_updates > updates
    with pytest.raises(AssertionError):
        assert_same_parameters(loaded, model)


@pytest.mark.parametrize("name", ["mlp", "autograd_path"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_terms_that_weigh_as_much_as_the_td_loss_are_in_the_critics_loss(algorithm, name):
    """Those of a fresh critic are lost in the rounding of its TD loss."""
    model = make(algorithm, name).learn(STEPS)
    model.train(1, 8)
    td_loss = model.logger.name_to_value["train/td_loss"]
    for term, weighted in weighted_terms(model).items():
        setattr(model, f"{term}_coef", getattr(model, f"{term}_coef") * td_loss / weighted)
    model.train(1, 8)
    logged, terms = model.logger.name_to_value, weighted_terms(model)
    assert min(terms.values()) > 0.01 * logged["train/td_loss"]
    assert logged["train/critic_loss"] == pytest.approx(logged["train/td_loss"] + sum(terms.values()), rel=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_logged_return_scale_is_the_mean_over_the_updates(algorithm):
    def scales(*calls):
        return logged_by_calls(make(algorithm, "mlp").learn(25), "train/return_scale", *calls)

    first, second = scales(1, 1)
    assert first != pytest.approx(second)
    assert scales(2) == [pytest.approx((first + second) / 2)]


@pytest.mark.parametrize(("algorithm", "name"), cases(*ALGORITHMS))
def test_pave_changes_the_parameters_and_the_same_seed_gives_the_same(algorithm, name):
    first, second = make(algorithm, name).learn(STEPS), make(algorithm, name).learn(STEPS)
    assert_same_parameters(first, second)
    if name == "linear_critic":
        return  # its field is constant: no term has a gradient
    plain = make(algorithm, name, mpr_coef=0, vfc_coef=0, curv_coef=0).learn(STEPS)
    with pytest.raises(AssertionError):
        assert_same_parameters(first, plain)
