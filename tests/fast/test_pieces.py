"""Tensors in pieces are the same tensors, and Adam's step on them is PyTorch's fused one, bit for bit."""

import copy

import pytest
import torch as th
from torch import nn

import sb3_pave.fast.targets as targets
from sb3_pave.fast.fused_adam import step_in_pieces
from sb3_pave.fast.pieces import _SIZE, in_pieces


def test_pieces_are_views_each_beside_its_counterpart():
    large, other = th.arange(2 * _SIZE + 5.0).view(-1, 1), th.ones(1, 2 * _SIZE + 5)
    step = th.tensor(3.0)
    first, second, steps = in_pieces([large, th.ones(3)], [other, th.zeros(3)], [step, step])
    assert [len(piece) for piece in first] == [_SIZE, _SIZE, 5, 3] == [piece.numel() for piece in second]
    assert th.equal(th.cat(first[:3]), large.flatten())
    assert all(piece is step for piece in steps)
    for piece in first:
        piece.zero_()
    assert not large.any()


def test_what_does_not_lie_in_one_piece_is_left_whole():
    transposed = th.ones(2, _SIZE).T
    (whole,), (other,) = in_pieces([transposed], [th.ones(_SIZE, 2)])
    assert whole is transposed and other.shape == transposed.shape


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.AdamW])
@pytest.mark.parametrize("kwargs", [{}, {"amsgrad": True}, {"weight_decay": 0.1, "maximize": True}])
def test_a_step_in_pieces_is_the_fused_step(optimizer_class, kwargs):
    th.manual_seed(0)
    ours = nn.Sequential(nn.Linear(30, 300), nn.SiLU(), nn.Linear(300, 1))
    unused = nn.Parameter(th.ones(2))
    theirs = copy.deepcopy(ours)
    optimizers = [
        optimizer_class([*network.parameters(), unused], lr=1e-2, fused=True, **kwargs) for network in (ours, theirs)
    ]
    for _ in range(4):
        inputs = th.randn(8, 30)
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            network(inputs).square().mean().backward()
        step_in_pieces(optimizers[0])
        optimizers[1].step()
    assert all(map(th.equal, ours.parameters(), theirs.parameters()))
    states = [[value for state in optimizer.state.values() for value in state.values()] for optimizer in optimizers]
    assert len(states[0]) == len(states[1]) > 0 and all(map(th.equal, *states))


def test_targets_in_pieces_follow_as_whole_ones_do():
    th.manual_seed(0)
    parameters, followers = [th.randn(90, 200), th.randn(7)], [th.randn(90, 200), th.randn(7)]
    whole = copy.deepcopy(followers)
    targets.follow(parameters, whole, 0.005)
    targets.follow(*in_pieces(parameters, followers), 0.005)
    assert all(map(th.equal, followers, whole))
