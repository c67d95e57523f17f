"""``sb3-pave film``: agents side by side, the traces of their actions below."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sb3_pave.commands.agents import DEFAULT_FOLDER, add_agents, add_surroundings, check_agents, import_needed, zip_agents
from sb3_pave.evaluation.agents import Agent
from sb3_pave.evaluation.errors import AgentError
from sb3_pave.evaluation.film_file import FORMATS, check_format
from sb3_pave.evaluation.labels import label, titles
from sb3_pave.evaluation.offscreen import prepare_rendering
from sb3_pave.evaluation.output_path import check_free, check_writable, output_path
from sb3_pave.evaluation.takes import FilmError
from sb3_pave.evaluation.zip_notes import notes_of_zips
from sb3_pave.evaluation.zoo_runs import find_runs

if TYPE_CHECKING:
    from sb3_pave.evaluation.film import FilmProgress

EXAMPLES = """examples:
  sb3-pave film --env Pendulum-v1 --algo td3 pave_td3 -f logs -o film.webp
  sb3-pave film plain.zip paved.zip --env Hopper-v5 --labels TD3 PAVE --actions 0 2 --steps 300 -o film.mp4

GIF and WebP play in a README; MP4 is the smallest, and the one for long films."""


def main(argv: list[str]) -> None:
    """
    Entry point of the command.

    :param argv: its arguments
    """
    parser = _parser()
    args = parser.parse_args(argv)
    check_agents(parser, args, "film", ("--vec-normalize",))
    output = output_path(args.output, "film", args.env, ".mp4")
    writer = "imageio_ffmpeg" if output.suffix.lower() == ".mp4" else "PIL"
    prepare_rendering()  # before packages of environments are imported
    import_needed(parser, ("rich", "rl_zoo3", "matplotlib", "pandas", writer), args.gym_packages)
    from sb3_pave.evaluation.film import FilmSettings, make_film
    from sb3_pave.zoo import register

    register(view_only=True)
    try:
        check_format(output)
        check_free([output], args.overwrite)
        check_writable([output])
        agents = _agents(args)
        settings = FilmSettings(
            env_id=args.env,
            labels=_labels(agents, args.labels),
            action_dims=args.actions,
            seed=args.seed,
            n_episodes=args.episodes,
            start=args.start,
            steps=args.steps,
            deterministic=not args.stochastic,
            fps=args.fps,
            speed=args.speed,
            height=args.height,
            device=args.device,
        )
        with _progress(disable=args.no_progress) as progress:
            make_film(agents, settings, output, progress)
    except (AgentError, FilmError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"Saved {output} ({output.stat().st_size / 1e6:.1f} MB)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-pave film",
        description="Film agents side by side, from the same starts, with the traces of their actions below.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_agents(parser, "film")
    add = parser.add_argument
    add("--exp-id", nargs="+", type=int, help="numbers of the runs (default: 0, each algorithm's latest with a model)")
    add("--vec-normalize", nargs="+", metavar="FILE", help="VecNormalize statistics: one for all zip files, or one for each")
    add("--labels", nargs="+", help="what the agents are called in the film (default: their algorithms)")
    add("--actions", nargs="+", type=int, metavar="I", help="action dimensions to trace, from 0 (default: the first three)")
    add("--seed", type=int, default=0, help="seed of the episode, the same for each agent (default: 0)")
    add("--episodes", type=int, default=1, help="episodes, one after the other, each with the next seed (default: 1)")
    add("--start", type=int, default=0, help="first step of the episode that is shown (default: 0)")
    add("--steps", type=int, help="how many steps are shown (default: to the end of the episode)")
    add("--stochastic", action="store_true", help="sample actions (default: deterministic)")
    add("--speed", type=float, default=1.0, help="1 shows it as fast as the robot moves, 0.5 half as fast (default: 1)")
    add("--fps", type=float, default=25.0, help="the most images a second (default: 25)")
    add("--height", type=int, default=480, help="height of the film in pixels; the width follows (default: 480)")
    add("-o", "--output", metavar="FILE", help=f"the film: {', '.join(FORMATS)} by its ending (default: film-ENV.mp4)")
    add("--overwrite", action="store_true", help="replace an existing file")
    add_surroundings(parser)
    return parser


def _agents(args: argparse.Namespace) -> list[Agent]:
    if args.models:
        agents = zip_agents(args, args.vec_normalize)
        for note in notes_of_zips(agents, args.env, args.vec_normalize is not None):
            _note(note)
        return agents
    folder, numbers = args.folder or DEFAULT_FOLDER, args.exp_id or [0]
    return [
        run
        for algo in dict.fromkeys(args.algo)
        for run in find_runs(folder, algo, args.env, numbers, args.load_best, skip=_note)
    ]


def _note(sentence: str) -> None:
    print(f"Note: {sentence}", file=sys.stderr)


def _labels(agents: Sequence[Agent], given: Sequence[str] | None) -> list[str]:
    if given is not None and len(given) != len(agents):
        raise ValueError(f"--labels: {len(agents)} agents need as many labels, not {len(given)}")
    return [label(title) for title in titles(agents)] if given is None else list(given)


@contextmanager
def _progress(disable: bool) -> Iterator[FilmProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Stages:
        """A bar for each stage of the work."""

        def begin(self, what: str, total: int | None) -> None:
            for task in bar.task_ids:
                bar.stop_task(task)
            self.task = bar.add_task(what, total=total)

        def advance(self) -> None:
            bar.advance(self.task)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    disable = disable or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=disable, transient=True) as bar:
        yield Stages()
