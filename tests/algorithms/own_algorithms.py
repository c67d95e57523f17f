"""What users make of SB3's algorithms. Nothing here knows of PAVE."""

import torch as th
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.sac.policies import SACPolicy
from torch import nn
from torch.nn import functional as F


class ScaledCritic(ContinuousCritic):
    """Critics with a forward pass of their own."""

    def forward(self, obs, actions):
        return tuple(2.0 * q for q in super().forward(obs, actions))


class OwnNetworks(SACPolicy):
    """Its own critic, and no choice of activation."""

    def __init__(self, observation_space, action_space, lr_schedule, use_sde=False):
        super().__init__(observation_space, action_space, lr_schedule, [16, 16], nn.Tanh, use_sde)

    def make_critic(self, features_extractor=None):
        return ScaledCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)


class OwnBuffer(ReplayBuffer):
    """Counts its batches."""

    batches = 0

    def sample(self, batch_size, env=None):
        self.batches += 1
        return super().sample(batch_size, env=env)


class MySAC(SAC):
    """Its own networks, buffer and argument; SB3's ``train()``."""

    def __init__(self, policy, env, reward_scale=1.0, **kwargs):
        super().__init__(policy, env, replay_buffer_class=OwnBuffer, **kwargs)
        self.reward_scale = reward_scale

    def _store_transition(self, replay_buffer, buffer_action, new_obs, reward, dones, infos):
        super()._store_transition(replay_buffer, buffer_action, new_obs, self.reward_scale * reward, dones, infos)


def with_own_train(host):
    """The host with a ``train()`` that does what the host's does, and counts."""

    class OwnTrain(host):
        calls = 0

        def train(self, *args, **kwargs):
            self.calls += 1
            super().train(*args, **kwargs)

    OwnTrain.__name__ = f"Own{host.__name__}"
    return OwnTrain


OWN_TRAIN = {host: with_own_train(host) for host in (TD3, SAC, DDPG, TQC, CrossQ)}


class RobustSAC(SAC):
    """A ``train()`` of its own: Huber loss, clipped gradients, two critic steps a batch."""

    def train(self, gradient_steps, batch_size=64):
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, self._vec_normalize_env)
            with th.no_grad():
                next_actions, log_prob = self.actor.action_log_prob(batch.next_observations)
                next_q = th.cat(self.critic_target(batch.next_observations, next_actions), dim=1).amin(dim=1, keepdim=True)
                target = batch.rewards + (1 - batch.dones) * self.gamma * (next_q - 0.1 * log_prob.reshape(-1, 1))
            for _ in range(2):
                loss = sum(F.huber_loss(q, target) for q in self.critic(batch.observations, batch.actions))
                self.critic.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.critic.parameters(), 1.0)
                self.actor.zero_grad(set_to_none=True)
                self.critic.optimizer.step()
                assert all(parameter.grad is None for parameter in self.actor.parameters())
            self._n_updates += 1


class RegressionAgent(OffPolicyAlgorithm):
    """No subclass of any algorithm of SB3: its critics regress on rewards, and its actor does not learn."""

    def __init__(self, policy, env, learning_rate=1e-3, _init_setup_model=True, **kwargs):
        super().__init__(policy, env, learning_rate, sde_support=False, supported_action_spaces=(spaces.Box,), **kwargs)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self):
        super()._setup_model()
        self.actor, self.critic = self.policy.actor, self.policy.critic

    def _excluded_save_params(self):
        return [*super()._excluded_save_params(), "actor", "critic"]

    def train(self, gradient_steps, batch_size=64):
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size)
            loss = sum(F.mse_loss(q, batch.rewards) for q in self.critic(batch.observations, batch.actions))
            self.critic.optimizer.zero_grad()
            loss.backward()
            self.critic.optimizer.step()
            self._n_updates += 1
