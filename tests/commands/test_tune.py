"""``sb3-pave tune``: what it says where a search can't begin, and what it prints of a trial."""

import contextlib
import inspect
import shlex
import sys

import pytest
import yaml

from sb3_pave.commands import tune
from sb3_pave.experiments import grid
from sb3_pave.experiments.search import SearchError
from tests.experiments.formulas import SPECIFICATION, FormulaJob


@pytest.fixture
def tune_in(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of its own; what it printed, and its errors."""
    monkeypatch.setattr(grid, "Job", FormulaJob)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yml").write_text(yaml.safe_dump(SPECIFICATION))

    def run(*arguments, code=0):
        with pytest.raises(SystemExit) if code else contextlib.nullcontext() as stopped:
            tune.main(["search.yml", "-o", "search", *arguments])
        assert not code or stopped.value.code == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("foo", "backend must be one of threading, loky, dask, ray; got 'foo'"),
        ("dask", 'The backend dask needs distributed: pip install "sb3-pave[dask]"'),
        ("ray", 'The backend ray needs ray: pip install "sb3-pave[ray]"'),
    ],
)
def test_a_backend_that_is_not_there_is_said_before_anything_is_made(tune_in, tmp_path, monkeypatch, backend, message):
    for package in ("distributed", "ray"):
        monkeypatch.setitem(sys.modules, package, None)
    assert message in tune_in("--backend", backend, "--storage", "sqlite:///s.db", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["search.yml"]


def test_to_export_from_a_database_that_is_not_there_makes_none(tune_in, tmp_path):
    message = tune_in("--storage", "sqlite:///fresh.db", "--export", "0", code=1)
    assert "no trial of the study search in the storage has a result" in message
    assert [path.name for path in tmp_path.iterdir()] == ["search.yml"]


def test_a_trial_may_be_picked_again(tune_in, tmp_path):
    pick = ("--trials", "2", "--no-progress", "--pick", "knee")
    first = tune_in(*pick)
    assert tune_in(*pick) == first and "Wrote trial" in first
    (written,) = (tmp_path / "search").glob("*-trial-*.yml")
    written.write_text("# mine\n")
    assert "--overwrite" in tune_in(*pick, code=1) and written.read_text() == "# mine\n"


def test_what_is_printed_of_a_trial_trains_with_it(tune_in, tmp_path):
    (tmp_path / "tuned_arms.py").write_text("import gymnasium as gym\n")
    (tmp_path / "search.yml").write_text(yaml.safe_dump({**SPECIFICATION, "gym_packages": ["tuned_arms"]}))
    tune_in("--trials", "1", "--no-progress")
    export = ("--export", "0", "--export-to", "my files/tuned.yml")
    printed = tune_in(*export)
    assert tune_in(*export) == printed
    command = shlex.split(printed.partition(": ")[2])
    assert command[-4:] == ["-conf", "my files/tuned.yml", "--gym-packages", "tuned_arms"]


def test_a_name_that_train_would_import_as_a_module_is_refused_before_the_search(tune_in, tmp_path):
    for name in ("tuned", "tuned.json", "tuned.YML"):
        message = tune_in("--pick", "knee", "--export-to", name, code=2)
        assert "--export-to takes a name that ends in .yml or .yaml: of any other, train -conf would import" in message
    assert [path.name for path in tmp_path.iterdir()] == ["search.yml"]


def test_the_options_of_a_search_reach_it(monkeypatch):
    from sb3_pave.experiments import search as searching

    signature, seen = inspect.signature(searching.search), {}

    def search(*args, **kwargs):
        seen.update(signature.bind(*args, **kwargs).arguments)
        raise SearchError("seen")

    monkeypatch.setattr(searching, "search", search)
    options = "--trials 7 --keep-return 0.9 --sampler nsga2 --sampler-seed 3 --storage sqlite:///s.db --study-name mine -j 2"
    with pytest.raises(SearchError):
        tune._search(tune._parser().parse_args(["spec.yml", "-o", "out", *options.split(), "--no-progress"]), "SPEC")
    expected = ["SPEC", "out", 7, 0.9, "sqlite:///s.db", "mine", "nsga2", 3, 2]
    assert list(seen.values())[:9] == expected and seen[list(seen)[-1]] is False
