"""CUDA graphs' bookkeeping, driven on the CPU by a stand-in that records without running and replays what it recorded."""

import copy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import sb3_pave.algorithms.fast_execution as pave_module
from sb3_pave import PAVE_SAC, PAVE_TD3
from sb3_pave.fast.graphs import GraphedUpdate
from sb3_pave.fast.static_batch import StaticBatch
from sb3_pave.method.batches import leaves
from sb3_pave.method.successor import Successor
from tests.algorithms.test_subset import Pendulums
from tests.fast.stand_in import FailingHalfWay, StandIn

SETTINGS = dict(learning_starts=60, batch_size=16, buffer_size=200, policy_kwargs={"net_arch": [16]}, seed=0)


class OnAnotherStream(StandIn):
    """Refuses to record where a node that accumulates gradients is left of before: it would belong to another stream."""

    def record(self, update):
        assert not kept_alive(OnAnotherStream.model)
        replay = super().record(update)

        def checking():
            outcome = replay()
            assert not kept_alive(OnAnotherStream.model)
            return outcome

        return checking


def accumulator(parameter):
    return parameter.view_as(parameter).grad_fn.next_functions[0][0]


def kept_alive(model):
    """Parameters whose accumulating node somebody holds."""
    for parameter in model.policy.parameters():
        accumulator(parameter).metadata["made before"] = True
    return [n for n, p in model.policy.named_parameters() if p.requires_grad and accumulator(p).metadata]


class Broken(StandIn):
    def record(self, update):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(pave_module, "CudaCapture", StandIn)


def make(algorithm, env="Pendulum-v1", policy="MlpPolicy", **kwargs):
    return algorithm(policy, env, **{**SETTINGS, **kwargs}).learn(60)


def flat(model):
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


def normalised():
    import gymnasium as gym

    return VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))


CASES = {
    "td3": (PAVE_TD3, lambda: {}),
    "td3, delay 3": (PAVE_TD3, lambda: {"policy_delay": 3}),
    "sac, learned entropy": (PAVE_SAC, lambda: {}),
    "sac, fixed entropy": (PAVE_SAC, lambda: {"ent_coef": 0.2}),
    "sac, targets every other step": (PAVE_SAC, lambda: {"target_update_interval": 2}),
    "sac, state-dependent noise": (PAVE_SAC, lambda: {"use_sde": True}),
    "td3, part of the batch": (PAVE_TD3, lambda: {"pave_batch_size": 5}),
    "td3, Dict": (PAVE_TD3, lambda: {"env": Pendulums(), "policy": "MultiInputPolicy"}),
    "sac, VecNormalize": (PAVE_SAC, lambda: {"env": normalised()}),
    "sac, compiled": (PAVE_SAC, lambda: {"compile": True}),
    "td3, schedule": (PAVE_TD3, lambda: {"learning_rate": lambda progress: 1e-3 * progress}),
}


@pytest.mark.parametrize("case", CASES)
def test_fifty_updates_give_the_same_parameters(case, stand_in):
    algorithm, kwargs = CASES[case]
    models = make(algorithm, **kwargs()), make(algorithm, cuda_graph=True, **kwargs())
    for model in models:
        th.manual_seed(3)
        np.random.seed(3)
        for done in range(10):
            model._current_progress_remaining = 1 - done / 10
            model.train(5, batch_size=16)
    eager, graphed = models
    th.testing.assert_close(flat(graphed), flat(eager), rtol=0, atol=1e-5)
    assert StandIn.last.replays > 25
    for tag, value in eager.logger.name_to_value.items():
        assert graphed.logger.name_to_value[tag] == pytest.approx(value, rel=1e-3, abs=1e-6), tag


@pytest.mark.parametrize("kwargs", [{"use_sde": True}, {}, {"mpr_coef": 0, "vfc_coef": 0, "curv_coef": 0}])
def test_nothing_holds_on_to_the_graph_of_an_update(kwargs, monkeypatch):
    monkeypatch.setattr(pave_module, "CudaCapture", OnAnotherStream)
    model = OnAnotherStream.model = make(PAVE_SAC, cuda_graph=True, **kwargs)
    assert bool(kept_alive(model)) == ("use_sde" in kwargs)  # by the noise that acting drew
    model.train(6, 16)
    assert OnAnotherStream.last.recordings == 1
    assert not kept_alive(model)
    model.learn(4, reset_num_timesteps=False)


