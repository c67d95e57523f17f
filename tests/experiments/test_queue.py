"""Who does what: several runners, crashes, signals, full disks. Real processes, but no trainings in them."""

import dataclasses
import errno
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("joblib")
pytest.importorskip("rl_zoo3")

from sb3_pave.experiments import EvaluationSettings, GridError, RunState, grid, grid_status, process, progress, run_grid
from sb3_pave.experiments.claims import Claim
from sb3_pave.experiments.files import write_json
from sb3_pave.experiments.status import is_being_measured
from sb3_pave.experiments.tries import TRAINED_FILE, trained_try
from tests.experiments import doubles
from tests.experiments.doubles import QuickJob, quick_run, started
from tests.experiments.processes import children_of, is_running, wait_for

ABORT, SLEEP = "import os; os.abort()", "import time; time.sleep(60)"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(grid, "Job", QuickJob)


def runner(folder, n_runs, program, backend="threading", **pipes):
    """A runner in a process of its own."""
    command = [sys.executable, "-m", "tests.experiments.doubles", str(folder), str(n_runs), program, backend]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **pipes)


def test_two_runners_share_the_runs_and_do_none_twice(tmp_path):
    runners = [runner(tmp_path, 8, "import time; time.sleep(0.5)") for _ in range(2)]
    assert [one.communicate(timeout=60)[0] for one in runners] == ["8 done\n"] * 2
    keys = started(tmp_path)
    assert sorted(keys) == sorted(quick_run(seed, "import time; time.sleep(0.5)").key for seed in range(8))
    assert len({line.split()[1] for line in (tmp_path / "started.txt").read_text().splitlines()}) == 2
    assert not list(tmp_path.glob("*/claim-*")) and not list(tmp_path.glob(".runner*"))


def test_a_crash_costs_its_run_alone(tmp_path, quick, capsys):
    good, bad = [quick_run(seed) for seed in range(3)], quick_run(9, ABORT)
    outcome = run_grid([bad, *good], tmp_path, n_jobs=2)
    printed = capsys.readouterr().out.splitlines()
    names = {f"Pendulum-v1 quick seed {seed}" for seed in (0, 1, 2, 9)}
    starts = [line for line in printed if line.startswith("started ")]
    assert {line[len("started ") : line.index(" (")] for line in starts} == names
    assert [line[line.index(" (") :] for line in starts] == [f" ({i} of 4)" for i in range(1, 5)]
    lines = sorted(line.partition(" ")[2] for line in printed if line not in starts)
    measured = [f"Pendulum-v1 quick seed {seed}: return -2, sm 0.5 (7 s of training)" for seed in range(3)]
    assert lines == [*measured, "Pendulum-v1 quick seed 9 has failed"]
    assert (outcome.done, outcome.failed) == (good, [bad])
    assert "SIGABRT" in outcome.errors[bad.key]
    assert started(tmp_path).count(bad.key) == 3
    states = {one.run["seed"]: one.state for one in grid_status(tmp_path)}
    assert states == {0: RunState.DONE, 1: RunState.DONE, 2: RunState.DONE, 9: RunState.FAILED}

    # Started again, it is tried again, and what is done is not
    run_grid([bad, *good], tmp_path, progress=False)
    assert len(started(tmp_path)) == 3 + 3 + 3


def test_a_run_that_is_only_measured_is_not_called_done(tmp_path):
    run = quick_run(1)
    folder = tmp_path / run.folder_name
    (folder / "tries" / "1").mkdir(parents=True)
    (folder / "tries" / "1" / "steps.txt").write_text("9")
    claim = Claim.acquire(folder)
    assert claim is not None
    lines, bar = progress.Lines([run], tmp_path, with_starts=True), progress._bar()
    assert list(lines.new()) == ["started Pendulum-v1 quick seed 1 (1 of 1)"] and list(lines.new()) == []
    bar.add_task("", total=11, completed=9, n_measured=0)
    (task,) = bar.tasks
    assert not is_being_measured(folder, run.steps) and str(bar.columns[-1](task)).startswith("left")
    (folder / "tries" / "1" / "steps.txt").write_text("10")
    assert is_being_measured(folder, run.steps) and progress._completed([run], tmp_path) == 10
    bar.update(task.id, completed=10, n_measured=1)
    assert str(bar.columns[-1](task)) == "measuring 1" and not task.finished
    claim.release()
    write_json(folder / "result.json", {})
    assert progress._completed([run], tmp_path) == 11 and not is_being_measured(folder, run.steps)
    assert list(lines.new()) == ["1/1 Pendulum-v1 quick seed 1: done"]


def test_the_end_of_what_a_failed_process_printed_is_kept(tmp_path, quick):
    bad = quick_run(1, "print('so far so good'); raise SystemExit('out of luck')")
    outcome = run_grid([bad], tmp_path, progress=False)
    assert outcome.errors[bad.key].endswith("ended with exit code 1:\nso far so good\nout of luck") or (
        outcome.errors[bad.key].splitlines()[1:] == ["out of luck", "so far so good"]
    )
    assert json.loads((tmp_path / bad.folder_name / "failed.json").read_text())["tries"] == 3


