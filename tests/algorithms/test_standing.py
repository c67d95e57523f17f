"""What users change in place is noticed by the next ``train()``: one test for each kind of change."""

import copy
from collections import defaultdict

import pytest
import torch as th
from torch import nn

import sb3_pave.algorithms.fast_execution as fast_execution
from sb3_pave import PAVE_SAC, PAVE_TD3
from tests.cuda.agents import assert_freed_with_its_buffer
from tests.fast.stand_in import StandIn

SETTINGS = dict(learning_starts=60, batch_size=16, buffer_size=200, policy_kwargs={"net_arch": [16]}, seed=0)


@pytest.fixture
def model(monkeypatch):
    """Trained until each of its updates is a replay."""
    monkeypatch.setattr(fast_execution, "CudaCapture", StandIn)
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", cuda_graph=True, **SETTINGS).learn(60)
    for _ in range(2):
        model.train(5, 16)
    assert model._standing.holds()
    return model


def set_parameters(model):
    model.set_parameters(copy.deepcopy(model.get_parameters()))


def load_an_optimizer(model):
    model.critic.optimizer.load_state_dict(copy.deepcopy(model.critic.optimizer.state_dict()))


def replace_a_moment(model):
    next(iter(model.critic.optimizer.state.values()))["exp_avg"] = th.zeros_like(model.critic.qf0[0].weight)


def replace_the_state_of_an_optimizer(model):
    optimizer = model.critic.optimizer
    optimizer.state = defaultdict(dict, {parameter: copy.deepcopy(state) for parameter, state in optimizer.state.items()})


def set_an_optimizers_option(model):
    model.actor.optimizer.param_groups[0]["weight_decay"] = 0.1


def reset_an_optimizer(model):
    model.critic.optimizer.state.clear()


def compile_the_policy(model):
    model.policy = th.compile(model.policy, backend="eager")


def hook_a_layer(model):
    model.critic.qf0[0].register_forward_hook(lambda *_: None)


def hook_a_parameter(model):
    model.actor.mu.weight.register_hook(lambda gradient: gradient)


def hook_a_parameter_that_has_its_gradient(model):
    model.actor.mu.weight.register_post_accumulate_grad_hook(lambda parameter: None)


def hook_an_optimizer(model):
    model.actor.optimizer.register_step_post_hook(lambda *_: None)


def replace_a_layer(model):
    # The optimizer has its parameters already
    layer = nn.Linear(16, 1)
    layer.weight, layer.bias = model.critic.qf1[2].weight, model.critic.qf1[2].bias
    model.critic.qf1[2] = layer


def replace_a_network_in_its_list(model):
    model.critic.q_networks[0] = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 1))


def replace_a_class(model):
    model.critic.__class__ = type("Critic", (type(model.critic),), {})


def replace_an_activation(model):
    model.critic.qf0[1] = nn.Tanh()
    model.critic.qf1[1] = nn.Tanh()


def freeze_a_parameter(model):
    model.actor.mu.weight.requires_grad_(False)


def move_the_networks(model):
    # What Module.to(device) does
    for parameter in model.policy.parameters():
        parameter.data = parameter.data.clone()


def move_the_entropy_coefficient(model):
    model.log_ent_coef.data = model.log_ent_coef.data.clone()


def set_tau(model):
    model.tau = 0.1


def set_a_weight(model):
    model.curv_coef = 0.3


def set_the_target_entropy(model):
    model.target_entropy = -2.0


RECORDED_ANEW = [
    set_parameters,
    load_an_optimizer,
    replace_a_moment,
    replace_the_state_of_an_optimizer,
    set_an_optimizers_option,
    hook_a_layer,
    hook_a_parameter,
    hook_a_parameter_that_has_its_gradient,
    hook_an_optimizer,
    replace_a_layer,
    replace_a_network_in_its_list,
    replace_a_class,
    replace_an_activation,
    freeze_a_parameter,
    move_the_networks,
    move_the_entropy_coefficient,
    set_tau,
    set_a_weight,
    set_the_target_entropy,
]


@pytest.mark.parametrize("change", RECORDED_ANEW)
def test_what_a_recording_holds_is_seen_and_recorded_anew(change, model):
    change(model)
    assert not model._standing.holds()
    before = StandIn.last.recordings
    model.train(6, 16)
    assert StandIn.last.recordings == before + 1
    assert model._standing.holds()


