"""The benchmark compares like with like, and counts what is computed. What it measures is no test's business."""

import json
import re
import sys
from concurrent.futures.process import BrokenProcessPool

import gymnasium as gym
import pytest
import torch as th
from torch.utils.flop_counter import FlopCounterMode

import sb3_pave.benchmark.memory as memory
from sb3_pave.benchmark import (
    HOST,
    DifferentLosses,
    Variant,
    Workload,
    benchmark,
    default_variants,
    make_model,
    rival_variants,
)
from sb3_pave.benchmark.flops import gradient_step_flops
from sb3_pave.commands import bench as benchmark_command
from sb3_pave.fast import matmul
from sb3_pave.fast.eligibility import has_closed_form

SMALL = dict(obs_dim=5, action_dim=2, net_arch=(12, 10), batch_size=8)
EAGER = [
    Variant("autograd", closed_form=False),
    Variant("pave"),
    Variant("part", kwargs={"pave_batch_size": 3}),
    Variant("third", kwargs={"pave_interval": 3}),
]


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_the_floor_counts_the_products_that_the_update_computes(algo, monkeypatch):
    monkeypatch.setattr(matmul, "_PREFERS_ONEDNN", False)  # the counter does not know it
    workload = Workload(algo=algo, **SMALL)
    for rows in (8, 3):
        model = make_model(workload, Variant("pave", kwargs={"pave_batch_size": rows}))
        with FlopCounterMode(display=False) as counter:
            model.train(2, batch_size=8)  # TD3 updates its actor in one of two
        floor = 2 * gradient_step_flops(model, 8, rows).total
        counted = counter.get_total_flops()
        assert floor <= counted <= 1.06 * floor
    host = make_model(workload, HOST)
    with FlopCounterMode(display=False) as counter:
        host.train(2, batch_size=8)
    # The host's actor update computes the critics' parameter gradients too, which nobody uses
    assert 2 * gradient_step_flops(host, 8).total < counter.get_total_flops() < 2.6 * gradient_step_flops(host, 8).total


@pytest.mark.parametrize("algo", ["td3", "sac", "ddpg", "crossq"])
def test_every_variant_has_the_losses_of_the_first(algo):
    progress = []
    workload = Workload(algo=algo, threads=1, **SMALL)
    report = benchmark(workload, EAGER, repetitions=3, warmup=1, memory_updates=0, learn_steps=10, progress=progress.append)
    timings = {timing.variant: timing for timing in report.timings}
    assert list(timings) == ["host", "autograd", "pave", "part", "third"] and "first update: part" in progress
    td_loss, critic_loss = timings["pave"].loss
    assert timings["host"].loss == pytest.approx((td_loss, td_loss))
    assert timings["autograd"].loss == pytest.approx((td_loss, critic_loss))
    assert critic_loss > td_loss and timings["host"].ratio == (1, 1, 1)
    for timing in timings.values():
        assert 0 < timing.ms[0] <= timing.ms[1] <= timing.ms[2]
        assert 0 < timing.env_steps_per_s[1]
    # Blocks in which each kind of update has its share
    assert report.updates == {"td3": 6, "sac": 3, "ddpg": 3, "crossq": 3}[algo]
    # The terms of the update that has them, and their weight
    assert timings["third"].loss == pytest.approx((td_loss, td_loss + 3 * (critic_loss - td_loss)))
    if algo == "crossq":
        assert timings["pave"].floor_ms is None
    else:
        host, part, third, pave = (timings[name].floor_ms for name in ("host", "part", "third", "pave"))
        assert host < part < pave and third == pytest.approx((2 * host + pave) / 3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": 0.5}, "computes a TD loss"),
        ({"curv_coef": 3.0}, "broken optimises"),
        ({"curv_coef": 3.0, "pave_interval": 3}, "broken optimises"),
    ],
)
def test_a_variant_that_computes_something_else_is_refused(kwargs, message):
    with pytest.raises(RuntimeError, match=message):
        benchmark(Workload(**SMALL), [Variant("pave"), Variant("broken", kwargs=kwargs)], repetitions=1, memory_updates=0)


def test_the_definition_is_not_the_closed_form():
    model = make_model(Workload(**SMALL), Variant("autograd", closed_form=False))
    assert not has_closed_form(model.critic)
    assert has_closed_form(make_model(Workload(**SMALL), Variant("pave")).critic)


def test_peak_memory_is_that_of_a_process_of_its_own():
    ballast = th.ones(2**28)  # a gigabyte of this process
    report = benchmark(Workload(**SMALL), [Variant("pave")], repetitions=1, warmup=0, memory_updates=10)
    assert all(50 < timing.peak_memory_mb < 1024 for timing in report.timings) and len(ballast) > 0
    assert all(abs(timing.memory_growth_mb) < 100 for timing in report.timings)


def test_rivals_are_timed_around_host_and_pave():
    workload = Workload(algo="td3", threads=1, **SMALL)
    report = benchmark(workload, [Variant("pave"), *rival_variants()], repetitions=2, warmup=1, memory_updates=0)
    timings = {timing.variant: timing for timing in report.timings}
    assert list(timings) == ["host", "pave", "temporal", "caps", "grad", "asap", "damper", "damper and pave"]
    # They change the actor's step, which comes after the critic's
    assert timings["asap"].loss == pytest.approx(timings["host"].loss)
    assert timings["damper and pave"].loss == pytest.approx(timings["pave"].loss)
    # Their products are not counted
    assert timings["caps"].floor_ms is None and timings["host"].floor_ms is not None


def test_graphs_are_timed_on_cuda_only():
    on_gpu = {variant.name: variant for variant in default_variants(Workload(device="cuda"))}
    assert {"graphs", "graphs, compiled"} <= set(on_gpu)
    assert "graphs" not in [variant.name for variant in default_variants(Workload())]
    for name, variant in on_gpu.items():
        # The rows between which graphs are judged are recorded only where they say so
        assert variant.kwargs.get("cuda_graph", False) is ("graphs" in name)


