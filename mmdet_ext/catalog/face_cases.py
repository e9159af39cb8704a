"""The rows of the contract table for face recognition.

Options suit heads of `CLASSES` classes on features of `CHANNELS` numbers, pictures of
`INPUT_SIZE`, and the files that `mmdet_ext.data.synthetic.faces.make_faces` writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from mmdet_ext.data.synthetic.faces import FOLDS, TRAINED

CLASSES = 7
CHANNELS = 8
#: Side of the pictures that the backbones of the table take, px.
INPUT_SIZE = 32
#: From 3 to 192, so that a margin a class goes from the one bound to the other.
_COUNTS = [3 * 2**k for k in range(CLASSES)]


@dataclass(frozen=True)
class MarginCase:
    """How to build a margin.

    Attributes:
        name: registered name.
        options: config beside ``type``.
        twin: None: no stock package has margins to name.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None


@dataclass(frozen=True)
class FeatureLossCase:
    """How to build a loss on features and labels.

    Attributes:
        name: registered name.
        options: config beside ``type``.
        twin: name of the stock loss that it replaces, None for a new one.
        zero_on: the largest batch of its kind that costs nothing: one of 'one identity' (there is
            no negative), of 'one sample' (there is no pair), or 'no sample'.
        remembers: whether a call in training changes the next one's result.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None
    zero_on: Literal['one identity', 'one sample', 'no sample'] = 'one sample'
    remembers: bool = False


@dataclass(frozen=True)
class BackboneCase:
    """How to build a backbone that ends in an embedding of `CHANNELS` numbers.

    Attributes:
        name: registered name.
        options: config beside ``type``, a small network.
        twin: name of the stock backbone that it replaces, None for a new one.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None


@dataclass(frozen=True)
class FaceDatasetCase:
    """How to read a data set of the made faces.

    Attributes:
        name: registered name.
        options: config beside ``type``.
        root: option that takes the folder of the files, None for a data set without files.
        folder: what of that folder it reads.
        pictures: how many it finds.
        identities: how many identities, 0 where the files do not tell.
        divisible: whether a part of it can be taken.
        twin: name of the stock data set that it replaces, None for a new one.
    """

    name: str
    options: dict[str, Any]
    pictures: int
    identities: int
    root: str | None = 'data_root'
    folder: str = ''
    divisible: bool = True
    twin: str | None = None