def test_a_network_that_had_no_layer_is_seen_to_get_one():
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", **{**SETTINGS, "policy_kwargs": {"net_arch": []}}).learn(70)
    assert model._standing.holds()
    model.actor.latent_pi.append(nn.Tanh())
    assert not model._standing.holds()


@pytest.mark.parametrize("change", [compile_the_policy, reset_an_optimizer])
def test_what_an_update_completes_is_seen_and_recorded_anew(change, model):
    """A compiled module gets one more attribute when its mode is set for the first time, Adam its state at its first step."""
    before = StandIn.last.recordings
    change(model)
    assert not model._standing.holds()
    model.train(6, 16), model.train(6, 16)
    assert before < StandIn.last.recordings <= before + 2 and model._standing.holds()


def set_the_schedule(model):
    model.lr_schedule = lambda _: 1e-5


def set_the_buffer(model):
    model.replay_buffer = copy.deepcopy(model.replay_buffer)


def set_the_device(model):
    model.device = th.device("cpu", 0)


def add_an_attribute(model):
    model.temperature = "warm"


@pytest.mark.parametrize("change", [set_the_schedule, set_the_buffer, set_the_device, add_an_attribute])
def test_what_a_recording_does_not_hold_is_seen_but_not_recorded_anew(change, model):
    change(model)
    assert not model._standing.holds()
    before = StandIn.last.recordings
    model.train(6, 16)
    assert StandIn.last.recordings == before
    assert model._standing.holds()


def load_the_policy(model):
    model.policy.load_state_dict({name: value + 0.5 for name, value in model.policy.state_dict().items()})


def set_the_learning_rate(model):
    model.critic.optimizer.param_groups[0]["lr"] = 1e-5


def evaluate(model):
    model.predict(model.observation_space.sample())  # in evaluation mode
    model.policy.set_training_mode(False)


def count_steps(model):
    model.num_timesteps += 1


@pytest.mark.parametrize("change", [load_the_policy, set_the_learning_rate, evaluate, count_steps])
def test_what_is_read_from_memory_at_each_replay_needs_no_look(change, model):
    addresses = [parameter.data_ptr() for parameter in model.policy.parameters()]
    change(model)
    assert model._standing.holds()
    assert addresses == [parameter.data_ptr() for parameter in model.policy.parameters()]
    assert model.actor.training and model.critic.training


def test_modes_that_sb3_leaves_alone_stay_as_they_are():
    model = PAVE_SAC("MlpPolicy", "Pendulum-v1", **SETTINGS)
    model.world = nn.Dropout()
    model.learn(70)
    model.critic_target.train()
    model.world.eval()
    model.critic.eval()
    model.train(1, 16)
    assert model.critic_target.training and not model.world.training and model.critic.training


@pytest.mark.parametrize("algorithm", [PAVE_SAC, PAVE_TD3])
def test_a_layer_that_keeps_its_mode_is_left_in_it(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", **SETTINGS).learn(70)
    layer = model.critic.q_networks[0][1].eval()
    layer.train = lambda mode=True: layer
    for _ in range(2):
        model.train(1, 16)
        assert not layer.training and model.critic.training


def test_a_hyperparameter_that_cannot_be_is_refused_whenever_it_is_set(model):
    model.mpr_coef = -1.0
    with pytest.raises(ValueError, match="mpr_coef"):
        model.train(1, 16)


def test_a_schedule_that_is_replaced_moves_less(model):
    model.lr_schedule = lambda _: 0.0
    before = th.cat([parameter.detach().flatten() for parameter in model.actor.parameters()])
    model.train(3, 16)
    assert th.equal(before, th.cat([parameter.detach().flatten() for parameter in model.actor.parameters()]))


@pytest.mark.parametrize("algorithm", [PAVE_SAC, PAVE_TD3])
def test_an_agent_that_nobody_keeps_is_gone_with_its_replay_buffer(algorithm):
    """As SB3's is, in a loop over seeds."""

    def trained():
        model = algorithm("MlpPolicy", "Pendulum-v1", **SETTINGS).learn(70)
        model.train(3, 16)
        return model

    assert_freed_with_its_buffer(trained)