def test_a_changed_specification_touches_only_what_changed(tmp_path, quick):
    run_grid([quick_run(seed) for seed in range(3)], tmp_path, progress=False)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    changed = [quick_run(0), quick_run(2, "print()"), quick_run(5)]
    outcome = run_grid(changed, tmp_path, progress=False)
    assert outcome.done == changed
    assert started(tmp_path)[3:] == [run.key for run in changed[1:]]
    assert all(path.stat().st_mtime_ns == before for path, before in files.items())


def test_results_alone_count_as_done(tmp_path, quick):
    run = quick_run(1)
    (tmp_path / run.folder_name).mkdir()
    (tmp_path / run.folder_name / "result.json").write_text("{}")
    assert run_grid([run], tmp_path, progress=False).done == [run]
    assert started(tmp_path) == []
    assert [path.name for path in (tmp_path / run.folder_name).iterdir()] == ["result.json"]


def test_a_damaged_result_is_done_again_and_hides_no_other(tmp_path, quick):
    runs = [quick_run(seed) for seed in range(2)]
    run_grid(runs, tmp_path, progress=False)
    result = tmp_path / runs[0].folder_name / "result.json"
    result.write_text(result.read_text()[:20])
    states = {one.run["seed"]: (one.state, one.error) for one in grid_status(tmp_path)}
    assert states[0][0] is RunState.FAILED and "result.json could not be read" in states[0][1]
    assert states[1] == (RunState.DONE, "")
    run_grid(runs, tmp_path, progress=False)
    assert started(tmp_path) == [runs[0].key, runs[1].key, runs[0].key]
    assert json.loads(result.read_text())["seed"] == 0 and len(result.with_name("result.json.damaged").read_text()) == 20


def test_a_damaged_plan_hides_no_other_and_is_written_again(tmp_path, quick):
    runs = [quick_run(seed) for seed in range(2)]
    run_grid(runs[1:], tmp_path, progress=False)
    plan = tmp_path / runs[0].folder_name / "run.json"
    plan.parent.mkdir()
    plan.write_text('{"key"')
    damaged, done = grid_status(tmp_path)
    assert (damaged.state, damaged.run["environment"]) == (RunState.FAILED, plan.parent.name)
    assert "run.json could not be read" in damaged.error and done.state is RunState.DONE
    run_grid(runs, tmp_path, progress=False)
    assert json.loads(plan.read_text())["seed"] == 0


def test_what_was_stopped_while_it_tidied_is_tidied(tmp_path, quick):
    run = quick_run(1)
    run_grid([run], tmp_path, progress=False)
    folder = tmp_path / run.folder_name
    (folder / "tries" / "1" / "checkpoint-5").mkdir(parents=True)
    write_json(folder / "tries" / "1" / "trained.json", {})
    assert run_grid([run], tmp_path, progress=False).done == [run]
    assert (folder / "logs" / "trained.json").exists() and not (folder / "tries").exists()
    assert not list(folder.glob("logs/checkpoint*")) and started(tmp_path) == [run.key]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_grid_goes_on_where_it_was(number, tmp_path, quick):
    one = runner(tmp_path, 3, SLEEP)
    # A run is noted before its process is there; the sleeping ones are in sessions of their own: find them by their parent
    wait_for(lambda: len(children_of(one.pid)) == 2 and len(started(tmp_path)) == 2)
    children = children_of(one.pid)
    one.send_signal(number)
    one.communicate(timeout=60)
    assert one.returncode == 130
    assert not any(is_running(child) for child in children)
    assert not list(tmp_path.glob("*/claim-*")) and not list(tmp_path.glob("*/failed.json"))
    assert len(list(tmp_path.glob("*/run.json"))) == 3


def test_the_runs_of_a_killed_runner_are_free(tmp_path, quick):
    program = "import os, time; time.sleep(60 if os.getppid() else 0)"
    one = runner(tmp_path, 1, program)
    wait_for(lambda: started(tmp_path))
    orphans = children_of(one.pid)
    one.kill()
    one.communicate()
    for orphan in orphans:
        os.kill(orphan, signal.SIGKILL)  # trainings see to it themselves
    assert grid_status(tmp_path)[0].state is RunState.WAITING
    run_grid([quick_run(0)], tmp_path, progress=False)
    assert not list(tmp_path.glob(".runner*"))  # nor does the session of the killed one stay


