"""Scoring of embeddings, verification and identification, and of labels per pixel."""

from mmdet_ext.functional.scoring import (
    accuracy,
    all_pairs,
    confusion,
    grid_protocol,
    identification,
    similarity,
    templates,
    verification,
)
from mmdet_ext.functional.scoring.accuracy import *
from mmdet_ext.functional.scoring.all_pairs import *
from mmdet_ext.functional.scoring.confusion import *
from mmdet_ext.functional.scoring.grid_protocol import *
from mmdet_ext.functional.scoring.identification import *
from mmdet_ext.functional.scoring.similarity import *
from mmdet_ext.functional.scoring.templates import *
from mmdet_ext.functional.scoring.verification import *

__all__: list[str] = []
__all__ += accuracy.__all__
__all__ += all_pairs.__all__
__all__ += confusion.__all__
__all__ += grid_protocol.__all__
__all__ += identification.__all__
__all__ += similarity.__all__
__all__ += templates.__all__
__all__ += verification.__all__
