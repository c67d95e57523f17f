"""The Optuna study of a search: its storage, its sampler, its trials, and which of them have died."""

from __future__ import annotations

import contextlib
import threading
import uuid
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from sb3_pave.experiments.claims import HEARTBEAT, Claim, is_claimed
from sb3_pave.experiments.files import make_folder
from sb3_pave.experiments.study_place import check_place, database_file, described_place, note_place
from sb3_pave.experiments.study_sampler import SamplerName, SamplerOfEach, make_sampler, note_constraint
from sb3_pave.experiments.study_storage import JOURNAL_FILE, SEARCHER, experimental, open_storage, queue_again

SEARCHERS = ".searchers"

# Seconds in which whoever begins a trial puts its name on it
SIGNED_AFTER = 60

#: Attributes of a trial: what was drawn, what came out, why it has failed
HYPERPARAMETERS, OUTCOME, ERROR = "hyperparameters", "outcome", "error"

#: By whether there is a constraint on the return: sm down; or return up, sm down
DIRECTIONS: dict[bool, list[Any]] = {True: ["minimize"], False: ["maximize", "minimize"]}

#: Attribute of a study: what it was begun with
SPECIFICATION = "specification"


class SearchStudy:
    """
    A study that several processes may share. Trials whose process has died are marked as failed and put into the queue again.
    With the journal, who is alive is seen from claims in the folder; with a database, from Optuna's heartbeat.

    :param folder: folder of the search
    :param storage: URL of an Optuna storage; None for a journal file in the folder, which works over NFS
    :param name: name of the study
    :param constrained: whether there is one objective under a constraint, ``sm`` down, or two, return up and ``sm`` down
    :param sampler: ``tpe``, ``nsga2`` or ``random``
    :param seed: seed of the sampler; None draws anew each time
    :raises ValueError: if the folder's study lies elsewhere, or the storage can't be opened
    """

    def __init__(
        self,
        folder: Path,
        storage: str | None = None,
        name: str = "search",
        constrained: bool = False,
        sampler: SamplerName = "tpe",
        seed: int | None = None,
    ):
        self.folder = folder
        self.constrained = constrained
        self.token = uuid.uuid4().hex
        make_folder(folder)
        check_place(folder, storage, name)
        self._url, self._storage = storage, open_storage(folder, storage)
        self._database = storage is not None
        directions = DIRECTIONS[constrained]
        self.study = optuna.create_study(storage=self._storage, study_name=name, directions=directions, load_if_exists=True)
        self._sampler = SamplerOfEach(lambda of_trial: make_sampler(sampler, constrained, of_trial), seed)
        self.study.sampler = self._sampler

    def agree_on(self, specification: dict[str, Any]) -> None:
        """
        Note what the search is about in the study, and where the study lies in the folder, or compare it.

        :param specification: what the search is about, as JSON knows it
        :raises ValueError: if the study is none of a search, has the other number of objectives, or was begun with another
            specification
        """
        _check_ours(self.study, self._url)
        name, begun_with = self.study.study_name, self.study.user_attrs.get(SPECIFICATION)
        if _directions(self.study) != DIRECTIONS[self.constrained]:
            how = "without" if self.constrained else "with"
            raise ValueError(f"the study {name} was begun {how} a constraint on the return")
        if begun_with is None:
            self.study.set_user_attr(SPECIFICATION, specification)
        else:
            check_agreement(begun_with, specification, self._database)
        note_place(self.folder, self._url, name)

    def start_with(self, params: dict[str, Any]) -> None:
        """
        :param params: what the first trial is about; the rest is drawn
        """
        # In the queue it would be once for each of the processes that begin at the same time
        self._sampler.start = params

    def trials(self) -> list[FrozenTrial]:
        """:return: all trials, whatever has become of them"""
        return self.study.get_trials(deepcopy=False)

    def n_settled(self) -> int:
        """:return: how many trials have a result; that a run has failed is one"""
        return sum(trial.state is TrialState.COMPLETE or ERROR in trial.user_attrs for trial in self.trials())

    def n_running(self) -> int:
        """:return: how many trials somebody works on"""
        return sum(trial.state is TrialState.RUNNING for trial in self.trials())

    def ask(self, n_trials: int) -> list[Trial]:
        """
        :param n_trials: how many
        :return: so many new trials
        """
        trials: list[Trial] = []
        while len(trials) < n_trials:
            with warnings.catch_warnings():
                # Study.optimize would beat for us; here it is `alive`
                warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
                trial = self.study.ask()
            with contextlib.suppress(UpdateFinishedTrialError):  # another one has taken it for dead meanwhile
                if self._database:
                    self._storage.record_heartbeat(trial._trial_id)
                trial.set_user_attr(SEARCHER, self.token)
                trials.append(trial)
        return trials

    def tell(self, trial: Trial, total: float, sm: float, loss: float | None) -> None:
        """
        :param trial: a trial
        :param total: its return
        :param sm: its ``sm``
        :param loss: under a constraint, by how much its return misses it; not above 0 where it does not
        """
        if loss is not None:
            note_constraint(trial, loss)
        self.study.tell(trial, [sm] if self.constrained else [total, sm], skip_if_finished=True)

    def fail(self, trial: Trial, error: str) -> None:
        """
        :param trial: a trial
        :param error: why its runs have failed
        """
        trial.set_user_attr(ERROR, error)
        self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def give_back(self, trials: Sequence[Trial]) -> None:
        """
        :param trials: trials that could not be ended; they are the next ones then. Those that have ended are left alone
        """
        for trial in trials:
            with contextlib.suppress(UpdateFinishedTrialError, ValueError):
                ended = self.study.tell(trial, state=TrialState.FAIL)
                self.study.enqueue_trial({**ended.system_attrs.get("fixed_params", {}), **ended.params})

    def revive(self) -> list[int]:
        """
        Mark trials whose process has died as failed, and put them into the queue again.

        :return: their numbers
        """
        stale = self._fail_stale() if self._database else []
        dead = []
        for trial in self.trials():
            if trial.state is TrialState.RUNNING and not self._is_alive(trial):
                with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # another one was first
                    dead.append(self.study.tell(trial.number, state=TrialState.FAIL))
        for trial in dead:
            queue_again(self.study, trial)
        return [*stale, *(trial.number for trial in dead)]

    def _fail_stale(self) -> list[int]:
        running = {trial.number for trial in self.trials() if trial.state is TrialState.RUNNING}
        with experimental():
            optuna.storages.fail_stale_trials(self.study)
        return [trial.number for trial in self.trials() if trial.number in running and trial.state is TrialState.FAIL]

    def _is_alive(self, trial: FrozenTrial) -> bool:
        searcher = trial.user_attrs.get(SEARCHER)
        if searcher is not None:
            return self._database or is_claimed(self.folder / SEARCHERS / searcher)
        # Begun this moment by another process, which is about to sign it
        return trial.datetime_start is not None and (datetime.now() - trial.datetime_start).total_seconds() < SIGNED_AFTER

    def _record_heartbeats(self) -> None:
        for trial in self.trials() if self._database else ():
            if trial.state is TrialState.RUNNING and trial.user_attrs.get(SEARCHER) == self.token:
                self._storage.record_heartbeat(trial._trial_id)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """While this is entered, the trials of this process count as alive."""
        place = self.folder / SEARCHERS / self.token
        place.mkdir(parents=True, exist_ok=True)
        claim = Claim.acquire(place)
        assert claim is not None
        closing = threading.Event()

        def beat() -> None:
            while not closing.wait(HEARTBEAT):
                # A beat that fails must not be the last one
                with contextlib.suppress(Exception):
                    claim.renew()
                with contextlib.suppress(Exception):
                    self._record_heartbeats()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            closing.set()
            thread.join()
            claim.release()
            with contextlib.suppress(OSError):
                place.rmdir()


