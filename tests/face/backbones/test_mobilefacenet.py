"""MobileFaceNet: the layers and the size of its paper, learning, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_ext.face.backbones import MobileFaceNet
from tests._helpers.backbones import count, images

# (expansion, channels, number, stride) and the size of the input map, as in table 1.
TABLE = [
    (2, 64, 5, 2, 56),
    (4, 128, 1, 2, 28),
    (2, 128, 6, 1, 14),
    (4, 128, 1, 2, 14),
    (2, 128, 2, 1, 7),
]


def mobilefacenet_count(features: int = 128, cells: int = 49, scale: float = 1) -> dict[str, int]:
    """Count weights of convolutions and PReLUs and channels of BNs from the table of the paper."""
    stem, last = int(64 * scale), int(512 * scale)
    convs, prelus, norms, before = 27 * stem + 9 * stem, 2 * stem, 2 * stem, stem
    for expansion, full, number, _, _ in TABLE:
        channels = int(full * scale)
        for _ in range(number):
            hidden = expansion * before
            convs += before * hidden + 9 * hidden + hidden * channels
            prelus += 2 * hidden
            norms += 2 * hidden + channels
            before = channels
    convs += before * last + cells * last + last * features
    return {'convs': convs, 'prelus': prelus + last, 'norms': norms + 2 * last + features}


def test_size_is_that_of_the_paper() -> None:
    parts = mobilefacenet_count()
    model = MobileFaceNet()
    assert count(model) == parts['convs'] + parts['prelus'] + 2 * parts['norms'] == 1_003_136
    # A BN folded into its convolution leaves one bias per channel.
    assert parts['convs'] + parts['prelus'] + parts['norms'] == 993_344  # 0.99 million
    small = mobilefacenet_count(64, cells=12, scale=0.5)
    assert count(MobileFaceNet(64, width=0.5, input_size=(64, 48))) == (
        small['convs'] + small['prelus'] + 2 * small['norms']
    )


def test_layers_are_those_of_the_table() -> None:
    model, seen = MobileFaceNet().eval(), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda m, args, _: seen.append(
                    (
                        args[0].shape[2],
                        m.in_channels,
                        m.out_channels,
                        m.kernel_size[0],
                        m.stride[0],
                        m.groups > 1,
                    )
                )
            )
    model(images(1, (112, 112)))
    expected, before = [(112, 3, 64, 3, 2, False), (56, 64, 64, 3, 1, True)], 64
    for expansion, channels, number, stride, size in TABLE:
        for index in range(number):
            hidden, by = expansion * before, stride if index == 0 else 1
            expected += [(size, before, hidden, 1, 1, False), (size, hidden, hidden, 3, by, True)]
            size //= by
            expected += [(size, hidden, channels, 1, 1, False)]
            before = channels
    expected += [(7, 128, 512, 1, 1, False), (7, 512, 512, 7, 1, True), (1, 512, 128, 1, 1, False)]
    assert seen == expected
    # Blocks that keep size and channels add their input: 4 + 0 + 6 + 0 + 2.
    blocks = list(model.blocks)
    assert [block.residual for block in blocks] == (
        [False] + [True] * 4 + [False] + [True] * 6 + [False] + [True] * 2
    )
    assert sum(isinstance(m, nn.PReLU) for m in model.modules()) == 2 + 2 * 15 + 1


def test_bottleneck_adds_its_input() -> None:
    block = MobileFaceNet(width=0.25).blocks[1].eval()
    x = torch.randn(2, 16, 5, 4)
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        convs[-1].weight.zero_()
    torch.testing.assert_close(block(x), x)


@pytest.mark.slow
def test_network_learns_real_faces(shared_data: Path) -> None:
    """After a few steps the cosine to centres separates four people of ORL."""
    import cv2

    faces = [
        cv2.imread(str(shared_data / 'orl' / f's{person}' / f'{k}.pgm'))
        for person in range(1, 5)
        for k in range(1, 9)
    ]
    assert all(face is not None for face in faces)
    x = torch.tensor([cv2.resize(face, (48, 56)).tolist() for face in faces if face is not None])
    x = (x.permute(0, 3, 1, 2) - 127.5) / 128
    labels = torch.arange(4).repeat_interleave(8)
    torch.manual_seed(0)
    model = MobileFaceNet(32, width=0.25, input_size=(56, 48))
    model.init_weights()
    centers = nn.Parameter(torch.randn(4, 32))
    optimiser = torch.optim.SGD([*model.parameters(), centers], lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        logits = 16 * F.normalize(model(x)[0]) @ F.normalize(centers).T
        losses.append(F.cross_entropy(logits, labels))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0] > 1 and losses[-1] < 0.05
    assert logits.argmax(1).equal(labels)


@pytest.mark.parametrize('width', [0, -1, float('nan'), float('inf')])
def test_wrong_options_are_named(width: float) -> None:
    with pytest.raises(ValueError, match='width must be a finite factor above 0'):
        MobileFaceNet(width=width)
    with pytest.raises(ValueError, match='num_features must be a whole number'):
        MobileFaceNet(num_features=-1)
