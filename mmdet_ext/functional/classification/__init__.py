"""Classification: losses of class scores, class weights and hard example mining."""

from mmdet_ext.functional.classification import (
    binary_terms,
    class_weights,
    cross_entropy,
    distribution,
    equalized_focal,
    focal,
    labels,
    long_tail,
    mining,
    pixel_mining,
    quality,
    softmax_maps,
    softmax_terms,
)
from mmdet_ext.functional.classification.binary_terms import *
from mmdet_ext.functional.classification.class_weights import *
from mmdet_ext.functional.classification.cross_entropy import *
from mmdet_ext.functional.classification.distribution import *
from mmdet_ext.functional.classification.equalized_focal import *
from mmdet_ext.functional.classification.focal import *
from mmdet_ext.functional.classification.labels import *
from mmdet_ext.functional.classification.long_tail import *
from mmdet_ext.functional.classification.mining import *
from mmdet_ext.functional.classification.pixel_mining import *
from mmdet_ext.functional.classification.quality import *
from mmdet_ext.functional.classification.softmax_maps import *
from mmdet_ext.functional.classification.softmax_terms import *

__all__: list[str] = []
__all__ += binary_terms.__all__
__all__ += class_weights.__all__
__all__ += cross_entropy.__all__
__all__ += distribution.__all__
__all__ += equalized_focal.__all__
__all__ += focal.__all__
__all__ += labels.__all__
__all__ += long_tail.__all__
__all__ += mining.__all__
__all__ += pixel_mining.__all__
__all__ += quality.__all__
__all__ += softmax_maps.__all__
__all__ += softmax_terms.__all__
