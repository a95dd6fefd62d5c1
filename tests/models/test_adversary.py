"""Gradient reversal and the adversarial loss, on numbers worked out by hand."""

import math

import torch
from torch import nn
from torch.testing import assert_close

from anysubset.models.adversary import adversarial_loss, reversed_gradient, strided


def test_the_gradient_is_multiplied_by_minus_the_factor():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = reversed_gradient(x, 0.5)
    assert_close(y, x, rtol=0, atol=0)
    (y * torch.tensor([3.0, 4.0])).sum().backward()
    assert_close(x.grad, torch.tensor([-1.5, -2.0]))


def test_the_discriminator_learns_the_labels_and_the_student_the_opposite():
    # D(x) = w x with w = 1, full network 0, student 0: both terms are ln 2, and half of their sum is ln 2.
    discriminator = nn.Linear(1, 1, bias=False)
    nn.init.ones_(discriminator.weight)
    full, student = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    loss = adversarial_loss(discriminator, full, student, weight=0.1)
    assert_close(loss, torch.tensor(math.log(2)))
    loss.backward()
    # d/dz of the student's term -ln sigma(z) at 0 is -1/2, halved -1/4, times -2 x 0.1 is +0.05: descent lowers z,
    # towards label 0 of the full network.
    assert_close(student.grad, torch.tensor([[0.05]]))
    assert full.grad is None


def test_strided_convolutions_halve_every_axis():
    layers = strided((3, 4, 5), dimensions=3)
    assert layers(torch.randn(1, 3, 8, 8, 4)).shape == (1, 5, 2, 2, 1)
    assert [type(layer).__name__ for layer in layers] == ["Conv3d", "LeakyReLU", "Conv3d"]
