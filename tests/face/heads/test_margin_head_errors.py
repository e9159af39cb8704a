"""Margin head: errors for options, labels and features."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests._helpers.face.margin_heads import PATHS, Sample, build_head, elements, samples

# The catalog's margins per class are for seven classes.
CLASSES, CHANNELS = 7, 8


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(margin=dict(type='ArcFase')), KeyError, "'ArcFase'; did you mean 'ArcFace'"),
        (dict(margin=dict(type='mmdet_ext.CosFase')), KeyError, "did you mean 'CosFace'"),
        (dict(margin=dict(type='Magic')), KeyError, "'Magic'.*AdaFace, ArcFace, .*UniFace"),
        (
            dict(margin=dict(type='mmpretrain.ArcFaceClsHead')),
            KeyError,
            'mmpretrain.ArcFaceClsHead',
        ),
        (
            dict(margin=dict(type='torch.nn.Linear', in_features=1)),
            KeyError,
            'no margin named .torch',
        ),
        (dict(margin='ArcFase'), KeyError, "did you mean 'ArcFace'"),
        (
            dict(margin=dict(type='mmdet.ArcFace')),
            KeyError,
            "no margin named 'mmdet.ArcFace'; there are, with or without 'mmdet_ext.': AdaFace, "
            'ArcFace',
        ),
        (dict(margin=dict(type=nn.Linear)), KeyError, 'no margin named .*Linear'),
        (dict(margin=0.5), TypeError, r"margin must be dict\(type='ArcFace', ...\) or .*, got 0.5"),
        (dict(margin=dict(m=0.5)), TypeError, r"margin must be dict\(type='ArcFace', ...\)"),
        (dict(margin=dict(type='ArcFace', margin=0.5)), TypeError, "no option 'margin'.*m, easy_m"),
        (
            dict(margin=dict(type='ArcFace', easy_margn=True)),
            TypeError,
            "did you mean 'easy_margin'",
        ),
        (dict(margin=None), ValueError, r"give a margin, such as margin=dict\(type='ArcFace'\)"),
        (dict(num_class=3), TypeError, "no option 'num_class'; did you mean 'num_classes'"),
        (dict(num_classes=0), ValueError, 'num_classes must be a whole number from 1 on, got 0'),
        (dict(in_channels=2.5), ValueError, 'in_channels must be a whole number.*2.5'),
        (dict(num_subcenters=0), ValueError, 'num_subcenters must be'),
        (dict(embedding_channels=0), ValueError, 'embedding_channels must be .* got 0'),
        (dict(embedding_channels=-4), ValueError, 'embedding_channels must be .* got -4'),
        (dict(scale=0), ValueError, 'scale must be above 0 and finite, got 0'),
        (dict(scale=math.inf), ValueError, 'scale must be above 0 and finite, got inf'),
        (dict(scale=math.nan), ValueError, 'scale must be above 0'),
        (dict(scale='auto'), ValueError, "scale must be above 0 and finite, got 'auto'"),
        (dict(scale=True), ValueError, 'scale must be above 0 and finite, got True'),
        (dict(loss_weight=-1), ValueError, 'loss_weight must be at least 0 and finite, got -1'),
        (dict(loss_weight=math.nan), ValueError, 'loss_weight must be at least 0 .* got nan'),
        (dict(num_classes='7'), ValueError, "num_classes must be a whole number .* got '7'"),
        (dict(num_classes=None), ValueError, 'num_classes must be a whole number .* got None'),
        (dict(num_classes=math.inf), ValueError, 'num_classes must be a whole number .* got inf'),
        (dict(neck='linear'), ValueError, "neck must be one of .*'bn-fc-bn'.*, got 'linear'"),
        (
            dict(neck='none', embedding_channels=4),
            ValueError,
            '=4 differs from in_channels=8.*a neck',
        ),
        (dict(neck='fc', dropout=0.1), ValueError, "dropout=0.1 is for neck='bn-dropout-fc-bn'"),
        (dict(path='fast'), ValueError, "path must be one of .*'auto', 'plain', 'exact'.*'fast'"),
        (
            dict(flip_fusion='mean'),
            ValueError,
            "flip_fusion must be one of .*'concat', 'sum'.*'mean'",
        ),
        (dict(aux_losses=[dict(type='FocalLoss')]), TypeError, 'losses on features and labels'),
        (dict(aux_losses=[dict(type='TripleLoss')]), KeyError, "did you mean 'TripletLoss'"),
        (
            dict(aux_losses=[dict(type='Trip')]),
            KeyError,
            "which are CenterLoss, ContrastiveLoss, TripletLoss; got 'Trip'",
        ),
        (
            dict(aux_losses=[dict(type='mmdet.TripletLoss')]),
            TypeError,
            'which are .*mmdet.TripletLoss',
        ),
        (
            dict(aux_losses=[dict(margin=1)]),
            TypeError,
            r"list of dict\(type='TripletLoss', ...\), got",
        ),
        (dict(aux_losses='TripletLoss'), TypeError, r"list of dict\(type='TripletLoss', .* 'T' in"),
        (
            dict(aux_losses=[dict(type='CenterLoss', num_classes=5)]),
            ValueError,
            'num_classes=5 of CenterLoss in aux_losses differs from 7 of the head: leave it out',
        ),
        (
            dict(aux_losses=[dict(type='CenterLoss', in_channels=8)], embedding_channels=4),
            ValueError,
            'in_channels=8 of CenterLoss in aux_losses differs from 4 of the head',
        ),
        (dict(margin=None, aux_losses=None), ValueError, 'give a margin'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build_head(**options)


@pytest.mark.parametrize('path', PATHS)
def test_labels_out_of_range_are_counted_and_the_image_is_named(path: str) -> None:
    head = build_head(path=path)
    data = samples([0, 3, 7, 6, -1])
    for i, sample in enumerate(data):
        sample.img_path = f'faces/{i}.png'
    message = (
        r'2 of 5 labels are not from 0 to 6 \(num_classes=7\), the first is 7 of '
        r'faces/2.png: compare num_classes'
    )
    with pytest.raises(ValueError, match=message):
        head.loss((torch.randn(5, CHANNELS),), data)
    with pytest.raises(ValueError, match='1 of 1 labels .* the first is 9: compare'):
        head.loss((torch.randn(1, CHANNELS),), samples([9]))


def test_unusable_labels_are_errors() -> None:
    head, x = build_head(), torch.randn(2, CHANNELS)
    with pytest.raises(ValueError, match='gt_score: a margin is for one identity.*Mixup, CutMix'):
        head.loss((x,), samples([0, 1], gt_score=torch.tensor([0.5, 0.5])))
    with pytest.raises(
        ValueError, match='data sample 1 has no gt_label, the identity of its image'
    ):
        head.loss((x,), [*samples([0]), Sample()])
    with pytest.raises(ValueError, match='data sample 0 has no gt_label'):
        head.loss((x,), elements(2))
    with pytest.raises(ValueError, match='hold 3 labels for 2 images: one each'):
        head.loss((x,), [Sample(gt_label=torch.tensor([0, 1])), Sample(gt_label=torch.tensor([2]))])
    with pytest.raises(ValueError, match='labels must be whole numbers, got torch.float32'):
        head.loss((x,), samples(torch.tensor([0.0, 1.0])))


def test_features_with_other_channels_are_errors() -> None:
    for head in (build_head(), build_head(neck='fc')):
        with pytest.raises(ValueError, match=r'in_channels is 8, the features are \(2, 9\)'):
            head.loss((torch.randn(2, 9),), samples([0, 1]))