def test_the_command_writes_a_table_and_json(tmp_path, capsys):
    output = tmp_path / "results" / "bench.json"
    arguments = ["--algo", "sac", "--env", "Pendulum-v1", "--net-arch", "8", "--batch-size", "8", "--repetitions", "2"]
    arguments += ["--no-memory", "--variants", "pave", "every 4th update", "-o", str(output)]
    benchmark_command.main(arguments)
    table = capsys.readouterr().out
    assert "One gradient step of SAC, Pendulum-v1, batch 8" in table and "every 4th update" in table
    report = json.loads(output.read_text())
    assert [timing["variant"] for timing in report["timings"]] == ["host", "pave", "every 4th update"]
    assert report["workload"]["env_id"] == "Pendulum-v1" and report["gflops"] > 0
    with pytest.raises(SystemExit):
        benchmark_command.main(arguments)
    assert "overwrite it (--overwrite" in capsys.readouterr().err
    output.write_text("")
    benchmark_command.main([*arguments, "--overwrite"])
    assert json.loads(output.read_text())["gflops"] > 0


def test_the_caption_is_a_paragraph_of_its_own(capsys):
    report = benchmark(Workload(**SMALL), [Variant("pave")], repetitions=1, warmup=0, memory_updates=0)
    assert benchmark_command.table(report).caption is None
    assert "interleaved rounds; floor: matrix products at" in benchmark_command.caption(report)


@pytest.fixture
def dict_env():
    """An environment with Dict observations, registered for a test."""
    gym.register("DictObservations-v0", lambda: Environment())

    class Environment(gym.Env):
        observation_space = gym.spaces.Dict({"state": gym.spaces.Box(-1, 1, (2,))})
        action_space = gym.spaces.Box(-1, 1, (1,))

    yield
    del gym.registry["DictObservations-v0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "ppo"], "There is no algorithm 'ppo'"),
        (
            ["--variants", "warp", "drive, fast"],
            'no such variant: "drive, fast", "warp"; there are: "host", "autograd", "pave"',
        ),
        (["--repetitions", "0"], "must be at least 1"),
        (["--env", "Pendulm-v1"], "Did you mean: `Pendulum`?"),
        (["--env", "no_such_package:Any-v0"], "No module named 'no_such_package'"),
        (["--env", "CartPole-v1"], "CartPole-v1 has no continuous actions (Discrete(2))"),
        (["--env", "DictObservations-v0"], "has Dict observations"),
        (["--gym-packages", "no_such_package"], "--gym-packages: No module named 'no_such_package'; it is neither installed"),
        (["--device", "banana"], "PyTorch knows no device 'banana'"),
        (["--device", "cuda:99"], "PyTorch finds no cuda:99 on this machine"),
        (["--device", "meta"], "PyTorch finds no meta on this machine"),
        (["--no-memory", "--memory-updates", "30"], "--no-memory leaves out what --memory-updates asks for"),
        (["--env", "Pendulum-v1", "--obs-dim", "3"], "leave out --obs-dim and --action-dim"),
        (["-o", "/"], "/ is a folder"),
        (["-o", "/dev/null/bench.json"], "/dev/null/bench.json can't be written"),
        (["-o", "x" * 300], "can't be written: File name too long"),
        (["--env", "no_package:Any-v0"], "(--gym-packages names the modules that register environments)"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys, dict_env):
    with pytest.raises(SystemExit) as stopped:
        benchmark_command.main(arguments)
    assert stopped.value.code != 0 and message in " ".join(capsys.readouterr().err.split())


def test_variants_that_differ_end_the_command_with_a_sentence(monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise DifferentLosses("pave optimises 1.0, autograd 2.0 on the same batch.")

    monkeypatch.setattr(benchmark_command, "benchmark", refuse)
    with pytest.raises(SystemExit):
        benchmark_command.main([])
    assert capsys.readouterr().err.strip().endswith("sb3-pave bench: pave optimises 1.0, autograd 2.0 on the same batch.")


def test_help_names_every_variant_and_each_default_once(capsys):
    with pytest.raises(SystemExit):
        benchmark_command.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for variant in [*default_variants(Workload(device="cuda")), *rival_variants()]:
        assert f'"{variant.name}"' in shown
    assert "(default: None)" not in shown and ") (default" not in shown


def test_environments_of_the_users_packages_are_known(tmp_path, monkeypatch, capsys):
    (tmp_path / "envs_of_bench.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('OfBench-v0', 'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=50)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["--env", "OfBench-v0", "--gym-packages", "envs_of_bench", "--net-arch", "8", "--batch-size", "8"]
    # Also in the process in which memory is measured
    benchmark_command.main([*arguments, "--repetitions", "1", "--memory-updates", "10", "--variants", "host"])
    shown = capsys.readouterr().out
    assert "OfBench-v0" in shown and re.search(r"│ +host .*│ +[1-9]\d+ │", shown)


def test_a_process_that_is_killed_costs_its_column_alone(monkeypatch):
    def killed(*args):
        raise BrokenProcessPool

    monkeypatch.setattr(memory.ProcessPoolExecutor, "submit", killed)
    report = benchmark(Workload(**SMALL), [HOST], repetitions=1, memory_updates=10)
    assert report.timings[0].peak_memory_mb is None and report.timings[0].ms[1] > 0


def test_threads_are_as_before_afterwards():
    before = th.get_num_threads()
    benchmark(Workload(threads=before + 1, **SMALL), [Variant("pave")], repetitions=1, memory_updates=0)
    assert th.get_num_threads() == before
