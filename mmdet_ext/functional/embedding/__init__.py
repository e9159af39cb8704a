"""Embeddings: margins, class competition, and losses on centres, pairs and triplets."""

from mmdet_ext.functional.embedding.chunked_competition import (
    ChunkedCompetition,
    CompetitionOptions,
    Kind,
    OtherScores,
)
from mmdet_ext.functional.embedding.competition import (
    Competition,
    Computation,
    class_competition,
)
from mmdet_ext.functional.embedding.distances import (
    ContrastiveResult,
    Distance,
    center_loss,
    center_shift,
    check_contrastive_options,
    check_feature_batch,
    class_mean_center_loss,
    contrastive_loss,
    pairwise_distance,
    shifted_centers,
)
from mmdet_ext.functional.embedding.margin_loss import (
    margin_softmax_loss,
    unified_cross_entropy_loss,
)
from mmdet_ext.functional.embedding.margins import (
    adaptive_margin,
    additive_angular_margin,
    additive_cosine_margin,
    angle_of,
    clipped_multiplicative_margin,
    combined_margin,
    magnitude_margin,
    multiplicative_angular_margin,
    sine_of,
    turned_cosine,
)
from mmdet_ext.functional.embedding.triplet import (
    Mining,
    TripletResult,
    check_triplet_options,
    triplet_loss,
)

__all__ = [
    'ChunkedCompetition',
    'Competition',
    'CompetitionOptions',
    'Computation',
    'ContrastiveResult',
    'Distance',
    'Kind',
    'Mining',
    'OtherScores',
    'TripletResult',
    'adaptive_margin',
    'additive_angular_margin',
    'additive_cosine_margin',
    'angle_of',
    'center_loss',
    'center_shift',
    'check_contrastive_options',
    'check_feature_batch',
    'check_triplet_options',
    'class_competition',
    'class_mean_center_loss',
    'clipped_multiplicative_margin',
    'combined_margin',
    'contrastive_loss',
    'magnitude_margin',
    'margin_softmax_loss',
    'multiplicative_angular_margin',
    'pairwise_distance',
    'shifted_centers',
    'sine_of',
    'triplet_loss',
    'turned_cosine',
    'unified_cross_entropy_loss',
]