def test_a_recording_is_made_anew_when_what_it_holds_changes(stand_in):
    model = make(PAVE_SAC, cuda_graph=True)
    model.train(1, 16)

    def recordings_of(n_updates=8, batch_size=16):
        before = StandIn.last.recordings
        model.train(n_updates, batch_size)
        return StandIn.last.recordings - before

    recordings_of(), recordings_of()
    assert recordings_of() == 0
    assert recordings_of(batch_size=12) == 1 and recordings_of() == 0
    model.curv_coef = 0.3
    assert recordings_of() == 1 and recordings_of() == 0
    model.tau = 0.1
    assert recordings_of() == 1
    model.set_parameters(copy.deepcopy(model.get_parameters()))  # new optimizer states
    assert recordings_of() == 1
    model.lr_schedule = lambda _: 1e-5  # is read from memory
    assert recordings_of() == 0
    model.num_timesteps += 1
    assert recordings_of() == 0


@pytest.mark.parametrize(("algorithm", "host"), [(PAVE_TD3, TD3), (PAVE_SAC, SAC)])
def test_saving_and_loading_in_the_middle(algorithm, host, stand_in, tmp_path):
    model = make(algorithm, cuda_graph=True)
    model.train(10, 16)
    model.save(tmp_path / "agent")
    model.save_replay_buffer(tmp_path / "buffer")
    plain = host.load(tmp_path / "agent", env=model.get_env())
    group = plain.critic.optimizer.param_groups[0]
    assert type(group["lr"]) is float and group["capturable"] is False
    loaded = algorithm.load(tmp_path / "agent", env=model.get_env())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert loaded.cuda_graph is True
    for other in (plain, loaded, model):
        if other is not model:
            other.replay_buffer = model.replay_buffer
            other.set_logger(model.logger)
    for trained in (model, loaded):
        th.manual_seed(0)
        np.random.seed(0)
        trained.train(10, 16)
    th.testing.assert_close(flat(loaded), flat(model), rtol=0, atol=1e-6)
    plain.train(2, 16)


def test_several_agents_in_one_process(stand_in):
    models = [make(PAVE_TD3, cuda_graph=True), make(PAVE_SAC, cuda_graph=True)]
    for _ in range(3):
        for model in models:
            model.train(6, 16)
    assert models[0]._graphs is not models[1]._graphs


def test_where_it_cannot_be_recorded_there_is_one_warning(monkeypatch):
    monkeypatch.setattr(pave_module, "CudaCapture", Broken)
    model, eager = make(PAVE_TD3, cuda_graph=True), make(PAVE_TD3)
    with pytest.warns(UserWarning, match="can't be recorded: operation not permitted when stream is capturing. Tr") as caught:
        for trained in (model, eager):
            th.manual_seed(0)
            np.random.seed(0)
            trained.train(10, 16)
            trained.train(10, 16)
    assert len(caught) == 1
    th.testing.assert_close(flat(model), flat(eager), rtol=0, atol=1e-5)


@pytest.mark.parametrize("after", [3, 150, 400])  # operations: while it draws, in the critics' step, in the actor's
@pytest.mark.parametrize("kwargs", [{}, {"use_sde": True}])
def test_a_recording_that_fails_half_way_changes_nothing(kwargs, after, monkeypatch):
    monkeypatch.setattr(pave_module, "CudaCapture", FailingHalfWay)
    monkeypatch.setattr(FailingHalfWay, "after", after)
    model, eager = make(PAVE_SAC, cuda_graph=True, **kwargs), make(PAVE_SAC, **kwargs)
    FailingHalfWay.model = model
    with pytest.warns(UserWarning, match="can't be recorded: half-way. Training goes on") as caught:
        for trained in (model, eager):
            th.manual_seed(0)
            np.random.seed(0)
            trained.train(6, 16)
            trained.train(6, 16)
            trained.random_state = th.get_rng_state()
    assert len(caught) == 1 and StandIn.last.warm_ups == 3
    assert th.equal(model.random_state, eager.random_state)
    th.testing.assert_close(flat(model), flat(eager), rtol=0, atol=1e-5)
    for ours, theirs in zip(model._optimizers(), eager._optimizers(), strict=True):
        ours, theirs = ours.state_dict(), theirs.state_dict()
        assert ours["param_groups"] == theirs["param_groups"]
        assert [state["step"] for state in ours["state"].values()] == [12] * len(theirs["state"])


