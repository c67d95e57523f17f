"""ASAP, whose actor follows a prediction of its next action: Kwak and Hwang, AAAI 2026, arXiv 2601.18479."""

from contextlib import ExitStack
from typing import Any

import torch as th

from sb3_pave.algorithms.loading import is_loading
from sb3_pave.baselines.additive import AdditiveMethod
from sb3_pave.baselines.methods.grad import second_difference_loss
from sb3_pave.baselines.predictor import Predictor, actions_and_latents, last_hidden_layer
from sb3_pave.baselines.transitions import Transitions, weighted_mean
from sb3_pave.fast.update_log import UpdateLog


def following_loss(next_actions: th.Tensor, predicted: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """
    ``½ MSE(π(s'), P̄(s))``, means over batch and action dimensions: the next action is pulled to its prediction.

    :param next_actions: ``π(s')``, shape (batch, action_dim)
    :param predicted: ``P̄(s)`` of the moving average, which gets no gradient, likewise
    :param weight: 1 for the transitions that count, else 0, shape (batch,)
    """
    return 0.5 * weighted_mean((next_actions - predicted.detach()).square().mean(dim=1), weight)


def prediction_loss(predicted: th.Tensor, next_actions: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """
    ``½ MSE(P(s), sg π(s'))``, means over batch and action dimensions: the prediction learns the next action.

    :param predicted: ``P(s)``, shape (batch, action_dim)
    :param next_actions: ``π(s')``, which gets no gradient, likewise
    :param weight: 1 for the transitions that count, else 0, shape (batch,)
    """
    return 0.5 * weighted_mean((predicted - next_actions.detach()).square().mean(dim=1), weight)


class Asap(AdditiveMethod):
    """
    An SB3 actor-critic whose actor also descends
    ``temporal_coef · GRAD + spatial_coef · ½ MSE(π(s'), P̄(s)) + predictor_coef · ½ MSE(P(s), sg π(s'))``: ``P`` predicts the
    next action from the actor's last hidden layer, ``P̄`` is its moving average, together with the actor's.

    ``P`` and ``P̄`` are saved beside the policy, so that the host reads the zip as its own, and ``asap(host).load`` continues
    with them; an agent that was trained without them in between starts them afresh, as a new one does.

    :param args: the host's positional arguments
    :param temporal_coef: ``λT``, weight of GRAD's loss, see ``second_difference_loss``
    :param spatial_coef: ``λS``, weight of the next action's distance from its prediction
    :param predictor_coef: ``λP``, weight of the prediction's own loss, which trains the actor's hidden layers, too
    :param predictor_tau: ``τ``, step of the moving average at each gradient step
    :param kwargs: the host's keyword arguments
    :raises ValueError: if a weight is negative or not finite, if ``predictor_tau`` is not in [0, 1], or if the replay buffer
        is one with hindsight
    :raises TypeError: if the actor has no last hidden layer to predict from
    """

    method = "asap"
    terms = ("temporal", "spatial", "predictor")
    hyperparameters = ("temporal_coef", "spatial_coef", "predictor_coef", "predictor_tau")
    needs_predecessor = True

    _predictor: Predictor | None = None

    def __init__(
        self,
        *args: Any,
        temporal_coef: float = 0.05,
        spatial_coef: float = 0.3,
        predictor_coef: float = 2.0,
        predictor_tau: float = 0.01,
        **kwargs: Any,
    ):
        self.temporal_coef = temporal_coef
        self.spatial_coef = spatial_coef
        self.predictor_coef = predictor_coef
        self.predictor_tau = predictor_tau
        # What save() writes of the predictor
        self.asap_state: bytes | None = None
        super().__init__(*args, **kwargs)

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.predictor_tau > 1:
            raise ValueError(f"predictor_tau must be in [0, 1], not {self.predictor_tau}.")

    def _setup_model(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_model(*args, **kwargs)
        last_hidden_layer(self.actor)
        self._predictor = None

    def _terms(self, batch: Transitions) -> dict[str, th.Tensor]:
        assert batch.previous_observations is not None and batch.has_both is not None
        states = (batch.previous_observations, batch.observations, batch.next_observations)
        (previous, actions, next_actions), (_, latent, _) = actions_and_latents(self.actor, *states)
        terms = {}
        if self.temporal_coef > 0:
            terms["temporal"] = second_difference_loss(previous, actions, next_actions, batch.has_both)
        if self.spatial_coef > 0:
            predicted = self._ready_predictor().average_prediction(batch.observations)
            terms["spatial"] = following_loss(next_actions, predicted, batch.has_next)
        if self.predictor_coef > 0:
            predicted = self._ready_predictor().predict(latent)
            terms["predictor"] = prediction_loss(predicted, next_actions, batch.has_next)
        return terms

    def _trained(self, optimizer: th.optim.Optimizer) -> list[th.Tensor]:
        head = [] if self._predictor is None else self._predictor.head.parameters()
        return [*super()._trained(optimizer), *head]

    def _join(self, optimizer: th.optim.Optimizer, batch: Transitions, log: UpdateLog) -> None:
        super()._join(optimizer, batch, log)
        if self._predictor is not None:
            self._predictor.step(optimizer.param_groups[0]["lr"])

    def _join_further(self, until_trained: ExitStack) -> None:
        if self.asap_state is not None:
            # A restored average moves from the first gradient step on
            self._ready_predictor()
        # The critic learns at every gradient step, TD3's actor at some of them
        hook = self.critic.optimizer.register_step_pre_hook(self._before_critic_step)
        until_trained.callback(hook.remove)

    def _before_critic_step(self, *_: Any) -> None:
        if self._predictor is not None:
            self._predictor.update_average(self.predictor_tau)

    def _ready_predictor(self) -> Predictor:
        """Made when it is first needed: its actor is loaded by then, and no random number is drawn before the host's."""
        if self._predictor is None:
            self._predictor = Predictor(self.actor, self.policy.optimizer_class, self.policy.optimizer_kwargs)
            if self.asap_state is None or not self._predictor.restore(self.asap_state, self._n_updates):
                self._predictor.start()
            self.asap_state = None
        return self._predictor

    def set_parameters(self, *args: Any, **kwargs: Any) -> None:
        """
        As the host's; the average of another actor is given up.

        :param args: the host's positional arguments
        :param kwargs: the host's keyword arguments
        """
        super().set_parameters(*args, **kwargs)
        self._predictor = None
        if not is_loading():
            self.asap_state = None

    def save(self, *args: Any, **kwargs: Any) -> None:
        """
        As the host's, with ``P`` and ``P̄`` among the agent's data.

        :param args: the host's positional arguments
        :param kwargs: the host's keyword arguments
        """
        if self._predictor is None:
            super().save(*args, **kwargs)
            return
        self.asap_state = self._predictor.dumped(self._n_updates)
        try:
            super().save(*args, **kwargs)
        finally:
            # The predictor goes on; whoever gives it up gives up its state
            self.asap_state = None

    def _excluded_save_params(self, *args: Any, **kwargs: Any) -> list[str]:
        return [*super()._excluded_save_params(*args, **kwargs), "_predictor"]
