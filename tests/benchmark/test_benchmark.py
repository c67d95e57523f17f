"""The benchmark compares like with like, and counts what is computed. What it measures is no test's business."""

import json

import pytest
import torch as th
from torch.utils.flop_counter import FlopCounterMode

from sb3_pave.benchmark import HOST, Variant, Workload, benchmark, default_variants, make_model, rival_variants
from sb3_pave.benchmark.flops import gradient_step_flops
from sb3_pave.commands import bench as benchmark_command
from sb3_pave.fast import matmul
from sb3_pave.fast.eligibility import has_closed_form

SMALL = dict(obs_dim=5, action_dim=2, net_arch=(12, 10), batch_size=8)
EAGER = [
    Variant("autograd", closed_form=False),
    Variant("pave"),
    Variant("part", kwargs={"pave_batch_size": 3}),
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


@pytest.mark.parametrize("algo", ["td3", "sac", "ddpg"])
def test_every_variant_has_the_losses_of_the_first(algo):
    progress = []
    workload = Workload(algo=algo, threads=1, **SMALL)
    report = benchmark(workload, EAGER, repetitions=3, warmup=1, memory_updates=0, learn_steps=10, progress=progress.append)
    timings = {timing.variant: timing for timing in report.timings}
    assert list(timings) == ["host", "autograd", "pave", "part"] and "first update: part" in progress
    td_loss, critic_loss = timings["pave"].loss
    assert timings["host"].loss == pytest.approx((td_loss, td_loss))
    assert timings["autograd"].loss == pytest.approx((td_loss, critic_loss))
    assert critic_loss > td_loss and timings["host"].ratio == (1, 1, 1)
    for timing in timings.values():
        assert 0 < timing.ms[0] <= timing.ms[1] <= timing.ms[2]
        assert 0 < timing.env_steps_per_s[1]
    assert timings["host"].floor_ms < timings["part"].floor_ms < timings["pave"].floor_ms


@pytest.mark.parametrize(("wrong", "message"), [("td", "computes a TD loss"), ("pave", "broken optimises")])
def test_a_variant_that_computes_something_else_is_refused(wrong, message):
    kwargs = {"gamma": 0.5} if wrong == "td" else {"curv_coef": 3.0}
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
    names = [variant.name for variant in default_variants(Workload(device="cuda"))]
    assert {"graphs", "graphs, compiled"} <= set(names)
    assert "graphs" not in [variant.name for variant in default_variants(Workload())]


def test_the_command_writes_a_table_and_json(tmp_path, capsys):
    output = tmp_path / "results" / "bench.json"
    arguments = ["--algo", "sac", "--env", "Pendulum-v1", "--net-arch", "8", "--batch-size", "8", "--repetitions", "2"]
    arguments += ["--no-memory", "--variants", "pave", "quarter batch", "-o", str(output)]
    benchmark_command.main(arguments)
    table = capsys.readouterr().out
    assert "One gradient step of SAC, Pendulum-v1, batch 8" in table and "quarter batch" in table
    report = json.loads(output.read_text())
    assert [timing["variant"] for timing in report["timings"]] == ["host", "pave", "quarter batch"]
    assert report["workload"]["env_id"] == "Pendulum-v1" and report["gflops"] > 0
    with pytest.raises(SystemExit):
        benchmark_command.main(arguments)
    assert "--force overwrites it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "ppo"], "There is no algorithm 'ppo'"),
        (["--variants", "warp"], "no such variant: warp"),
        (["--repetitions", "0"], "must be at least 1"),
    ],
)
def test_bad_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit):
        benchmark_command.main(arguments)
    assert message in capsys.readouterr().err


def test_threads_are_as_before_afterwards():
    before = th.get_num_threads()
    benchmark(Workload(threads=before + 1, **SMALL), [Variant("pave")], repetitions=1, memory_updates=0)
    assert th.get_num_threads() == before
