"""Evaluation and export know every algorithm."""

import json

import pytest

from sb3_pave.commands.main import main
from tests.algorithms.scenarios import ALGORITHMS, make

pytest.importorskip("rl_zoo3")
pytest.importorskip("rliable")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_evaluate_measures_it(algorithm, tmp_path):
    make(algorithm, "mlp").learn(30).save(tmp_path / "model.zip")
    name = algorithm.__name__.lower()
    # Told, since a zip of DDPG is one of TD3 in a certain configuration
    options = ("--algo", name, "-n", "1", "--geometry", "--device", "cpu", "--no-progress", "-o", str(tmp_path / "report"))
    main(["evaluate", str(tmp_path / "model.zip"), "--env", "Pendulum-v1", *options])
    (run,) = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert run["algorithm"] == name
    assert len(run["episodes"]["return"]) == 1 and run["geometry"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_export_writes_its_policy(algorithm, tmp_path):
    pytest.importorskip("onnxruntime")
    make(algorithm, "mlp").learn(30).save(tmp_path / "model.zip")
    # Compares the graph with model.predict itself
    main(["export", str(tmp_path / "model.zip"), str(tmp_path / "policy.onnx")])
    assert (tmp_path / "policy.onnx").exists()
