"""Face head with an embedding, class centres, a margin and metric-learning losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdet_ext.face.heads.centers import ChosenComputation, ClassCenters
from mmdet_ext.face.heads.filtering import ClassFilter, check_filter
from mmdet_ext.face.heads.parts import (
    FlipFusion,
    LossConfigs,
    MarginConfig,
    Neck,
    build_losses,
    build_margin,
    build_neck,
    checked_labels,
    fuse_mirror_images,
    gradient_type,
    last_of,
)
from mmdet_ext.face.losses.base import FeatureLoss
from mmdet_ext.face.margins.base import Margin
from mmdet_ext.functional.numerics.checks import (
    check_number,
    check_one_of,
    check_that,
    is_number,
)
from mmdet_ext.functional.numerics.directions import shortest_length, unit_vectors
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.registry import MODELS

# Largest scale / |x| where gradients become float16. It is far below the 65,504 of float16,
# because margins and the layers before the head multiply it, and because a loss scaler should not
# have to fall to 1 for one sample.
_LARGEST_IN_HALF = 2.0**10


@MODELS.register_module()
class MarginHead(ClassCenters):
    """Head that trains an embedding with a margin over class centres, and returns it at test.

    It is the ``head`` of mmpretrain's ``ImageClassifier``, in runs of ``mim train mmdet`` and of
    ``mim train mmpretrain``. Let u = x / |x| be the direction of the feature, v_j that of the
    centre of class j, and cos t_j = <u, v_j>. The loss of most margins m is the batch mean of::

        L = -log( exp(s m(cos t_y)) / (exp(s m(cos t_y)) + sum_{j != y} exp(s cos t_j)) )

    Many class scores are never held together (see ``path``), so that memory does not grow with
    the number of identities.

    The head and its neck compute in float32, also under autocast, and in float64 where features
    or centres are float64. Where features are float16, or autocast makes them so, a feature
    shorter than s / 1024 gets the gradient of a feature of that length.

    Args:
        num_classes: number of identities in training.
        in_channels: channels of the features; without a neck, also of the embedding.
        margin: ``dict(type=..., ...)`` of a margin in the registry ``MARGINS``, such as ArcFace or
            CosFace, with or without the prefix ``mmdet_ext.``; its name alone for its defaults.
            None trains with ``aux_losses`` alone.
        scale: s, above 0. Margins on features that keep their length (Softmax, LSoftmax,
            SphereFace) do not use it.
        num_subcenters: centres per identity; the nearest counts (sub-centre ArcFace).
        aux_losses: metric-learning losses on the embedding (CenterLoss, TripletLoss,
            ContrastiveLoss), each with its ``loss_weight``; a list, one config, or None. The head
            fills in the options ``num_classes`` and ``in_channels`` of CenterLoss.
        flip_fusion: fusion of the embeddings of an image and of its mirror image at test:
            'concat', 'sum', or None for 'sum' wherever mirror images come. They come from
            ``data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', flip_at_test=True)``,
            which alone switches mirror fusion on.
        embedding_channels: channels of the embedding behind a neck; None for ``in_channels``.
        neck: layers from the features to the embedding: 'none', 'fc' (linear), 'fc-bn' (with batch
            norm), 'bn-fc-bn' (between two batch norms, ArcFace's option E), or
            'bn-dropout-fc-bn'. None for 'bn-fc-bn' if ``embedding_channels`` is given, and 'none'
            otherwise. Feature maps are flattened first.
        dropout: dropout rate of 'bn-dropout-fc-bn'.
        path: 'plain' holds all scores, 'exact' visits the classes in chunks (equal to 1e-5), and
            'auto' takes 'plain' for tables of up to 65,536 scores. With ``sample_rate`` below 1 and
            at most as many samples as channels, 'auto' keeps one table for the backward pass.
        loss_weight: factor on the loss of the margin, at least 0.
        sample_rate: share of the classes that compete in a step of training, above 0 and at most
            1: those of the batch, and others drawn at random. The other centres keep their values
            and the optimizer's state, without weight decay. In evaluation all classes compete.
        filter_threshold: cosine, above 0 and at most 1, above which another class than the own is
            left out for a sample, as it may be the same person; None keeps all. For margins that
            normalise the centres.
        init_cfg: as in MMEngine's modules. Centres are drawn from a normal distribution with
            standard deviation 0.01.

    Attributes:
        weight: the centres, (num_classes * num_subcenters, embedding channels); those of a class
            are adjacent. A parameter, and with ``sample_rate`` below 1 a buffer. Absent without a
            margin.
        weight_drawn: with ``sample_rate`` below 1, the parameter that the optimizer trains: the
            drawn centres from the backward pass to the step, otherwise empty.

    Raises:
        ValueError: for options that do not fit, and for labels outside the classes.
        KeyError: for an unknown margin; the error suggests the nearest name.
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
        path: ChosenComputation = 'auto',
        loss_weight: float = 1.0,
        sample_rate: float = 1.0,
        filter_threshold: float | None = None,
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
        check_number('scale', scale, above=0, finite=True)
        check_number('loss_weight', loss_weight, least=0, finite=True)
        if flip_fusion is not None:
            check_one_of('flip_fusion', flip_fusion, FlipFusion)
        check_one_of('path', path, ChosenComputation)
        check_number('sample_rate', sample_rate, above=0, most=1)
        if margin is None and not aux_losses:
            raise ValueError("give a margin, such as margin=dict(type='ArcFace'), or aux_losses")
        if margin is None and sample_rate < 1:
            raise ValueError(f'sample_rate={sample_rate} samples the classes of a margin: give one')
        self.num_classes, self.in_channels = int(num_classes), int(in_channels)
        self.num_subcenters, self.scale = int(num_subcenters), float(scale)
        self.flip_fusion, self.path, self.loss_weight = flip_fusion, path, loss_weight
        self.sample_rate, self.filter_threshold = sample_rate, filter_threshold
        self.embedding_channels = int(embedding)
        self.neck = build_neck(neck, self.in_channels, embedding_channels, dropout)
        self.margin = None if margin is None else build_margin(margin, self.num_classes)
        check_filter(filter_threshold, self.margin)
        self._add_centers()
        self.aux_losses = nn.ModuleDict(
            build_losses(aux_losses, self.num_classes, self.embedding_channels)
        )

    def pre_logits(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the embedding, (N, D), of the last of several features.

        Raises:
            ValueError: if the features do not have ``in_channels`` channels.
        """
        x = last_of(feats)
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
        # A batch norm multiplies gradients by up to 300 where its batch hardly varies.
        with torch.autocast(x.device.type, enabled=False):
            return cast(Tensor, self.neck(x.to(next(self.neck.parameters()).dtype)))

    def forward(self, feats: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the scores of all classes without the margin, (N, num_classes).

        A head without a margin returns its embedding.
        """
        (embedding,) = promote_half(self.pre_logits(feats))
        if self.margin is None:
            return embedding
        embedding, centers = promote_half(embedding, self.weight)
        dtype, factor = embedding.dtype, 1.0
        if self.margin.normalize_weight:
            centers = unit_vectors(centers, dtype=dtype)[0]
        if self.margin.normalize_features:
            embedding, factor = unit_vectors(embedding, dtype=dtype)[0], self.scale
        with torch.autocast(embedding.device.type, enabled=False):
            scores = nn.functional.linear(embedding, centers) * factor
        if self.num_subcenters > 1:
            scores = scores.view(len(scores), self.num_classes, self.num_subcenters).amax(2)
        bias = self.margin.class_bias(self.num_classes)
        return scores if bias is None else scores + bias

    def loss(
        self, feats: Tensor | Sequence[Tensor], data_samples: Sequence[Any], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            feats: features, or a tuple of which the last is taken.
            data_samples: one per image, with its ``gt_label``.
            **kwargs: ignored; mmpretrain passes its ``train_cfg`` here.

        Returns:
            dict: 'loss' of the margin and 'loss_<name>' of each auxiliary loss. For the log only:
            'own_cosine', the mean cosine to the own centre, 'filtered', the mean number of classes
            that ``filter_threshold`` left out, and the counts of the losses.

        Raises:
            ValueError: if an image has no label, several labels, or a label outside the classes.
            RuntimeError: for ``sample_rate`` below 1 in a training of several processes.
        """
        embedding = self.pre_logits(feats)
        labels = checked_labels(data_samples, embedding, self.num_classes)
        losses: dict[str, Tensor] = {}
        if self.margin is not None:
            slope = self.scale * self.loss_weight
            dtype = gradient_type(last_of(feats), embedding)
            shortest = shortest_length(dtype, slope, _LARGEST_IN_HALF)
            losses.update(self._margin_losses(embedding, labels, shortest))
        for name, module in self.aux_losses.items():
            for key, value in cast(FeatureLoss, module).losses(embedding, labels).items():
                losses[f'loss_{name}' if key == 'loss' else f'{name}_{key}'] = value
        return losses

    def _margin_losses(
        self, embedding: Tensor, labels: Tensor, shortest: float
    ) -> dict[str, Tensor]:
        """Compute the loss, the penalty and the mean cosine of the margin.

        Args:
            embedding: x, (N, D).
            labels: (N,).
            shortest: length below which features get a bounded gradient.
        """
        margin = cast(Margin, self.margin)
        with torch.autocast(embedding.device.type, enabled=False):
            (wide,) = promote_half(embedding)
            unit, norm = unit_vectors(wide, shortest=shortest, dtype=wide.dtype)
            scaled = margin.normalize_features
            x, norm, labels = self._gathered(unit if scaled else wide, norm, labels)
            bias = margin.class_bias(self.num_classes)
            kept = None
            if self.filter_threshold is not None:
                kept = ClassFilter(margin, self.filter_threshold, norm, labels)
            rule = margin.others(labels) if kept is None else kept
            target, center_norm, others = self._compete(x, labels, bias, rule)
            length = target.new_tensor(self.scale) if scaled else norm * center_norm
            # A zero feature has no direction: its cosine is 0.
            cosine = target if scaled else target / length.clamp(min=1e-12)
            if self.training:
                with torch.no_grad():
                    margin.observe(cosine, norm)
            score = margin.cosine_margin(cosine, norm, labels)
            # The plain score is kept as a term, so that a zero feature still has its gradient.
            score = length * score if scaled else target + length * (score - cosine)
            if bias is not None:
                score = score + bias[labels]
            losses = {'loss': self._mean(margin.loss(score, others)) * self.loss_weight}
            penalty = margin.penalty(norm)
            if penalty is not None:
                losses['loss_length'] = self._mean(penalty) * self.loss_weight
            losses['own_cosine'] = self._mean(cosine.detach())
            if kept is not None:
                losses['filtered'] = kept.filtered(self._summed)
        return losses

    @staticmethod
    def _mean(values: Tensor) -> Tensor:
        """Return the mean, or 0 with a graph for an empty batch."""
        return values.sum() / max(len(values), 1)

    def predict(
        self,
        feats: Tensor | Sequence[Tensor],
        data_samples: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """Write the embedding of each image to its data sample, as ``embedding``, (D,), float32.

        The embedding keeps its length. Comparisons normalise it.

        Args:
            feats: features, or a tuple of which the last is taken. With twice as many features as
                data samples, the second half belongs to mirror images, and is fused.
            data_samples: one per image; None makes new ones.
            **kwargs: ignored; mmpretrain passes options of its heads here.

        Returns:
            list: the data samples. Without given ones, mirror images are expected if
            ``flip_fusion`` is set.

        Raises:
            ValueError: if the features are neither as many as the data samples nor twice as many,
                or if ``flip_fusion`` is set and the mirror images are missing.
        """
        embedding = self.pre_logits(feats).float()
        if data_samples is None:
            images = len(embedding) // 2 if self.flip_fusion else len(embedding)
            data_samples = [BaseDataElement() for _ in range(images)]
        embedding = fuse_mirror_images(embedding, len(data_samples), self.flip_fusion)
        for sample, vector in zip(data_samples, embedding, strict=True):
            sample.set_field(vector, 'embedding')
        return list(data_samples)


def _check_sizes(**sizes: Any) -> None:
    """Raise ValueError, naming the option, unless all are whole numbers from 1 on, as 7 and 7.0."""
    for name, value in sizes.items():
        holds = is_number(value) and value % 1 == 0 and value >= 1
        check_that(holds, name, value, 'a whole number from 1 on')
