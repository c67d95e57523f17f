"""``sb3-pave export``: a trained policy for a robot, as ONNX."""

from __future__ import annotations

import argparse
import os
import sys

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_pave.commands.extras import import_gym_packages
from sb3_pave.evaluation.errors import AgentError
from sb3_pave.evaluation.zip_files import load_model
from sb3_pave.evaluation.zip_notes import unused_statistics
from sb3_pave.export import ExportError, export_onnx
from sb3_pave.export.observations import read_observations
from sb3_pave.export.onnx_file import DEFAULT_OPSET, check_packages
from sb3_pave.export.zoo_run import SavedModel, check_statistics, find_model, load_replay_buffer, make_env


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        check_packages()
        import_gym_packages(parser, args.gym_packages)
        saved = find_model(args.model)
        statistics = args.vec_normalize or saved.vec_normalize
        check_statistics(saved, statistics)
        if statistics is None and (note := unused_statistics(saved.path)):
            print(f"Note: {note}", file=sys.stderr)
        if any(_same(args.output, file) for file in (saved.path, statistics, args.observations)):
            raise ExportError(f"{args.output} is read, too: choose another name")
        observations = None if args.observations is None else read_observations(args.observations)
        model = load_model(saved.path, device="cpu")
        env = _env(args, saved, model) if observations is None else None
        try:
            exported = export_onnx(
                model,
                args.output,
                statistics,
                args.overwrite,
                env=env,
                observations=observations,
                tolerance=args.tolerance,
                opset=args.opset,
                batch_size=args.batch_size,
            )
        finally:
            if env is not None:
                env.close()
    except (AgentError, ExportError, FileExistsError, ImportError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if exported.normalized:
        print(f"{', '.join(exported.normalized)}: normalised in the graph with {statistics}")
    print(f"Saved {exported.path} ({', '.join(exported.inputs)} -> {exported.output}); {exported.comparison}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave export",
        description="Write the deterministic policy of a saved model as ONNX: raw observation in, environment-scale action "
        "out. Before it is written, the graph is compared with model.predict: at --observations, else in a rollout of the "
        "environment (--env, or that of the zoo's run in whose folder the model lies), else at observations of its replay "
        "buffer or at ones drawn with the statistics of VecNormalize, else at random ones of every size.",
    )
    add = parser.add_argument
    add("model", metavar="model.zip", help="a model saved by SB3 or sb3-pave, or the folder of a run of the zoo")
    add("output", metavar="policy.onnx", help="the file to write")
    add(
        "--vec-normalize",
        metavar="FILE",
        help="the VecNormalize statistics it was trained with (default: NAME_vecnormalize.pkl beside NAME.zip, else those "
        "in the folder of its run)",
    )
    add("--env", metavar="ID", help="environment to compare in (default: that of its run)")
    add("--gym-packages", nargs="+", default=[], help="packages to import that register environments")
    add(
        "--observations",
        metavar="FILE",
        help="raw observations to compare at, saved by numpy.save or, one array for each key of a Dict, by numpy.savez",
    )
    add(
        "--tolerance",
        type=float,
        help="largest difference of actions in units of half their range (default: 1e-5, or what rounding in float32 "
        "accounts for where that is more)",
    )
    add("--opset", type=int, default=DEFAULT_OPSET, help=f"version of ONNX's operators (default: {DEFAULT_OPSET})")
    add("--batch-size", type=int, metavar="N", help="a fixed number of observations at a time (default: any number)")
    add("--overwrite", action="store_true", help="replace an existing file")
    return parser


def _env(args: argparse.Namespace, saved: SavedModel, model: BaseAlgorithm) -> VecEnv | None:
    """The environment asked for, or that of the run; without the latter, the run's replay buffer has to do."""
    if args.env:
        return make_env(saved, model, args.env)
    try:
        if saved.env_id is not None:
            return make_env(saved, model, saved.env_id)
    except AgentError as error:
        print(f"No rollout to compare in: {error}", file=sys.stderr)
    load_replay_buffer(saved, model)
    return None


def _same(one: str | os.PathLike, other: str | os.PathLike | None) -> bool:
    return other is not None and os.path.realpath(one) == os.path.realpath(other)
