"""Numerics that every subject needs: precision, checks, chunks, reduction and derivatives."""

from mmdet_ext.functional.numerics.checks import (
    OptionError,
    check_count,
    check_number,
    check_one_of,
    check_that,
    check_whole,
    is_number,
    is_pair,
    is_real,
    is_whole,
)
from mmdet_ext.functional.numerics.chunks import largest_places, row_chunks
from mmdet_ext.functional.numerics.derivative import with_derivative
from mmdet_ext.functional.numerics.directions import shortest_length, unit_vectors
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.reduction import (
    Reduction,
    ReductionError,
    check_reduction,
    weighted_reduce,
)
from mmdet_ext.functional.numerics.row_blocks import Kernel, by_row_blocks

__all__ = [
    'Kernel',
    'OptionError',
    'Reduction',
    'ReductionError',
    'by_row_blocks',
    'check_count',
    'check_number',
    'check_one_of',
    'check_reduction',
    'check_that',
    'check_whole',
    'is_number',
    'is_pair',
    'is_real',
    'is_whole',
    'largest_places',
    'promote_half',
    'row_chunks',
    'shortest_length',
    'unit_vectors',
    'weighted_reduce',
    'with_derivative',
]