def test_a_full_disk_is_an_error_and_no_loss(tmp_path, quick, monkeypatch):
    runs = [quick_run(seed) for seed in range(4)]
    write = doubles.write_json

    def write_until_full(path, data):
        if runs[2].key in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    monkeypatch.setattr(doubles, "write_json", write_until_full)
    with pytest.raises(GridError, match="No space left on device"):
        run_grid(runs, tmp_path, progress=False)
    assert len(started(tmp_path)) == 3  # the others would have met the same
    assert not list(tmp_path.glob("*/claim-*"))
    monkeypatch.setattr(doubles, "write_json", write)
    assert run_grid(runs, tmp_path, progress=False).done == runs
    assert started(tmp_path)[3:] == [runs[2].key, runs[3].key]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, quick):
    (tmp_path / "file").touch()
    with pytest.raises(GridError, match="can't be written"):
        run_grid([quick_run(1)], tmp_path / "file" / "grid", progress=False)
    if os.geteuid() != 0:  # who may write anywhere
        (tmp_path / "read_only").mkdir(mode=0o500)
        with pytest.raises(GridError, match="can't be written"):
            run_grid([quick_run(1)], tmp_path / "read_only", progress=False)


def test_one_run_at_a_time_on_a_gpu(tmp_path, quick):
    note = "import os, time; f=lambda w: print(w, os.environ['CUDA_VISIBLE_DEVICES'], time.monotonic(), flush=True)"
    program = f"{note}; f('from'); time.sleep(0.3); f('to')"
    runs = [quick_run(seed, program) for seed in range(4)]
    gpus = [f"test-{os.getpid()}-{i}" for i in range(2)]
    run_grid(runs, tmp_path, n_jobs=4, gpus=gpus, progress=False)
    spans = {}
    for run in runs:
        lines = (tmp_path / run.folder_name / "log.txt").read_text().splitlines()[1:]
        (_, gpu, begin), (_, _, end) = (line.split() for line in lines)
        spans.setdefault(gpu, []).append((float(begin), float(end)))
    assert set(spans) == set(gpus)
    for times in spans.values():
        times.sort()
        assert all(before[1] < after[0] for before, after in itertools.pairwise(times))


@pytest.mark.parametrize(("backend", "package"), [("loky", "joblib"), ("dask", "distributed"), ("ray", "ray")])
def test_other_engines_run_the_jobs(backend, package, tmp_path):
    """In a process of its own: the engines leave warnings about themselves behind."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    one = runner(tmp_path, 3, "import os, sys; 'seed1-' in os.environ['RUN'] and os.abort()", backend)
    shown, _ = one.communicate(timeout=300)
    assert one.returncode == 0 and shown.splitlines()[-1] == "2 done"
    workers = [int(line.split()[1]) for line in (tmp_path / "started.txt").read_text().splitlines()]
    assert len(workers) == 2 + 3
    assert one.pid not in workers


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_an_engine_that_loses_a_process_ends_with_a_sentence(tmp_path):
    one = runner(tmp_path, 2, "import os, signal; os.kill(os.getppid(), signal.SIGKILL)", "loky", stderr=subprocess.PIPE)
    _, errors = one.communicate(timeout=300)
    assert "GridError: the backend has failed (TerminatedWorkerError: " in errors and "run it again to go on" in errors


def test_a_device_that_is_not_here_is_refused(tmp_path, quick, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = dataclasses.replace(quick_run(1), device="cuda")
    with pytest.raises(ValueError, match="PyTorch finds no cuda on this machine"):
        run_grid([run], tmp_path / "grid", progress=False)
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_jobs": 0}, "n_jobs must be at least 1; got 0"),
        ({"backend": "slurm"}, "backend must be one of threading, loky, dask, ray; got 'slurm'"),
        ({"address": "tcp://1.2.3.4:5"}, "only dask and ray have an address"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, tmp_path, quick):
    with pytest.raises(ValueError, match=message):
        run_grid([quick_run(1)], tmp_path / "grid", progress=False, **arguments)
    with pytest.raises(ValueError, match="the same"):
        run_grid([quick_run(1), quick_run(1)], tmp_path / "grid", progress=False)


def test_what_another_runner_leaves_half_done_is_in_nobodys_way(tmp_path, quick):
    (tmp_path / ".runner-that-has-ended").touch()
    assert len(run_grid([quick_run(0)], tmp_path, progress=False).done) == 1


def test_an_agent_of_another_evaluation_is_taken_also_where_a_training_was_begun(tmp_path):
    mine = quick_run(0)
    other = dataclasses.replace(mine, evaluation=EvaluationSettings(geometry=True))
    (tmp_path / mine.folder_name / "tries" / "1").mkdir(parents=True)
    logs = tmp_path / other.folder_name / "logs"
    logs.mkdir(parents=True)
    write_json(logs / TRAINED_FILE, {"steps": 10})
    write_json(logs.parent / "run.json", {"key": other.key, **other.to_dict()})
    taken = process._trained_elsewhere(mine, tmp_path / mine.folder_name)
    assert taken == tmp_path / mine.folder_name / "tries" / "2"
    assert trained_try(tmp_path / mine.folder_name) == taken