def existing_study(folder: Path, storage: str | None = None, name: str = "search") -> optuna.Study | None:
    """
    :param folder: folder of a search
    :param storage: URL of an Optuna storage; None for the journal file in the folder
    :param name: name of the study
    :return: the study, to look at; None if there is none
    :raises ValueError: if the folder's study lies elsewhere or is none of a search, or the storage can't be opened
    """
    check_place(folder, storage, name)
    file = folder / JOURNAL_FILE if storage is None else database_file(storage)
    if file is not None and not file.is_file():
        return None
    try:
        study = optuna.load_study(study_name=name, storage=open_storage(folder, storage))
    except KeyError:
        return None
    _check_ours(study, storage)
    return study


def check_agreement(begun_with: dict[str, Any], specification: dict[str, Any], in_database: bool) -> None:
    """
    :param begun_with: what a study was begun with
    :param specification: what it is to go on with
    :param in_database: whether a storage may hold another study beside it
    :raises ValueError: if the two differ
    """
    differing = [name for name in {**begun_with, **specification} if begun_with.get(name) != specification.get(name)]
    if differing:
        raise ValueError(
            f"the study was begun with another specification: {', '.join(differing)} differ. Search in another folder"
            + (" or under another study name" if in_database else "")
        )


def _check_ours(study: optuna.Study, storage: str | None) -> None:
    # In this order: another process that begins the search notes what it is about before the first trial
    foreign = bool(study.get_trials(deepcopy=False)) and SPECIFICATION not in study.user_attrs
    if foreign or _directions(study) not in DIRECTIONS.values():
        raise ValueError(
            f"{described_place(storage, study.study_name)} is not one of sb3-pave tune: choose another --study-name"
        )


def _directions(study: optuna.Study) -> list[str]:
    return [direction.name.lower() for direction in study.directions]