@pytest.mark.parametrize("kwargs", [{}, {"use_sde": True}])
def test_an_interrupt_inside_a_recording_comes_out_and_training_can_go_on(kwargs, monkeypatch):
    monkeypatch.setattr(pave_module, "CudaCapture", FailingHalfWay)
    monkeypatch.setattr(FailingHalfWay, "error", KeyboardInterrupt())
    model = FailingHalfWay.model = make(PAVE_SAC, cuda_graph=True, **kwargs)
    model.train(1, 16)  # which makes the optimizers' memory
    model.train(3, 16)
    before, noise = flat(model), getattr(model.actor.action_dist, "exploration_mat", th.zeros(1)).clone()
    settings = [optimizer.state_dict()["param_groups"] for optimizer in model._optimizers()]
    with pytest.raises(KeyboardInterrupt):
        model.train(1, 16)
    assert th.equal(flat(model), before)
    assert th.equal(getattr(model.actor.action_dist, "exploration_mat", th.zeros(1)), noise)
    assert [optimizer.state_dict()["param_groups"] for optimizer in model._optimizers()] == settings
    monkeypatch.setattr(FailingHalfWay, "record", StandIn.record)
    model.train(2, 16)
    assert StandIn.last.recordings == 1 and StandIn.last.replays == 2


def test_on_the_cpu_there_is_one_warning_and_the_eager_path():
    model, eager = make(PAVE_TD3, cuda_graph=True), make(PAVE_TD3)
    with pytest.warns(UserWarning, match="the agent is on the device cpu") as caught:
        for trained in (model, eager):
            th.manual_seed(0)
            np.random.seed(0)
            trained.train(3, 16)
            trained.train(3, 16)
    assert len(caught) == 1
    assert th.equal(flat(model), flat(eager))


class NeedsCapturable(StandIn):
    capturable = True


def test_an_optimizer_that_cannot_be_recorded_is_named(monkeypatch):
    monkeypatch.setattr(pave_module, "CudaCapture", NeedsCapturable)
    model = make(PAVE_TD3, cuda_graph=True, policy_kwargs={"net_arch": [8], "optimizer_class": th.optim.Adagrad})
    with pytest.warns(UserWarning, match="Adagrad has no option capturable"):
        model.train(2, 16)


def test_settings_of_an_optimizer_that_are_for_no_parameter_are_no_obstacle(stand_in):
    model = make(PAVE_SAC, cuda_graph=True)
    model.critic.optimizer.add_param_group({"params": []})
    model.train(6, 16)
    assert StandIn.last.replays


def test_a_number_that_never_rests_is_named():
    graphs = GraphedUpdate(StandIn(th.device("cpu")))
    for i in range(33):
        graphs.prepare([], [], {"temperature": i})
        for _ in range(4):
            graphs.run(lambda _, log: log.add(loss=th.zeros(())), (th.zeros(1),), None, pave_module.UpdateLog())
    with pytest.warns(UserWarning, match="since temperature keeps changing"):
        assert not graphs.prepare([], [], {"temperature": -1})


def test_changes_that_are_far_apart_cost_a_recording_each_and_no_more():
    """Parameters set anew from time to time, as in population-based training, are no reason to give up."""
    graphs = GraphedUpdate(StandIn(th.device("cpu")))
    for i in range(40):
        assert graphs.prepare([], [], {"temperature": i})
        for _ in range(1004):
            graphs.run(lambda _, log: log.add(loss=th.zeros(())), (th.zeros(1),), None, pave_module.UpdateLog())


def test_inputs_stay_where_they_are_and_arrive_unchanged():
    def batch(seed):
        th.manual_seed(seed)
        observations = {"image": th.randint(0, 256, (3, 2, 5), dtype=th.uint8), "vector": th.randn(3, 7)}
        return observations, Successor({"image": th.zeros(3, 1, dtype=th.uint8), "vector": th.randn(3, 1).double()}, None)

    static = StaticBatch(batch(0), th.device("cpu"))
    (observations, successor), address = static.batch, static.batch[0]["vector"].data_ptr()
    for seed in (1, 2):
        static.load(leaves(batch(seed)))
    expected = batch(2)
    assert observations["vector"].data_ptr() == address and successor.exists is None
    for ours, theirs in ((observations, expected[0]), (successor.observations, expected[1].observations)):
        for key in ours:
            assert th.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype
    assert isinstance(Pendulums().observation_space, spaces.Dict)
