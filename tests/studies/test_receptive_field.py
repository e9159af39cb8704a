"""Receptive fields by hand, by a slow reference, and by gradients of untouched networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mmdet_ext.studies.pixel_field import Field
from mmdet_ext.studies.receptive_field import layer_fields


def by_notes(layers: list[tuple[int, int]]) -> int:
    """Return the field behind layers of (kernel, stride), by the sum over products of strides."""
    return 1 + sum((k - 1) * math.prod(s for _, s in layers[:i]) for i, (k, _) in enumerate(layers))


def fields(network: nn.Module, size: tuple[int, int] = (64, 96)) -> list[tuple]:
    return [
        (layer.map_size, layer.field, layer.measured, layer.agrees)
        for layer in layer_fields(network, size)
    ]


def test_three_convolutions_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 2, 3, 2, padding=1), nn.Conv2d(2, 2, 3)
    )
    # 1 + 2 = 3, 3 + 2 = 5, and 5 + 2 * 2 = 9.
    assert fields(network) == [
        ((64, 96), 3, 3, True),
        ((32, 48), 5, 5, True),
        ((30, 46), 9, 9, True),
    ]


@pytest.mark.parametrize(
    'layers',
    [[(7, 2), (3, 2), (3, 1), (3, 2)], [(1, 1), (5, 3), (2, 2), (4, 1)], [(11, 4), (5, 1)]],
)
def test_plain_stacks_have_the_field_of_the_formula(layers: list[tuple[int, int]]) -> None:
    network = nn.Sequential(*(nn.Conv2d(3, 3, k, s, padding=k // 2) for k, s in layers))
    got = layer_fields(network, (64, 64))
    assert [layer.field for layer in got] == [by_notes(layers[: i + 1]) for i in range(len(layers))]
    assert all(layer.agrees for layer in got)
    side, sides = 64, []
    for kernel, stride in layers:
        side = (side + 2 * (kernel // 2) - kernel) // stride + 1
        sides.append((side, side))
    assert [layer.map_size for layer in got] == sides


def test_pixels_agree_with_gradients_of_a_network_as_it_is() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=2, dilation=2)
    ).double()
    image = torch.randn(1, 3, 32, 40, dtype=torch.float64, requires_grad=True)
    out = network(image)
    field = Field().window(3, 2, padding=1).window(3, 1, padding=2, dilation=2)
    # Fields of 3 + 2 * 4 = 11 px from pixel 2 unit - 5 on: those of units 3 to 16 lie inside.
    for unit in range(3, 17):
        (slope,) = torch.autograd.grad(out[..., 8, unit].sum(), image, retain_graph=True)
        columns = slope[0].abs().sum(dim=(0, 1)).nonzero()
        assert field.pixels(unit, 40) == (int(columns[0]), int(columns[-1]))


def test_a_maximum_counts_as_its_whole_window() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 7, 2, padding=3), nn.MaxPool2d(3, 2, padding=1))
    assert fields(network) == [((32, 48), 7, 7, True), ((16, 24), 11, 11, True)]


class Branches(nn.Module):
    """Sum of a wide branch and a narrow one, with slices and a stack before them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(12, 4, 5, padding=2)
        self.narrow = nn.Conv2d(12, 4, 1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        x = torch.cat(parts, dim=1)
        return self.last(torch.relu(self.wide(x) + self.narrow(x)))


def test_branches_are_joined() -> None:
    # Each unit of the stack sees 2 px; 2 + 4 * 2 = 10, and 10 + 2 * 2 = 14.
    assert fields(Branches()) == [
        ((32, 48), 10, 10, True),
        ((32, 48), 2, 2, True),
        ((32, 48), 14, 14, True),
    ]


class Squeeze(nn.Module):
    """Map weighed by a mean over itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.weigh = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x * self.weigh(x.mean((2, 3), keepdim=True)).sigmoid())


def test_a_mean_over_the_map_sees_the_whole_image() -> None:
    got = fields(Squeeze())
    assert got == [((64, 96), 3, 3, True), ((64, 96), math.inf, math.inf, True)]


def test_upsampling_by_the_nearest_unit_halves_the_jump() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 3, 2, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1)
    )
    # Three units of the fine map see two of the coarse one: 3 + 2.
    assert fields(network)[1] == ((64, 96), 5, 5, True)
    fine = Field().window(3, 2, padding=1).upsampled(2)
    assert [fine.pixels(unit, 99) for unit in (2, 3, 4)] == [(1, 3), (1, 3), (3, 5)]


class Pyramid(nn.Module):
    """Map of stride 2 joined with one of stride 8 that comes back, by a sum or a stack."""

    def __init__(self, mode: str, stacked: bool) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 2, 3, 2, padding=1)
        self.coarse = nn.Conv2d(2, 2, 5, 4, padding=2)
        self.back = nn.ConvTranspose2d(2, 2, 8, 4, padding=2)
        self.last = nn.Conv2d(4 if stacked else 2, 2, 3, padding=1)
        self.down = nn.Conv2d(2, 2, 3, 2, padding=1)
        self.mode, self.stacked = mode, stacked

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        if self.mode == 'transposed':
            top = self.back(self.coarse(fine))
        else:
            top = nn.functional.interpolate(self.coarse(fine), size=fine.shape[-2:], mode=self.mode)
        return self.down(self.last(torch.cat([fine, top], 1) if self.stacked else fine + top))


@pytest.mark.parametrize('stacked', [False, True])
@pytest.mark.parametrize('mode', ['nearest', 'transposed'])
def test_paths_that_meet_behind_an_upsampling_are_joined(mode: str, stacked: bool) -> None:
    layers = {layer.name: layer for layer in layer_fields(Pyramid(mode, stacked), (64, 96))}
    assert all(layer.agrees for layer in layers.values())
    # 3 + 2 * 4 of the coarse map; its two units that three of the fine one see are 8 px apart.
    assert layers['coarse'].field == 11
    if mode == 'nearest':
        assert layers['last'].field == 11 + 8


def test_no_formula_behind_another_interpolation() -> None:
    layer = layer_fields(Pyramid('bilinear', False), (64, 96))[-1]
    assert layer.field is None and layer.agrees is None and layer.measured > 11


@pytest.mark.parametrize('phase', range(8))
def test_every_phase_has_the_pixels_of_its_gradient(phase: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 3, 2, padding=1),
        nn.Conv2d(2, 2, 3, 2, padding=1),
        nn.Upsample(scale_factor=4),
        nn.Conv2d(2, 2, 5, padding=2),
    ).double()
    for weight in network.parameters():
        nn.init.constant_(weight, 1.0)
    image = torch.ones(1, 3, 16, 64, dtype=torch.float64, requires_grad=True)
    field = Field().window(3, 2, 1).window(3, 2, 1).upsampled(4).window(5, 1, 2)
    (slope,) = torch.autograd.grad(network(image)[..., 8, 24 + phase].sum(), image)
    columns = slope[0].abs().sum(dim=(0, 1)).nonzero()
    assert field.pixels(24 + phase, 64) == (int(columns[0]), int(columns[-1]))


def test_maps_of_other_jumps_do_not_join() -> None:
    with pytest.raises(ValueError, match=r'maps of jumps 2.0 and 1.0 px have no common units'):
        Field().window(1, 2).joined(Field())


def test_a_network_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    layer_fields(network, (16, 16))
    assert network.training and network[0].weight.dtype == torch.float32
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match='network has no convolution; give one that has'):
        layer_fields(nn.ReLU(), (16, 16))
