"""``sb3-pave evaluate``: measure trained agents, print a table, save the numbers."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_pave.evaluation.agents import Agent, AgentError, find_runs, from_zip
from sb3_pave.evaluation.geometry import CriticChoice, rollout_geometry
from sb3_pave.evaluation.robustness import NOISE_LEVELS, Scale, evaluate_robustness, observation_scale
from sb3_pave.evaluation.rollout import Rollout, record_rollout
from sb3_pave.evaluation.surface import SurfacePlane, field_surface, surface_plane

EXAMPLES = """examples:
  sb3-pave evaluate --env Pendulum-v1 --algo sac pave_sac -f logs
  sb3-pave evaluate --env Pendulum-v1 --algo sac pave_sac -f logs --robustness --geometry --reference sac
  sb3-pave evaluate my_model.zip --env Walker2d-v5 --vec-normalize vecnormalize.pkl"""


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _check(parser, args)
    try:
        # What is needed at the end should not be missed only then
        for needed in ("rich", "rliable.library", "rl_zoo3"):
            importlib.import_module(needed)
        for package in args.gym_packages:
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        parser.exit(1, f'{parser.prog} needs {error.name}, which is not installed: pip install "sb3-pave[eval]"\n')
    from sb3_pave.evaluation.report import check_free, save_report, saved_files
    from sb3_pave.zoo import register

    register(view_only=True)
    base = args.output or f"evaluation-{args.env.replace('/', '-').replace(':', '-')}"
    try:
        check_free(saved_files(base).values(), args.overwrite)
        report = _measure(_agents(args), args)
    except (AgentError, FileExistsError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    files = save_report(report, base, args.overwrite)
    _print(report)
    print("Saved", ", ".join(str(file) for file in files))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave evaluate",
        description="Measure trained agents: return, smoothness, robustness against sensor noise, geometry of the critic.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", nargs="*", metavar="model.zip", help="models to measure, in place of runs in a log folder")
    add("--env", required=True, help="environment id")
    add("--algo", nargs="+", default=[], help="algorithms: of the runs, or of the zip files (read from them by default)")
    add("-f", "--folder", default="logs", help="log folder of the zoo (default: logs)")
    add("--exp-id", nargs="+", type=int, help="numbers of the runs, 0 for the latest (default: all runs)")
    add("--load-best", action="store_true", help="take each run's best model, not its last")
    add("--vec-normalize", metavar="FILE", help="VecNormalize statistics of the zip files")
    add("-n", "--n-eval-episodes", type=int, default=10, help="episodes of each run (default: 10)")
    add("--seed", type=int, default=0, help="seed of the episodes, the same for each run (default: 0)")
    add("--stochastic", action="store_true", help="sample actions (default: deterministic)")
    add("--control-rate", type=float, metavar="HZ", help="actions a second (default: from the environment, else 1)")
    add("--cutoff", type=float, metavar="HZ", help="what counts as high frequency (default: a quarter of the control rate)")
    add("--robustness", action="store_true", help="also measure under sensor noise")
    add("--noise", nargs="+", type=float, default=list(NOISE_LEVELS), help="noise levels (default: 0.01 0.05 0.1)")
    add("--robustness-episodes", type=int, default=20, help="episodes of each noise level (default: 20)")
    add("--geometry", action="store_true", help="also measure the critic's geometry")
    add("--surface", action="store_true", help="also take the critic's Q-gradient-field surface")
    add("--critic", default="0", help='which critic: its index, or "min" (default: 0)')
    add(
        "--reference",
        metavar="ALGO",
        help="algorithm whose first run sets the noise scale for all (default: each run its own) and the surface's axes "
        "(default: the first one)",
    )
    add("-o", "--output", metavar="PATH", help="where to save, without a suffix (default: evaluation-ENV)")
    add("--overwrite", action="store_true", help="replace saved files of the same name")
    add("--device", default="auto", help="PyTorch device (default: auto)")
    add("--gym-packages", nargs="+", default=[], help="packages to import that register environments")
    add("--no-progress", action="store_true", help="no progress bar")
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.models and not args.algo:
        parser.error("say what to measure: --algo with a log folder, or model.zip files")
    if args.models and args.algo and len(args.algo) not in (1, len(args.models)):
        parser.error(f"{len(args.models)} zip files need one --algo for all of them or one for each, not {len(args.algo)}")
    if args.vec_normalize and not args.models:
        parser.error("--vec-normalize goes with zip files; runs in a log folder bring their own statistics")
    if args.n_eval_episodes < 1 or args.robustness_episodes < 1:
        parser.error("the number of episodes must be at least 1")
    if args.critic != "min" and not args.critic.isdigit():
        parser.error(f'--critic takes an index or "min", not {args.critic}')
    if any(not level >= 0 for level in args.noise):
        parser.error("noise levels must not be negative")
    if args.control_rate is not None and not args.control_rate > 0:
        parser.error("--control-rate must be positive")


def _agents(args: argparse.Namespace) -> list[Agent]:
    if args.models:
        names = args.algo if len(args.algo) == len(args.models) else (args.algo or [None]) * len(args.models)
        agents = [from_zip(path, args.env, name, args.vec_normalize) for path, name in zip(args.models, names, strict=True)]
    else:
        agents = [run for algo in args.algo for run in find_runs(args.folder, algo, args.env, args.exp_id, args.load_best)]
    known = list(dict.fromkeys(agent.algorithm for agent in agents))
    if args.reference is not None and args.reference not in known:
        raise AgentError(f"--reference {args.reference} is not among the measured algorithms: {', '.join(known)}")
    return agents


def _measure(agents: list[Agent], args: argparse.Namespace) -> dict[str, Any]:
    """Measure each agent, the reference first: the others may need its noise scale or its surface's axes."""
    from sb3_pave.evaluation.report import new_report

    settings = {
        "deterministic": not args.stochastic,
        "seed": args.seed,
        "n_eval_episodes": args.n_eval_episodes,
        "robustness_episodes": args.robustness_episodes if args.robustness else None,
        "control_rate": args.control_rate,
        "cutoff": args.cutoff,
        "critic": args.critic,
        "noise_reference": args.reference,
    }
    reference = next((agent for agent in agents if agent.algorithm == args.reference), agents[0])
    measurement = _Measurement(args, settings)
    records: dict[int, dict[str, Any]] = {}
    with _progress(measurement.n_episodes(len(agents)), disable=args.no_progress) as (describe, advance):
        for i in sorted(range(len(agents)), key=lambda i: agents[i] is not reference):
            describe(f"{agents[i].algorithm} {agents[i].run}")
            records[i] = measurement.measure(agents[i], advance)
    report = new_report(args.env, **settings)
    report["runs"] = [records[i] for i in range(len(agents))]
    return report


