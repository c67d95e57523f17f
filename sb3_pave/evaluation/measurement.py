"""The measurement of several agents under the same conditions, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_pave.evaluation.agents import Agent, check_spaces
from sb3_pave.evaluation.aggregate import defined
from sb3_pave.evaluation.control_rate import control_rate, repetition
from sb3_pave.evaluation.errors import AgentError
from sb3_pave.evaluation.networks import CriticChoice, check_choice, critic_of
from sb3_pave.evaluation.report import new_report, run_record
from sb3_pave.evaluation.robustness import Scale, evaluate_robustness, observation_scale
from sb3_pave.evaluation.rollout import Rollout, record_rollout
from sb3_pave.evaluation.rollout_geometry import RolloutGeometry, rollout_geometry
from sb3_pave.evaluation.smoothness import smoothness_measures
from sb3_pave.evaluation.surface import SurfacePlane, field_surface, surface_plane

T = TypeVar("T")


@dataclass(frozen=True)
class Conditions:
    """
    What is measured, and how.

    :param env_id: the environment
    :param n_eval_episodes: episodes of each agent
    :param seed: seed of the episodes, the same for each agent
    :param deterministic: whether actions are deterministic
    :param control_rate: actions a second in Hz; None asks the environment
    :param cutoff: frequency above which energy counts as high; None takes a quarter of the control rate
    :param noise_levels: levels of sensor noise to measure at beside none; None for no robustness
    :param robustness_episodes: episodes of each noise level
    :param geometry: whether to measure the critic's geometry
    :param surface: whether to take the Q-gradient-field surface
    :param critic: the critic of both: its index in the ensemble or ``"min"``
    :param reference: label or algorithm whose first agent sets the noise scale and the surface's plane for all; None gives
        each agent the noise scale of its own, and all the plane of the first one
    :param device: PyTorch device
    """

    env_id: str
    n_eval_episodes: int = 10
    seed: int = 0
    deterministic: bool = True
    control_rate: float | None = None
    cutoff: float | None = None
    noise_levels: tuple[float, ...] | None = None
    robustness_episodes: int = 20
    geometry: bool = False
    surface: bool = False
    critic: CriticChoice = 0
    reference: str | None = None
    device: str = "auto"

    @property
    def levels(self) -> list[float]:
        """:return: the noise levels, without noise first"""
        return [] if self.noise_levels is None else [0.0, *(level for level in self.noise_levels if level > 0)]

    def n_episodes(self, n_agents: int) -> int:
        """
        :param n_agents: number of agents
        :return: the number of episodes that all of it takes
        """
        n_scales = 0 if self.noise_levels is None else 1 if self.reference else n_agents
        return n_agents * self.n_eval_episodes + (n_agents * len(self.levels) + n_scales) * self.robustness_episodes


def measure_agents(
    agents: Sequence[Agent],
    conditions: Conditions,
    notes: Sequence[str] = (),
    describe: Callable[[str], None] = lambda _: None,
    callback: Callable[[dict[str, Any], dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """
    Measure agents. All are loaded before the first episode, so that a broken file is not found an hour later; what can't be
    measured of one then costs neither its other numbers nor those of the others.

    :param agents: the agents, with labels and runs that tell them apart
    :param conditions: what is measured, and how
    :param notes: sentences for the report, which grow by one for whatever could not be measured
    :param describe: called with the name of each agent before it is measured
    :param callback: passed on to ``evaluate_policy``: called after each step
    :return: a report, see :func:`sb3_pave.evaluation.report.new_report`
    :raises AgentError: if an agent or its environment does not load, the reference is none of the agents, or nothing could
        be measured
    :raises ValueError: if the control rate and the cutoff don't go together, or no agent has the critic
    """
    first = _reference(agents, conditions.reference)
    measurement = _Measurement(conditions, first, list(notes), callback)
    for agent in agents:
        measurement.check(agent)
    measurement.check_critics()
    records = {}
    for i in sorted(range(len(agents)), key=lambda i: agents[i] is not first):
        describe(agents[i].name)
        records[i] = measurement.measure(agents[i])
    report = new_report(
        conditions.env_id,
        deterministic=conditions.deterministic,
        seed=conditions.seed,
        n_eval_episodes=conditions.n_eval_episodes,
        robustness_episodes=None if conditions.noise_levels is None else conditions.robustness_episodes,
        control_rate=measurement.rate,
        cutoff=conditions.cutoff,
        critic=str(conditions.critic),
        noise_reference=conditions.reference,
    )
    report["runs"] = [record for i in range(len(agents)) if (record := records[i]) is not None]
    if measurement.notes:
        report["notes"] = measurement.notes
    if not report["runs"]:
        raise AgentError("Nothing could be measured: " + "; ".join(measurement.notes))
    return report


def _reference(agents: Sequence[Agent], name: str | None) -> Agent:
    if name is None:
        return agents[0]
    for agent in agents:
        if name == agent.label:
            return agent
    for agent in agents:
        if name == agent.algorithm:
            return agent
    known = ", ".join(dict.fromkeys(agent.label for agent in agents))
    raise AgentError(f"--reference {name} is not among the measured algorithms: {known}")


class _Measurement:
    """
    The conditions, and what the first agent sets for those after it.

    :param conditions: what is measured, and how
    :param first: the agent that is measured first
    :param notes: grows by a sentence for whatever could not be measured
    :param callback: that of ``evaluate_policy``
    """

    def __init__(self, conditions: Conditions, first: Agent, notes: list[str], callback: Callable[..., None] | None):
        self.conditions, self.first, self.notes, self.callback = conditions, first, notes, callback
        self.rate = conditions.control_rate
        self.scale: Scale | None = None
        self.plane: SurfacePlane | None = None
        self.critics: dict[str, str] = {}  # what is wrong with the choice, if anything, for each agent with critics

    def check(self, agent: Agent) -> None:
        """Make its environment, ask that for its rate, and load it: what does not work is known before the first episode."""
        env = agent.make_env(self.conditions.env_id, self.conditions.seed)
        try:
            if self.conditions.control_rate is None:
                self._agree_on_rate(agent, *control_rate(env))
            assert self.rate is not None
            smoothness_measures([0.0], -1.0, 1.0, self.rate, self.conditions.cutoff)  # refuses a cutoff that is too high
            model = agent.load(self.conditions.device)
            check_spaces(agent, model, env)
            if self.conditions.geometry or self.conditions.surface:
                self._check_critic(agent, model)
        finally:
            env.close()

    def _check_critic(self, agent: Agent, model: BaseAlgorithm) -> None:
        try:
            network = critic_of(model)
        except ValueError:
            return  # becomes a note where it is measured
        try:
            check_choice(self.conditions.critic, network)
            self.critics[agent.name] = ""
        except ValueError as error:
            self.critics[agent.name] = f"{agent.name}: {error}"

    def check_critics(self) -> None:
        """Refuse a critic that no agent has: where ensembles differ in size, some may."""
        if self.critics and all(self.critics.values()):
            raise ValueError("; ".join(self.critics.values()))

    def _agree_on_rate(self, agent: Agent, rate: float, note: str | None) -> None:
        if self.rate is None:
            self.rate = rate
            if note is not None:
                self.notes.append(note)
        elif rate != self.rate:
            self.notes.append(
                f"{agent.name}: its environment takes {rate:g} actions a second, but frequencies are measured at "
                f"{self.rate:g}, the rate of the first; --control-rate sets one for all"
            )

    def measure(self, agent: Agent) -> dict[str, Any] | None:
        """:return: the agent's entry in the report, None if there is nothing to enter"""
        env = agent.make_env(self.conditions.env_id, self.conditions.seed)
        try:
            model = agent.load(self.conditions.device)
            return self._attempt(agent, "could not be measured", lambda: self._record(agent, model, env))
        finally:
            env.close()

    def _record(self, agent: Agent, model: BaseAlgorithm, env: VecEnv) -> dict[str, Any]:
        how = self.conditions
        plain = record_rollout(
            *(model, env, how.n_eval_episodes, how.deterministic, how.seed, self.callback),
            keep_observations=how.geometry or how.surface,
        )
        assert self.rate is not None
        repeated = None if how.control_rate is not None or self.rate == 1.0 else repetition(plain.episodes)
        if repeated is not None:
            self.notes.append(f"{agent.name}: {repeated}")
        plain.smoothness(self.rate, how.cutoff)  # of a policy that has diverged there is nothing else to measure
        self._note_infinite(agent, plain)
        robustness = geometry = heights = None
        if how.noise_levels is not None:
            robustness = self._attempt(agent, "no robustness", lambda: self._robustness(agent, model, env))
        if how.geometry:
            geometry = self._attempt(agent, "no geometry", lambda: self._geometry(agent, model, plain))
        if how.surface:
            heights = self._attempt(agent, "no surface", lambda: self._surface(model, plain))
        return run_record(
            agent.label,
            agent.run,
            agent.model_path,
            plain,
            self.rate,
            how.cutoff,
            robustness=robustness,
            geometry=geometry,
            plane=self.plane,
            heights=heights,
            training=self._attempt(agent, "no training curves", agent.training_curves),
        )

    def _robustness(self, agent: Agent, model: BaseAlgorithm, env: VecEnv) -> dict[float, Rollout]:
        how = self.conditions
        episodes = (how.robustness_episodes, how.deterministic, how.seed, self.callback)
        if how.reference is None or agent is self.first:
            self.scale = observation_scale(model, env, *episodes)
        elif self.scale is None:
            raise ValueError(f"the noise scale of {how.reference} could not be measured")
        noisy = evaluate_robustness(model, env, how.levels, self.scale, *episodes)
        for level, rollout in noisy.items():
            rollout.smoothness(self.rate or 1.0, how.cutoff)  # a policy may diverge under noise alone
            self._note_infinite(agent, rollout, f" at noise {level:g}")
        return noisy

    def _note_infinite(self, agent: Agent, rollout: Rollout, where: str = "") -> None:
        """A table shows the mean of what is left, which may be the one episode that did not crash."""
        n, n_left = len(rollout.episodes), len(defined([episode.total_reward for episode in rollout.episodes]))
        if n_left < n:
            self.notes.append(
                f"{agent.name}: the return of {n - n_left} of {n} episodes{where} is not finite, and left out of the mean"
            )

    def _geometry(self, agent: Agent, model: BaseAlgorithm, plain: Rollout) -> RolloutGeometry:
        geometry = rollout_geometry(model, plain, self.conditions.critic)
        self.notes += [f"{agent.name}: {note}" for note in geometry.notes]
        return geometry

    def _surface(self, model: BaseAlgorithm, plain: Rollout) -> Any:
        check_choice(self.conditions.critic, critic_of(model))
        self.plane = self.plane or surface_plane(model, plain, self.conditions.critic)
        return field_surface(model, self.plane, self.conditions.critic)

    def _attempt(self, agent: Agent, failure: str, measure: Callable[[], T]) -> T | None:
        try:
            return measure()
        except Exception as error:  # whatever an agent or an environment of another make raises must not cost the others
            self.notes.append(f"{agent.name}: {failure}: {str(error) or type(error).__name__}")
            return None
