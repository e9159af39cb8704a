"""Cases of the contract table for faces.

Options suit heads of `CLASSES` classes on features of `CHANNELS` numbers, images of `INPUT_SIZE`,
and the files that `mmdet_ext.data.synthetic.faces.make_faces` writes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.data.face.templates import TemplateTable
from mmdet_ext.data.synthetic.faces import FOLDS, TRAINED

CLASSES = 7
CHANNELS = 8
#: Side of the images for the backbones of the table, px.
INPUT_SIZE = 32
#: Class counts from 3 to 192, whose margins span the whole range from low to high.
_COUNTS = [3 * 2**k for k in range(CLASSES)]
#: 12 templates of two images, two templates per identity, and all of their 66 pairs.
_PAIRS = [(one, other) for one in range(12) for other in range(one + 1, 12)]
_TEMPLATES = TemplateTable(
    image=range(24),
    template=[image // 2 for image in range(24)],
    medium=range(24),
    pairs=_PAIRS,
    same=[one // 2 == other // 2 for one, other in _PAIRS],
)


CASES = (
    Case('margin', 'Softmax'),
    Case('margin', 'Softmax', {'bias': True}),
    Case('margin', 'NormFace'),
    Case('margin', 'LSoftmax'),
    Case('margin', 'LSoftmax', {'m': 3, 'lambda_max': 0, 'lambda_min': 0}),
    Case('margin', 'SphereFace'),
    *(
        Case('margin', 'SphereFace', {'m': m, 'lambda_max': 0.0, 'lambda_min': 0.0})
        for m in (1, 2, 3, 4)
    ),
    Case('margin', 'CosFace'),
    Case('margin', 'CosFace', {'m': 0}),
    Case('margin', 'CosFace', {'m': 1}),
    Case('margin', 'CosFace', {'m': [0.1 * k for k in range(CLASSES)]}),
    Case('margin', 'ArcFace'),
    Case('margin', 'ArcFace', {'m': 0}),
    Case('margin', 'ArcFace', {'m': 1}),
    Case('margin', 'ArcFace', {'easy_margin': True}),
    Case('margin', 'ArcFace', {'gradient': 'straight_through'}),
    Case('margin', 'ArcFace', {'m': {'counts': _COUNTS}}),
    Case('margin', 'CombinedMargin'),
    Case('margin', 'CombinedMargin', {'m1': 2, 'm2': 0, 'm3': 0}),
    Case('margin', 'CombinedMargin', {'m1': 1.35, 'm2': 0.2, 'm3': 0.1}),
    Case('margin', 'AdaFace'),
    Case('margin', 'CurricularFace'),
    Case('margin', 'MagFace', {'norms': (1.0, 5.0)}),
    *(Case('margin', 'SphereFaceR', {'version': version}) for version in ('v0', 'v1', 'v2')),
    Case('margin', 'UniFace'),
    Case(
        'feature loss',
        'CenterLoss',
        {'num_classes': CLASSES, 'in_channels': CHANNELS},
        zero_on='no sample',
        remembers=True,
    ),
    Case(
        'feature loss',
        'CenterLoss',
        {'num_classes': CLASSES, 'in_channels': CHANNELS, 'form': 'learnable'},
        zero_on='no sample',
    ),
    Case('feature loss', 'TripletLoss', twin=True, zero_on='one identity'),
    Case(
        'feature loss',
        'TripletLoss',
        {'mining': 'semi_hard', 'distance': 'cosine'},
        zero_on='one identity',
    ),
    Case(
        'feature loss',
        'TripletLoss',
        {'mining': 'batch_all', 'distance': 'squared_euclidean', 'normalize': True},
        zero_on='one identity',
    ),
    Case('feature loss', 'ContrastiveLoss'),
    Case('feature loss', 'ContrastiveLoss', {'distance': 'cosine', 'balance': True}),
    Case(
        'face head',
        'MarginHead',
        {'num_classes': CLASSES, 'in_channels': CHANNELS, 'margin': {'type': 'ArcFace'}},
    ),
    Case(
        'face head',
        'MarginHead',
        {
            'num_classes': CLASSES,
            'in_channels': CHANNELS,
            'margin': {'type': 'CosFace'},
            'sample_rate': 0.5,
            'filter_threshold': 0.9,
        },
    ),
    Case(
        'face head',
        'ShardedMarginHead',
        {
            'num_classes': CLASSES,
            'in_channels': CHANNELS,
            'margin': {'type': 'ArcFace'},
            'sample_rate': 0.5,
        },
    ),
    Case('model wrapper', 'ShardedHeadDDP'),
    Case(
        'backbone',
        'IResNet',
        {'depth': 18, 'base_channels': 8, 'num_features': CHANNELS, 'input_size': INPUT_SIZE},
    ),
    Case(
        'backbone',
        'MobileFaceNet',
        {'width': 0.25, 'num_features': CHANNELS, 'input_size': INPUT_SIZE},
    ),
    Case('preprocessor', 'FaceDataPreprocessor'),
    Case('face data set', 'FaceFolderDataset', {}, images=16, identities=8, folder='faces'),
    Case(
        'face data set',
        'FaceFolderDataset',
        {'identities': list(TRAINED)},
        images=8,
        identities=4,
        folder='faces',
    ),
    Case('face data set', 'FaceRecordDataset', {}, images=8, identities=4),
    Case(
        'face data set',
        'FacePairsDataset',
        {'ann_file': 'pairs.txt', 'data_prefix': 'faces'},
        images=8,
        identities=4,
        divisible=False,
    ),
    Case(
        'face data set',
        'FacePairsDataset',
        {'ann_file': 'pairs.csv', 'data_prefix': 'faces'},
        images=8,
        identities=0,
        divisible=False,
    ),
    Case(
        'face data set',
        'FacePairsDataset',
        {'ann_file': 'pairs.bin', 'folds': FOLDS},
        images=8,
        identities=0,
        divisible=False,
    ),
    Case(
        'face data set',
        'FaceTemplatesDataset',
        {
            'ann_file': 'templates.txt',
            'pair_file': 'template_pairs.txt',
            'data_prefix': 'faces',
        },
        images=8,
        identities=0,
        divisible=False,
    ),
    # 533 of the 1,797 digits are a 7, 8 or 9.
    Case(
        'face data set', 'DigitsDataset', {'digits': (7, 8, 9)}, images=533, identities=3, root=None
    ),
    Case('transform', 'AlignFace'),
    Case('transform', 'LoadFace'),
    Case(
        'data sampler',
        'IdentityBalancedSampler',
        {'identities_per_batch': 2, 'pictures_per_identity': 2},
    ),
    Case('metric', 'FaceVerificationMetric', {'pairs': 'all'}),
    Case('metric', 'FaceIdentificationMetric'),
    Case('metric', 'TemplateVerificationMetric', {'protocol': _TEMPLATES}),
    Case('hook', 'FeatureScatterHook'),
    Case('hook', 'MarginScheduleHook', {'param': 'm', 'start': 0.0, 'stop': 0.4}),
    Case('hook', 'ShardedCheckpointHook', {'interval': 1, 'max_keep_ckpts': 1}),
    Case('hook', 'ShardedEMAHook', {'begin_iter': 1}),
)


def feature_batch(seed: int = 0, samples: int = 12, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return random features around centres of the classes 1 to 5 in turn, and their labels.

    Args:
        seed: seed of centres and features.
        samples: N, number of features.
        scale: factor on the features.

    Returns:
        tuple: features (N, `CHANNELS`) and labels (N,).
    """
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(samples) % 5) + 1
    around = torch.randn(CLASSES, CHANNELS, generator=generator)[labels]
    return scale * (around + torch.randn(samples, CHANNELS, generator=generator)), labels