class _Measurement:
    """
    What was asked for, and what the first agent sets for those after it.

    :param args: the arguments of the command
    :param settings: the settings of the report; a control rate of None is filled in from the environment
    """

    def __init__(self, args: argparse.Namespace, settings: dict[str, Any]):
        self.args, self.settings = args, settings
        self.critic: CriticChoice = "min" if args.critic == "min" else int(args.critic)
        self.noise_levels = [0.0, *(level for level in args.noise if level > 0)] if args.robustness else []
        self.scale: Scale | None = None
        self.plane: SurfacePlane | None = None

    def n_episodes(self, n_agents: int) -> int:
        noisy = n_agents * len(self.noise_levels)
        scales = 0 if not self.args.robustness else 1 if self.args.reference else n_agents
        return n_agents * self.args.n_eval_episodes + (noisy + scales) * self.args.robustness_episodes

    def measure(self, agent: Agent, advance: Callable[..., None]) -> dict[str, Any]:
        """:return: the agent's entry in the report; ``advance`` is the progress bar's callback of ``evaluate_policy``"""
        env = agent.make_env(self.args.env, self.args.seed)
        try:
            model = agent.load(self.args.device)
            if self.settings["control_rate"] is None:
                self.settings["control_rate"] = control_rate(env)
            return self._record(agent, model, env, advance)
        finally:
            env.close()

    def _record(self, agent: Agent, model: BaseAlgorithm, env: VecEnv, advance: Callable[..., None]) -> dict[str, Any]:
        from sb3_pave.evaluation.report import run_record

        args, deterministic = self.args, not self.args.stochastic
        plain = record_rollout(model, env, args.n_eval_episodes, deterministic, args.seed, callback=advance)
        noisy = self._robustness(model, env, advance) if args.robustness else None
        geometry = rollout_geometry(model, plain, self.critic) if args.geometry else None
        heights = None
        if args.surface:
            self.plane = self.plane or surface_plane(model, plain, self.critic)
            heights = field_surface(model, self.plane, self.critic)
        return run_record(
            agent.algorithm,
            agent.run,
            agent.model_path,
            plain,
            self.settings["control_rate"],
            self.settings["cutoff"],
            robustness=noisy,
            geometry=geometry,
            plane=self.plane,
            heights=heights,
            training=agent.training_curves(),
        )

    def _robustness(self, model: BaseAlgorithm, env: VecEnv, advance: Callable[..., None]) -> dict[float, Rollout]:
        how = (self.args.robustness_episodes, not self.args.stochastic, self.args.seed, advance)
        if self.scale is None or self.args.reference is None:
            self.scale = observation_scale(model, env, *how)
        return evaluate_robustness(model, env, self.noise_levels, self.scale, *how)


def control_rate(env: VecEnv) -> float:
    """
    Actions a second of an environment that says how long its step is (``dt``, as MuJoCo's and Pendulum do).

    :param env: the environment
    :return: the rate in Hz; 1 if the environment does not say
    """
    try:
        step = env.get_attr("dt")[0]
    except AttributeError:
        return 1.0
    return 1.0 / float(step) if step else 1.0


@contextmanager
def _progress(total: int, disable: bool) -> Iterator[tuple[Callable[[str], None], Callable[..., None]]]:
    """A progress bar that counts episodes: a function to name what is measured, and a callback of ``evaluate_policy``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("episodes"))
    with Progress(*columns, TimeRemainingColumn(), disable=disable or not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("", total=total)

        def advance(locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
            if locals_["done"]:
                progress.advance(task)

        yield lambda text: progress.update(task, description=text), advance


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sb3_pave.evaluation.report import caption, summary_table

    cells = summary_table(report)
    table = Table(caption=caption(report), caption_justify="left")
    table.add_column("measure")
    for algorithm in cells.columns:
        table.add_column(algorithm, justify="right")
    for name, *row in cells.itertuples(name=None):
        table.add_row(name, *row)
    Console().print(table)
