"""The head of a face recogniser: an embedding, class centres, a margin, metric-learning losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdet_ext.face.heads.parts import (
    LossConfigs,
    MarginConfig,
    Neck,
    build_losses,
    build_margin,
    build_neck,
)
from mmdet_ext.face.losses import FeatureLoss
from mmdet_ext.face.margins.base import Margin
from mmdet_ext.functional.embedding.competition import Computation, class_competition
from mmdet_ext.functional.numerics.checks import check_number, check_one_of, check_weight, is_number
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.unit_vectors import shortest_length, unit_vectors
from mmdet_ext.registry import MODELS

FlipFusion = Literal['concat', 'sum']
ChosenPath = Literal['auto', 'plain', 'exact']
# Up to this many elements the table costs nothing worth saving.
_PLAIN_UP_TO = 2**16
# What scale / |x| may be where gradients become float16. Far below its 65,504: margins and layers
# before the head multiply it, and a loss scaler need not go down to 1 for one sample.
_LARGEST_IN_HALF = 2.0**10


@MODELS.register_module()
class MarginHead(BaseModule):
    """Trains an embedding by a margin over class centres, and gives it at test.

    It stands as the ``head`` of stock mmpretrain's ``ImageClassifier``, in runs of
    ``mim train mmdet`` and of ``mim train mmpretrain``. With u = x / |x| the feature's and v_j the
    centre's direction, most margins have the loss::

        L = -log( exp(s m(cos t_y)) / (exp(s m(cos t_y)) + sum_{j != y} exp(s cos t_j)) )

    averaged over the batch, cos t_j = <u, v_j>. The class scores are never held together once
    they are many (see `path`), so that memory does not grow with identities.

    It computes in float32, in float64 where features or centres are, under autocast too, the neck
    included. Where features are float16, or autocast makes them so, those shorter than s / 1024
    get the gradient of one of that length.

    Args:
        num_classes: identities in training.
        in_channels: channels of the features; of the embedding too, unless there is a neck.
        margin: ``dict(type=..., ...)`` with one of Softmax, NormFace, LSoftmax, SphereFace,
            CosFace, ArcFace, CombinedMargin, AdaFace, CurricularFace, MagFace, SphereFaceR,
            UniFace, with or without ``mmdet_ext.``; its name alone for its defaults. None for
            ``aux_losses`` alone.
        scale: s. Margins on features of their own length (Softmax, LSoftmax, SphereFace) have
            no use for it.
        num_subcenters: centres an identity; the nearest counts (sub-centre ArcFace).
        aux_losses: metric-learning losses on the embedding (CenterLoss, TripletLoss,
            ContrastiveLoss), each with its ``loss_weight``; one needs no list, None is none. The
            head fills in the ``num_classes`` and ``in_channels`` that CenterLoss takes.
        flip_fusion: at test, put the embeddings of a picture and of its mirror image one behind
            the other ('concat') or add them ('sum'). Wants the mirror images behind the
            pictures: ``data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor',
            flip_at_test=True)``.
        embedding_channels: channels of the embedding, for a neck; None for ``in_channels``.
        neck: 'none'; a linear layer, 'fc'; with batch norm, 'fc-bn'; between two, 'bn-fc-bn'
            (ArcFace's option E); that with dropout. None for 'bn-fc-bn' where
            ``embedding_channels`` is given, else 'none'. Feature maps are flattened before it.
        dropout: its rate, for 'bn-dropout-fc-bn'.
        path: 'plain' holds all scores, 'exact' goes through classes in chunks (equal to 1e-5);
            'auto' takes 'plain' for tables of up to 65,536 scores.
        loss_weight: factor on the margin's loss, at least 0.
        init_cfg: as mmengine's modules have it. Centres start from a normal distribution of
            deviation 0.01.

    Attributes:
        weight: the centres, (num_classes * num_subcenters, embedding); those of a class lie
            together. Absent without a margin.

    Raises:
        ValueError: for options that do not fit, and labels that are no class.
        KeyError: for a margin that there is not; the nearest name is given.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        margin: MarginConfig | None = None,
        scale: float = 64.0,
        num_subcenters: int = 1,
        aux_losses: LossConfigs = (),
        flip_fusion: FlipFusion | None = None,
        embedding_channels: int | None = None,
        neck: Neck | None = None,
        dropout: float = 0.0,
        path: ChosenPath = 'auto',
        loss_weight: float = 1.0,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        embedding = in_channels if embedding_channels is None else embedding_channels
        _check_sizes(
            num_classes=num_classes,
            in_channels=in_channels,
            num_subcenters=num_subcenters,
            embedding_channels=embedding,
        )
        check_number('scale', scale, 'above 0 and finite', lambda s: 0 < s < float('inf'))
        check_weight('loss_weight', loss_weight)
        if flip_fusion is not None:
            check_one_of('flip_fusion', flip_fusion, FlipFusion)
        check_one_of('path', path, ChosenPath)
        if margin is None and not aux_losses:
            raise ValueError("give a margin, such as margin=dict(type='ArcFace'), or aux_losses")
        self.num_classes, self.in_channels = int(num_classes), int(in_channels)
        self.num_subcenters, self.scale = int(num_subcenters), float(scale)
        self.flip_fusion, self.path, self.loss_weight = flip_fusion, path, loss_weight
        self.embedding_channels = int(embedding)
        self.neck = build_neck(neck, self.in_channels, embedding_channels, dropout)
        self.margin = None if margin is None else build_margin(margin, self.num_classes)
        if self.margin is not None:
            rows = self.num_classes * self.num_subcenters
            self.weight = nn.Parameter(torch.empty(rows, self.embedding_channels))
            nn.init.normal_(self.weight, std=0.01)
        self.aux_losses = nn.ModuleDict(
            build_losses(aux_losses, self.num_classes, self.embedding_channels)
        )

    def pre_logits(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """The embedding, (N, D), of a tuple of features whose last is taken.

        Raises:
            ValueError: if the features are not what the head was built for.
        """
        x = _last(feats)
        if self.neck is not None:
            x = x.flatten(1)
        if x.dim() != 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'in_channels is {self.in_channels}, the features are {tuple(x.shape)}: use a '
                "neck that makes them (N, C), such as neck=dict(type='GlobalAveragePooling'), and "
                'set in_channels to C'
            )
        if self.neck is None:
            return x
        # A batch norm multiplies gradients, by 300 where its batch hardly varies.
        with torch.autocast(x.device.type, enabled=False):
            return cast(Tensor, self.neck(x.to(next(self.neck.parameters()).dtype)))

    def forward(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Scores of all classes without a margin, (N, num_classes), or the embedding if none."""
        (embedding,) = promote_half(self.pre_logits(feats))
        if self.margin is None:
            return embedding
        embedding, centres = promote_half(embedding, self.weight)
        dtype, factor = embedding.dtype, 1.0
        if self.margin.normalize_weight:
            centres = unit_vectors(centres, dtype=dtype)[0]
        if self.margin.normalize_features:
            embedding, factor = unit_vectors(embedding, dtype=dtype)[0], self.scale
        with torch.autocast(embedding.device.type, enabled=False):
            scores = nn.functional.linear(embedding, centres) * factor
        if self.num_subcenters > 1:
            scores = scores.view(len(scores), self.num_classes, self.num_subcenters).amax(2)
        bias = self.margin.class_bias(self.num_classes)
        return scores if bias is None else scores + bias

    def loss(
        self, feats: Tensor | Sequence[Tensor], data_samples: Sequence[Any], **kwargs: Any
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            feats: features, a tuple whose last is taken.
            data_samples: one a picture, with its ``gt_label``.

        Returns:
            'loss' of the margin, 'loss_<name>' of the auxiliary losses, and what is only logged:
            'own_cosine', the mean cosine to the own centre, and the losses' counts.

        Raises:
            ValueError: for labels that are no class, none, or several a picture.
        """
        embedding = self.pre_logits(feats)
        labels = self._labels(data_samples, embedding)
        losses: dict[str, Tensor] = {}
        if self.margin is not None:
            slope = self.scale * self.loss_weight
            dtype = _gradient_type(_last(feats), embedding)
            shortest = shortest_length(dtype, slope, _LARGEST_IN_HALF)
            losses.update(self._margin_losses(embedding, labels, shortest))
        for name, module in self.aux_losses.items():
            for key, value in cast(FeatureLoss, module).losses(embedding, labels).items():
                losses[f'loss_{name}' if key == 'loss' else f'{name}_{key}'] = value
        return losses

    def _labels(self, data_samples: Sequence[Any], embedding: Tensor) -> Tensor:
        for place, sample in enumerate(data_samples):
            if 'gt_label' not in sample:
                raise ValueError(
                    f'data sample {place} has no gt_label, the identity of its picture: look at '
                    'the data set, and whether the pipeline packs it (PackInputs)'
                )
            if 'gt_score' in sample:
                raise ValueError(
                    'data_samples have gt_score: a margin is for one identity a picture. Take '
                    'mixing augmentations (Mixup, CutMix) out of train_cfg'
                )
        given = [torch.as_tensor(sample.gt_label).view(-1) for sample in data_samples]
        labels = torch.cat(given) if given else torch.zeros(0, dtype=torch.int64)
        if len(labels) != len(embedding):
            raise ValueError(
                f'data_samples hold {len(labels)} labels for {len(embedding)} pictures: one each '
                'is wanted'
            )
        if labels.is_floating_point():
            raise ValueError(f'labels must be whole numbers, got {labels.dtype}')
        # On a GPU this waits for the embedding; a kernel that fails would say nothing of labels.
        outside = (labels < 0) | (labels >= self.num_classes)
        if bool(outside.any()):
            place = int(outside.nonzero()[0])
            path = getattr(data_samples[place], 'img_path', None)
            raise ValueError(
                f'{int(outside.sum())} of {len(labels)} labels are not from 0 to '
                f'{self.num_classes - 1} (num_classes={self.num_classes}), the first is '
                f'{int(labels[place])}{f" of {path}" if path else ""}: compare num_classes with '
                'the data set'
            )
        return labels.to(embedding.device, torch.int64)

    def _margin_losses(
        self, embedding: Tensor, labels: Tensor, shortest: float
    ) -> dict[str, Tensor]:
        margin = cast(Margin, self.margin)
        with torch.autocast(embedding.device.type, enabled=False):
            (wide,) = promote_half(embedding)
            unit, norm = unit_vectors(wide, shortest=shortest, dtype=wide.dtype)
            scaled = margin.normalize_features
            bias = margin.class_bias(self.num_classes)
            target, center_norm, others = class_competition(
                unit if scaled else wide,
                self.weight,
                labels,
                normalize_weight=margin.normalize_weight,
                scale=self.scale if scaled else 1.0,
                class_bias=bias,
                num_subcenters=self.num_subcenters,
                kind=margin.kind,
                others=margin.others(labels),
                path=self._path(len(labels)),
            )
            length = target.new_tensor(self.scale) if scaled else norm * center_norm
            # Of a feature without length the direction, and so the cosine, is nothing.
            cosine = target if scaled else target / length.clamp(min=1e-12)
            if self.training:
                with torch.no_grad():
                    margin.observe(cosine, norm)
            score = margin.cosine_margin(cosine, norm, labels)
            # What has no length still pulls: the plain score by itself, the margin on top.
            score = length * score if scaled else target + length * (score - cosine)
            if bias is not None:
                score = score + bias[labels]
            losses = {'loss': self._mean(margin.loss(score, others)) * self.loss_weight}
            penalty = margin.penalty(norm)
            if penalty is not None:
                losses['loss_length'] = self._mean(penalty) * self.loss_weight
            losses['own_cosine'] = self._mean(cosine.detach())
        return losses

    def _path(self, samples: int) -> Computation:
        if self.path != 'auto':
            return self.path
        return 'plain' if samples * len(self.weight) <= _PLAIN_UP_TO else 'exact'

    @staticmethod
    def _mean(values: Tensor) -> Tensor:
        return values.sum() / max(len(values), 1)

    def predict(
        self,
        feats: Tensor | Sequence[Tensor],
        data_samples: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Write each picture's embedding onto its data sample, as ``embedding``, (D,), float32.

        It keeps its length; who compares, normalises.

        Raises:
            ValueError: if ``flip_fusion`` is set and the mirror images are not there, or the
                other way round.
        """
        embedding = self.pre_logits(feats).float()
        pictures = (
            len(data_samples)
            if data_samples is not None
            else (len(embedding) // 2 if self.flip_fusion else len(embedding))
        )
        wanted = 2 * pictures if self.flip_fusion else pictures
        if len(embedding) != wanted:
            raise ValueError(
                f'flip_fusion={self.flip_fusion!r} wants {wanted} embeddings for {pictures} '
                f'pictures, got {len(embedding)}: flip_fusion of the head and flip_at_test of '
                "data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor') go together"
            )
        if self.flip_fusion == 'concat':
            embedding = torch.cat([embedding[:pictures], embedding[pictures:]], 1)
        elif self.flip_fusion == 'sum':
            embedding = embedding[:pictures] + embedding[pictures:]
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in range(pictures)]
        for sample, vector in zip(data_samples, embedding, strict=True):
            sample.set_field(vector, 'embedding')
        return list(data_samples)


def _check_sizes(**sizes: Any) -> None:
    for name, value in sizes.items():
        if not is_number(value) or value % 1 or value < 1:
            raise ValueError(f'{name} must be a whole number from 1 on, got {value!r}')


def _last(feats: Tensor | Sequence[Tensor]) -> Tensor:
    return feats if isinstance(feats, Tensor) else feats[-1]


def _gradient_type(feature: Tensor, embedding: Tensor) -> torch.dtype:
    """float16 where gradients pass through it, else the precision of the embedding."""
    kind = feature.device.type
    cast_to_half = (
        torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    )
    half = cast_to_half or feature.dtype == torch.float16
    return torch.float16 if half else embedding.dtype
