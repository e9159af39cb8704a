"""Embeddings: margins, class competition, and losses on centres, pairs and triplets."""

from mmdet_ext.functional.embedding import (
    chunked_competition,
    class_sampling,
    competition,
    distances,
    margin_loss,
    margins,
    triplet,
)
from mmdet_ext.functional.embedding.chunked_competition import *
from mmdet_ext.functional.embedding.class_sampling import *
from mmdet_ext.functional.embedding.competition import *
from mmdet_ext.functional.embedding.distances import *
from mmdet_ext.functional.embedding.margin_loss import *
from mmdet_ext.functional.embedding.margins import *
from mmdet_ext.functional.embedding.triplet import *

__all__: list[str] = []
__all__ += chunked_competition.__all__
__all__ += class_sampling.__all__
__all__ += competition.__all__
__all__ += distances.__all__
__all__ += margin_loss.__all__
__all__ += margins.__all__
__all__ += triplet.__all__
