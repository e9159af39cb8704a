"""Class centres of a head: their table, the classes of a step, and the comparison with features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_ext.face.heads.sampled import DRAWS, Choice, ExactShare, SampledCenters
from mmdet_ext.face.margins.base import Margin
from mmdet_ext.functional.embedding.chunked_competition import OtherScores
from mmdet_ext.functional.embedding.competition import Competition, Computation, class_competition

ChosenComputation = Literal['auto', 'plain', 'exact']
# Largest table of scores for which 'auto' holds the table: smaller ones are not worth chunks.
_PLAIN_UP_TO = 2**16


class ClassCenters(BaseModule):
    """Base of `MarginHead` that owns the centres of the classes.

    A head whose processes hold a part of the centres each overrides how they are made, and how
    features are compared with them.
    """

    weight: Tensor
    weight_drawn: Tensor
    margin: Margin | None
    num_classes: int
    num_subcenters: int
    embedding_channels: int
    scale: float
    sample_rate: float
    path: ChosenComputation

    def _add_centers(self) -> None:
        """Create the centres, and what samples them; a head without a margin has none."""
        self.sampled: SampledCenters | None = None
        if self.margin is None:
            return
        table = self._initial_centers()
        if self.sample_rate == 1:
            self.weight = nn.Parameter(table)
            return
        self.register_buffer('weight', table)
        self.weight_drawn = nn.Parameter(table.new_empty(0, self.embedding_channels))
        self.sampled = SampledCenters(self, self.num_subcenters, self._choice())

    def _initial_centers(self) -> Tensor:
        """Return the initial centres."""
        rows = self.num_classes * self.num_subcenters
        return nn.init.normal_(torch.empty(rows, self.embedding_channels), std=0.01)

    def _choice(self) -> Choice:
        """Return how the classes of a step are chosen."""
        return ExactShare(self.num_classes, self.sample_rate)

    def _gathered(self, x: Tensor, norm: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, their lengths and labels of the batch that the loss is a mean over."""
        return x, norm, labels

    def _summed(self, count: Tensor) -> Tensor:
        """Return a number summed over all parts of the classes."""
        return count

    def _compete(
        self,
        x: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        others: Callable[[Tensor], OtherScores] | None,
    ) -> Competition:
        """Compare features with the centres.

        Args:
            x: features or their directions, (N, D).
            labels: (N,).
            bias: of each class, (num_classes,).
            others: the rule for other classes, as `class_competition` takes it.
        """
        centers, classes, places = self._chosen(labels)
        if bias is not None and classes is not None:
            bias = bias[classes]
        path = self._computation(len(labels), len(centers))
        return self._competition(x, centers, places, bias, others, path)

    def _chosen(self, labels: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the centres of a step, their classes (None for all), and the labels' places."""
        if self.sampled is not None and self.training:
            return self.sampled.draw(labels)
        return self.weight, None, labels

    def _competition(
        self,
        x: Tensor,
        centers: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        others: Callable[[Tensor], OtherScores] | None,
        path: Computation,
        elsewhere: bool = False,
    ) -> Competition:
        """Call `class_competition` with the options of head and margin."""
        margin = cast(Margin, self.margin)
        return class_competition(
            x,
            centers,
            labels,
            normalize_weight=margin.normalize_weight,
            scale=self.scale if margin.normalize_features else 1.0,
            class_bias=bias,
            num_subcenters=self.num_subcenters,
            kind=margin.kind,
            others=others,
            path=path,
            elsewhere=elsewhere,
        )

    def _computation(self, samples: int, centers: int) -> Computation:
        """Return how to compare so many samples with so many centres."""
        if self.path != 'auto':
            return self.path
        if samples * centers <= _PLAIN_UP_TO:
            return 'plain'
        # A step already holds copies of the drawn centres: the table may be as large as one.
        sampled = self.sampled is not None and self.training
        return 'kept' if sampled and samples <= self.embedding_channels else 'exact'

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.sampled is not None:
            del destination[f'{prefix}weight_drawn']
            destination[prefix + DRAWS] = torch.tensor(self.sampled.draws)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        *lists: Any,
    ) -> None:
        # Heads load each other's state, whatever their sample_rate.
        draws = state_dict.pop(prefix + DRAWS, None)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *lists
        )
        if self.sampled is not None:
            missing_keys[:] = [key for key in missing_keys if key != f'{prefix}weight_drawn']
            self.sampled.draws = self.sampled.draws if draws is None else int(draws)