@dataclass(frozen=True)
class PartCase:
    """A head, preprocessor, transform, data sampler, metric or hook.

    Attributes:
        name: registered name.
        options: config beside ``type``, as little as it takes.
        twin: name of the stock component that it replaces, None for a new one.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    twin: str | None = None


MARGINS = (
    MarginCase('Softmax'),
    MarginCase('Softmax', {'bias': True}),
    MarginCase('NormFace'),
    MarginCase('LSoftmax'),
    MarginCase('LSoftmax', {'m': 3, 'lambda_max': 0, 'lambda_min': 0}),
    MarginCase('SphereFace'),
    *(
        MarginCase('SphereFace', {'m': m, 'lambda_max': 0.0, 'lambda_min': 0.0})
        for m in (1, 2, 3, 4)
    ),
    MarginCase('CosFace'),
    MarginCase('CosFace', {'m': 0}),
    MarginCase('CosFace', {'m': 1}),
    MarginCase('CosFace', {'m': [0.1 * k for k in range(CLASSES)]}),
    MarginCase('ArcFace'),
    MarginCase('ArcFace', {'m': 0}),
    MarginCase('ArcFace', {'m': 1}),
    MarginCase('ArcFace', {'easy_margin': True}),
    MarginCase('ArcFace', {'gradient': 'straight_through'}),
    MarginCase('ArcFace', {'m': {'counts': _COUNTS}}),
    MarginCase('CombinedMargin'),
    MarginCase('CombinedMargin', {'m1': 2, 'm2': 0, 'm3': 0}),
    MarginCase('CombinedMargin', {'m1': 1.35, 'm2': 0.2, 'm3': 0.1}),
    MarginCase('AdaFace'),
    MarginCase('CurricularFace'),
    MarginCase('MagFace', {'norms': (1.0, 5.0)}),
    *(MarginCase('SphereFaceR', {'version': version}) for version in ('v0', 'v1', 'v2')),
    MarginCase('UniFace'),
)
FEATURE_LOSSES = (
    FeatureLossCase(
        'CenterLoss',
        {'num_classes': CLASSES, 'in_channels': CHANNELS},
        zero_on='no sample',
        remembers=True,
    ),
    FeatureLossCase(
        'CenterLoss',
        {'num_classes': CLASSES, 'in_channels': CHANNELS, 'form': 'learnable'},
        zero_on='no sample',
    ),
    FeatureLossCase('TripletLoss', twin='TripletLoss', zero_on='one identity'),
    FeatureLossCase(
        'TripletLoss', {'mining': 'semi_hard', 'distance': 'cosine'}, zero_on='one identity'
    ),
    FeatureLossCase(
        'TripletLoss',
        {'mining': 'batch_all', 'distance': 'squared_euclidean', 'normalize': True},
        zero_on='one identity',
    ),
    FeatureLossCase('ContrastiveLoss'),
    FeatureLossCase('ContrastiveLoss', {'distance': 'cosine', 'balance': True}),
)
FACE_HEADS = (
    PartCase(
        'MarginHead',
        {'num_classes': CLASSES, 'in_channels': CHANNELS, 'margin': {'type': 'ArcFace'}},
    ),
)
BACKBONES = (
    BackboneCase(
        'IResNet',
        {'depth': 18, 'base_channels': 8, 'num_features': CHANNELS, 'input_size': INPUT_SIZE},
    ),
    BackboneCase(
        'MobileFaceNet', {'width': 0.25, 'num_features': CHANNELS, 'input_size': INPUT_SIZE}
    ),
)
PREPROCESSORS = (PartCase('FaceDataPreprocessor'),)
FACE_DATASETS = (
    FaceDatasetCase('FaceFolderDataset', {}, pictures=16, identities=8, folder='faces'),
    FaceDatasetCase(
        'FaceFolderDataset',
        {'identities': list(TRAINED)},
        pictures=8,
        identities=4,
        folder='faces',
    ),
    FaceDatasetCase('FaceRecordDataset', {}, pictures=8, identities=4),
    FaceDatasetCase(
        'FacePairsDataset',
        {'ann_file': 'pairs.txt', 'data_prefix': 'faces'},
        pictures=8,
        identities=4,
        divisible=False,
    ),
    FaceDatasetCase(
        'FacePairsDataset',
        {'ann_file': 'pairs.csv', 'data_prefix': 'faces'},
        pictures=8,
        identities=0,
        divisible=False,
    ),
    FaceDatasetCase(
        'FacePairsDataset',
        {'ann_file': 'pairs.bin', 'folds': FOLDS},
        pictures=8,
        identities=0,
        divisible=False,
    ),
    # Of the 1,797 digits 533 are of these three.
    FaceDatasetCase('DigitsDataset', {'digits': (7, 8, 9)}, pictures=533, identities=3, root=None),
)
TRANSFORMS = (PartCase('AlignFace'), PartCase('LoadFace'))
DATA_SAMPLERS = (
    PartCase('IdentityBalancedSampler', {'identities_per_batch': 2, 'pictures_per_identity': 2}),
)
METRICS = (
    PartCase('FaceVerificationMetric', {'pairs': 'all'}),
    PartCase('FaceIdentificationMetric'),
)
HOOKS = (
    PartCase('FeatureScatterHook'),
    PartCase('MarginScheduleHook', {'param': 'm', 'start': 0.0, 'stop': 0.4}),
)


def case_id(case: Any) -> str:
    """A row by its name and options, for the names of tests."""
    options = [f'{key}={value}' for key, value in getattr(case, 'options', {}).items()]
    return '-'.join([case.name, *options])[:60]


def feature_batch(seed: int = 0, samples: int = 12, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Features (N, `CHANNELS`) about centres of the classes 1 to 5 in turn, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(samples) % 5) + 1
    around = torch.randn(CLASSES, CHANNELS, generator=generator)[labels]
    return scale * (around + torch.randn(samples, CHANNELS, generator=generator)), labels
