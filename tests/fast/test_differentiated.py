"""Steps down losses: the gradients of ``backward()``, without the nodes that accumulate them where nobody needs them."""

import pytest
import torch as th
from torch import nn

from sb3_pave.fast.differentiated import Differentiated, descend


def network():
    th.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def losses(module):
    inputs = th.linspace(-1, 1, 12).reshape(4, 3)
    return module(inputs).square().mean(), module(inputs).exp().mean()


def plain(module):
    pass


def with_a_hook(module):
    module[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))


def with_a_hook_afterwards(module):
    def halve(parameter):
        parameter.grad = parameter.grad / 2

    module[2].bias.register_post_accumulate_grad_hook(halve)


@pytest.mark.parametrize("prepare", [plain, with_a_hook, with_a_hook_afterwards])
def test_the_step_is_that_of_backward(prepare):
    ours, theirs = network(), network()
    for module in (ours, theirs):
        prepare(module)
        module[0].bias.requires_grad_(False)
    optimizers = [th.optim.SGD(module.parameters(), lr=0.1) for module in (ours, theirs)]
    for _ in range(2):
        descend(optimizers[0], *losses(ours))
        optimizers[1].zero_grad()
        sum(losses(theirs)).backward()
        optimizers[1].step()
    for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        th.testing.assert_close(parameter, expected)
        assert (parameter.grad is None) == (expected.grad is None)


def test_an_optimizer_that_keeps_gradients_accumulates_them():
    class EverySecond(th.optim.SGD):
        calls = 0

        def zero_grad(self, set_to_none=True):
            if self.calls % 2 == 0:
                super().zero_grad(set_to_none)

        def step(self, closure=None):
            self.calls += 1
            if self.calls % 2 == 0:
                super().step(closure)

    ours, theirs = network(), network()
    first = EverySecond(ours.parameters(), lr=0.1)
    second = th.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(2):
        for loss in losses(ours):
            descend(first, loss)
        descend(second, *losses(theirs))
    for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        th.testing.assert_close(parameter, expected)


def test_hooks_see_the_gradient_of_the_sum_also_where_a_part_comes_with_its_own():
    module = network()
    first, second = losses(module)
    of_first, of_second = (th.autograd.grad(loss, [*module.parameters()], retain_graph=True) for loss in (first, second))
    seen = []
    module[0].weight.register_hook(seen.append)
    module[2].weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.clone()))
    descend(th.optim.SGD(module.parameters(), lr=0.1), first, Differentiated(second, (*module.parameters(),), of_second))
    expected = [of_first[i] + of_second[i] for i in (0, 2)]
    assert len(seen) == 2
    for gradient in expected:
        assert any(one.shape == gradient.shape and th.allclose(one, gradient) for one in seen)


@pytest.mark.parametrize("hooked", [False, True])
def test_accumulating_nodes_take_part_only_where_a_hook_needs_them(hooked):
    module = network()
    if hooked:
        with_a_hook(module)
    node, passes = module[2].weight.view(-1).grad_fn.next_functions[0][0], []
    node.register_hook(lambda *_: passes.append(1))
    descend(th.optim.SGD(module.parameters(), lr=0.1), losses(module)[0])
    assert bool(passes) is hooked


def test_other_networks_get_no_gradient():
    actor, critic = network(), nn.Linear(1, 1)
    descend(th.optim.SGD(actor.parameters(), lr=0.1), critic(losses(actor)[0].reshape(1, 1)).sum())
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_two_parameters_with_one_gradient_have_it_in_two_places():
    first, second = nn.Parameter(th.ones(3)), nn.Parameter(th.ones(3))
    descend(th.optim.SGD([first, second], lr=0.1), (first + second).square().sum())
    first.grad.mul_(0)
    assert th.equal(second.grad, th.full((3,), 4.0))


def test_gradients_that_came_with_the_loss_go_on_through_a_graph():
    weight = nn.Parameter(th.tensor([1.0, 2.0]))
    features = weight * 3
    loss = Differentiated(th.zeros(()), (weight, features), (th.tensor([1.0, 1.0]), th.tensor([10.0, 20.0])))
    descend(th.optim.SGD([weight], lr=0.0), loss)
    assert th.equal(weight.grad, th.tensor([31.0, 61.0]))


def test_what_is_frozen_while_it_trains_stays_where_it_is():
    ours, theirs = network(), network()
    optimizers = [th.optim.Adam(module.parameters(), lr=0.1) for module in (ours, theirs)]
    for frozen in (0, 1, 2):
        # A layer, then all: it has the gradient, and Adam's averages, of the step before
        ours[0].requires_grad_(frozen == 0), theirs[0].requires_grad_(frozen == 0)
        ours[2].requires_grad_(frozen < 2), theirs[2].requires_grad_(frozen < 2)
        descend(optimizers[0], *losses(ours))
        optimizers[1].zero_grad()
        if frozen < 2:
            sum(losses(theirs)).backward()
        optimizers[1].step()
        for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
            th.testing.assert_close(parameter, expected)
