r"""Templates of several images of one person, pooled by media, and the counts of their pairs.

IJB-B and IJB-C compare *templates*. A template holds the images of one person, and each image
belongs to a *medium*: a photograph, or a video of which the images are frames. The published order
is:

.. math:: x_i = f(I_i) + f(\bar I_i), \quad
          v_i = s_i x_i, \quad
          m_j = \frac{1}{n_j} \sum_{i \in j} v_i, \quad
          t = \sum_j m_j, \quad
          u = \frac{t}{\lVert t \rVert}, \quad
          \text{similarity} = u_a \cdot u_b

where :math:`\bar I` is the mirror image, s the score of the detector (or 1), and :math:`n_j` the
number of images of medium j in the template. A video of 300 frames thus counts as one photograph
does. A long embedding counts more than a short one (``pooling='length'``), unless
:math:`x_i / \lVert x_i \rVert` takes the place of :math:`x_i` (``pooling='equal'``). Because u has
length 1, a mean over the media gives the same as their sum.

The sum needs no list of the images: each adds its share :math:`s_i / n_j` of itself to one row.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.numerics.directions import unit_vectors
from mmdet_ext.functional.scoring.similarity import GRID, comparable, on_grid
from mmdet_ext.functional.scoring.verification import ScoreCounts

__all__ = [
    'Pooling',
    'add_to_templates',
    'count_template_pairs',
    'medium_shares',
    'pool_templates',
]

Pooling = Literal['length', 'equal']

#: Pairs of one block. A block of 512 dimensions is 8 MiB, of which three are held.
BLOCK = 4096


def medium_shares(template: Tensor, medium: Tensor) -> Tensor:
    """Compute the share of each image in its medium: 1 / images of the medium in the template.

    Images of one medium in two templates make one medium in each.

    Args:
        template: (R,) integers, template of each image.
        medium: (R,) integers, medium of each image.

    Returns:
        Tensor: (R,) float64, in (0, 1].

    Raises:
        ValueError: if the shapes differ.

    >>> medium_shares(torch.tensor([0, 0, 0, 1]), torch.tensor([5, 5, 9, 5])).tolist()
    [0.5, 0.5, 1.0, 1.0]
    """
    if template.ndim != 1 or template.shape != medium.shape:
        raise ValueError(
            'template and medium must both be (R,), got '
            f'{tuple(template.shape)} and {tuple(medium.shape)}'
        )
    numbers, medium = medium.unique(return_inverse=True)
    _, template = template.unique(return_inverse=True)
    _, place, counts = (template * len(numbers) + medium).unique(
        return_inverse=True, return_counts=True
    )
    shares: Tensor = 1 / counts[place].double()
    return shares


@torch.no_grad()
def add_to_templates(
    sums: Tensor, embeddings: Tensor, template: Tensor, share: Tensor, pooling: Pooling = 'length'
) -> Tensor:
    """Add embeddings to the sums of their templates, in place.

    Sums of float64 do not depend on the order of the images, but for some 1e-16 of their size.

    Args:
        sums: (T, D) float64 or float32; zeros to begin with.
        embeddings: (R, D), floating point, of any precision.
        template: (R,) int64, row of ``sums`` of each embedding.
        share: (R,) factor of each embedding: `medium_shares`, times the score of the detector.
        pooling: 'length' adds embeddings as they are; 'equal' scales each to length 1 before. A row
            of zeros stays zeros.

    Returns:
        Tensor: ``sums``.

    Raises:
        ValueError: if shapes do not fit, or ``pooling`` is neither of these.

    >>> sums = torch.zeros(2, 2, dtype=torch.float64)
    >>> rows = torch.tensor([[2., 0.], [0., 4.]])
    >>> add_to_templates(sums, rows, torch.tensor([1, 1]), torch.tensor([1., 0.5])).tolist()
    [[0.0, 0.0], [2.0, 2.0]]
    """
    check_one_of('pooling', pooling, Pooling)
    count = len(embeddings)
    if (
        sums.ndim != 2
        or embeddings.shape[1:] != sums.shape[1:]
        or template.shape != (count,)
        or share.shape != (count,)
    ):
        raise ValueError(
            'sums, embeddings, template and share must be (T, D), (R, D), (R,) and (R,), got '
            f'{", ".join(str(tuple(x.shape)) for x in (sums, embeddings, template, share))}'
        )
    rows = embeddings.detach().to(sums.dtype)
    if pooling == 'equal':
        rows = unit_vectors(embeddings.detach(), dtype=torch.float64)[0].to(sums.dtype)
    return sums.index_add_(0, template, rows * share.to(sums.dtype)[:, None])


@torch.no_grad()
def pool_templates(
    embeddings: Tensor,
    template: Tensor,
    medium: Tensor,
    scores: Tensor | None = None,
    pooling: Pooling = 'length',
) -> tuple[Tensor, Tensor]:
    """Pool the embeddings of images to templates of length 1, in the published order.

    Args:
        embeddings: (R, D), floating point, one per image; an image in two templates stands twice.
        template: (R,) integers, template of each image, any numbers.
        medium: (R,) integers, medium of each image, any numbers.
        scores: (R,) scores of the detector, finite, at least 0; None for 1.
        pooling: as in `add_to_templates`.

    Returns:
        tuple: (T, D) float64, the templates, and (T,) their numbers, ascending. A template whose
        images cancel each other, or have scores of 0, is all zeros.

    Raises:
        ValueError: if shapes do not fit, a score is below 0 or not finite, or ``pooling`` is
            unknown.

    References:
        C. Whitelam et al.: IARPA Janus Benchmark-B face dataset. CVPR Workshops, 2017.
        B. Maze et al.: IARPA Janus Benchmark - C. ICB, 2018.

    >>> embeddings = torch.tensor([[6., 0.], [0., 0.], [0., 4.]])
    >>> pool_templates(embeddings, torch.tensor([7, 7, 7]), torch.tensor([1, 1, 2]))
    (tensor([[0.6000, 0.8000]], dtype=torch.float64), tensor([7]))
    """
    if embeddings.ndim != 2 or template.shape != embeddings.shape[:1]:
        raise ValueError(
            'embeddings and template must be (R, D) and (R,), got '
            f'{tuple(embeddings.shape)} and {tuple(template.shape)}'
        )
    share = medium_shares(template, medium)
    if scores is not None:
        if scores.shape != share.shape or not bool((scores.isfinite() & (scores >= 0)).all()):
            raise ValueError(
                f'scores must be ({len(share)},), finite and at least 0, got {tuple(scores.shape)} '
                f'with {int((~(scores.isfinite() & (scores >= 0))).sum())} others'
            )
        share = share * scores.double()
    numbers, place = template.unique(return_inverse=True)
    sums = share.new_zeros(len(numbers), embeddings.shape[1])
    add_to_templates(sums, embeddings, place, share, pooling)
    return unit_vectors(sums, dtype=torch.float64)[0], numbers


@torch.no_grad()
def count_template_pairs(
    templates: Tensor, index: Tensor, same: Tensor, block: int = BLOCK
) -> ScoreCounts:
    """Count the cosines of listed pairs, block by block, without a table of pairs x D.

    It holds two tables of 16 MiB and a few of ``block`` x D, whatever the number of pairs. The
    similarities are those of `pair_similarities`.

    Args:
        templates: (T, D), floating point, finite, of any length.
        index: (K, 2) integers, rows of ``templates``; int32 halves the memory of a long list.
        same: (K,) bool, True for genuine pairs.
        block: pairs of one block, at least 1.

    Raises:
        ValueError: if shapes do not fit, or ``block`` is below 1.
        IndexError: if ``index`` names a row that does not exist.

    >>> templates = torch.tensor([[1., 0.], [0., 1.], [3., 4.]])
    >>> index = torch.tensor([[0, 1], [1, 2]])
    >>> count_template_pairs(templates, index, torch.tensor([False, True]))
    ScoreCounts(scores=tensor([0.0000, 0.8000]), genuine=tensor([0, 1]), impostors=tensor([1, 0]))
    """
    check_number('block', block, least=1)
    if index.ndim != 2 or index.shape[1] != 2 or same.shape != index.shape[:1]:
        raise ValueError(
            f'index and same must be (K, 2) and (K,), got {tuple(index.shape)} and '
            f'{tuple(same.shape)}'
        )
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(templates)):
        raise IndexError(
            f'index names rows {int(index.min())} to {int(index.max())}, but there are '
            f'{len(templates)} templates'
        )
    ready = comparable(templates)
    levels = 2 * GRID + 1
    tables = torch.zeros(2 * levels, dtype=torch.int64, device=templates.device)
    ones = torch.ones(block, dtype=torch.int64, device=templates.device)
    for some, kind in zip(index.split(block), same.split(block), strict=True):
        first, second = some.long().unbind(1)
        level = on_grid((ready.left[first] * ready.right[second]).sum(1)).mul_(GRID).long() + GRID
        tables.index_add_(0, level + levels * kind.long(), ones[: len(level)])
    impostors, genuine = tables.view(2, levels)
    found = (genuine + impostors).nonzero().squeeze(1)
    scores = ready.cosines((found - GRID).float() / GRID)
    return ScoreCounts(scores, genuine[found], impostors[found])
