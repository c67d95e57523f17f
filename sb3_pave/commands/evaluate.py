"""``sb3-pave evaluate``: measure trained agents, print a table, save the numbers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sb3_pave.commands.agents import (
    DEFAULT_FOLDER,
    add_agents,
    add_surroundings,
    check_agents,
    import_needed,
    zip_agents,
)
from sb3_pave.commands.options import needs
from sb3_pave.commands.printing import print_frame
from sb3_pave.evaluation.agents import Agent
from sb3_pave.evaluation.errors import AgentError, NoModelError
from sb3_pave.evaluation.labels import given_twice, told_apart
from sb3_pave.evaluation.output_path import check_free, check_writable, output_path
from sb3_pave.evaluation.pooling import differences
from sb3_pave.evaluation.robustness import NOISE_LEVELS
from sb3_pave.evaluation.zip_notes import notes_of_zips
from sb3_pave.evaluation.zoo_runs import find_runs

if TYPE_CHECKING:
    from sb3_pave.evaluation.measurement import Conditions

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
    import_needed(parser, ("rich", "rliable.library", "rl_zoo3"), args.gym_packages)
    from sb3_pave.evaluation.measurement import measure_agents
    from sb3_pave.evaluation.report_files import SUFFIXES, save_report, saved_files
    from sb3_pave.zoo import register

    register(view_only=True)
    base = output_path(args.output, "evaluation", args.env, suffixes=tuple(SUFFIXES.values()))
    try:
        files = list(saved_files(base).values())
        check_free(files, args.overwrite)
        notes: list[str] = []
        agents, conditions = _agents(args, notes), _conditions(args)
        check_writable(files)
        with _progress(conditions.n_episodes(len(agents)), disable=args.no_progress) as (describe, advance):
            report = measure_agents(agents, conditions, notes, describe, advance)
        try:
            files = save_report(report, base, args.overwrite)
        finally:  # a full disk does not cost the table, nor a closed pipe the files
            _print(report)
    except (AgentError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print("Saved", ", ".join(str(file) for file in files))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave evaluate",
        description="Measure trained agents: return, smoothness, robustness against sensor noise, geometry of the critic.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_agents(parser, "measure")
    add = parser.add_argument
    add(
        "--label",
        "--labels",
        nargs="+",
        help="names of the zip files in the table; those of the same name are joined, as runs of one setting",
    )
    add("--exp-id", nargs="+", type=int, help="numbers of the runs, 0 for the latest with a model (default: all runs)")
    add(
        "--vec-normalize",
        metavar="FILE",
        help="VecNormalize statistics of the zip files (default: NAME_vecnormalize.pkl beside NAME.zip, else the zoo's)",
    )
    add("-n", "--n-eval-episodes", type=int, default=10, help="episodes of each run (default: 10)")
    add("--seed", type=int, default=0, help="seed of the episodes, the same for each run (default: 0)")
    add("--stochastic", action="store_true", help="sample actions (default: deterministic)")
    add("--control-rate", type=float, metavar="HZ", help="actions a second (default: from the environment, else 1)")
    add("--cutoff", type=float, metavar="HZ", help="what counts as high frequency (default: a quarter of the control rate)")
    add("--robustness", action="store_true", help="also measure under sensor noise")
    add("--noise", nargs="+", type=float, help="noise levels, with or without --robustness (default: 0.01 0.05 0.1)")
    add("--robustness-episodes", type=int, help="episodes of each noise level (default: 20)")
    add("--geometry", action="store_true", help="also measure the critic's geometry")
    add("--surface", action="store_true", help="also take the critic's Q-gradient-field surface")
    add("--critic", help='which critic: its index, or "min" (default: 0)')
    add(
        "--reference",
        metavar="ALGO",
        help="algorithm or label whose first run sets the noise scale for all (default: each run its own) and the surface's "
        "axes (default: the first one)",
    )
    add("-o", "--output", metavar="PATH", help="where to save: a path without a suffix, or a folder (default: evaluation-ENV)")
    add("--overwrite", action="store_true", help="replace saved files of the same name")
    add_surroundings(parser)
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    check_agents(parser, args, "measure", ())
    if args.label and (not args.models or len(args.label) not in (1, len(args.models))):
        parser.error(f"--label goes with zip files: one for all of them or one for each of {len(args.models)}")
    # Whoever names levels wants them measured
    needs(parser, args, "--robustness-episodes", "--robustness", "--noise")
    needs(parser, args, "--critic", "--geometry", "--surface")
    needs(parser, args, "--reference", "--robustness", "--noise", "--surface")
    if args.n_eval_episodes < 1 or (args.robustness_episodes or 1) < 1:
        parser.error("the number of episodes must be at least 1")
    if args.critic not in (None, "min") and not args.critic.isdecimal():
        parser.error(f'--critic takes an index or "min", not {args.critic}')
    if any(not 0 <= level < float("inf") for level in args.noise or ()):
        parser.error("noise levels must not be negative, nor infinite")
    if args.control_rate is not None and not 0 < args.control_rate < float("inf"):
        parser.error("--control-rate must be positive")


def _agents(args: argparse.Namespace, notes: list[str]) -> list[Agent]:
    agents = _zips(args, notes) if args.models else _runs(args, notes)
    notes += differences(agents, "--label names them apart" if args.models else "--exp-id chooses among them")
    return agents


def _runs(args: argparse.Namespace, notes: list[str]) -> list[Agent]:
    """The runs of each algorithm; one without a model costs the others nothing."""
    folder, agents, missing = args.folder or DEFAULT_FOLDER, [], []
    for name in dict.fromkeys(args.algo):
        try:
            agents += find_runs(folder, name, args.env, args.exp_id, args.load_best, notes.append)
        except NoModelError as error:
            missing.append(str(error))
    if not agents:
        raise NoModelError("; ".join(missing))
    notes += missing
    return agents


def _zips(args: argparse.Namespace, notes: list[str]) -> list[Agent]:
    zips = zip_agents(args, None if args.vec_normalize is None else [args.vec_normalize])
    notes += given_twice(zips)
    agents = told_apart(zips, args.label)
    notes += notes_of_zips(agents, args.env, args.vec_normalize is not None)
    return agents


def _conditions(args: argparse.Namespace) -> Conditions:
    from sb3_pave.evaluation.measurement import Conditions

    optional: dict[str, Any] = {}
    if args.robustness or args.noise is not None:
        optional["noise_levels"] = tuple(NOISE_LEVELS if args.noise is None else args.noise)
    if args.robustness_episodes is not None:
        optional["robustness_episodes"] = args.robustness_episodes
    if args.critic is not None:
        optional["critic"] = "min" if args.critic == "min" else int(args.critic)
    return Conditions(
        args.env,
        n_eval_episodes=args.n_eval_episodes,
        seed=args.seed,
        deterministic=not args.stochastic,
        control_rate=args.control_rate,
        cutoff=args.cutoff,
        geometry=args.geometry,
        surface=args.surface,
        reference=args.reference,
        device=args.device,
        **optional,
    )


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
    from sb3_pave.evaluation.tables import caption, summary_table, with_names

    print_frame(with_names(summary_table(report)), caption(report), n_names=1)
    for note in report.get("notes", []):
        print(f"Note: {note}")
