"""Scoring of embeddings: verification and identification."""

from mmdet_ext.functional.scoring.accuracy import (
    FoldAccuracy,
    best_accuracy,
    fold_accuracy,
)
from mmdet_ext.functional.scoring.all_pairs import (
    AllPairs,
    ExtremePairs,
    Progress,
    count_all_pairs,
)
from mmdet_ext.functional.scoring.identification import (
    OpenSetPoint,
    Searches,
    match_rates,
    search_gallery,
    tpir_at_fpir,
)
from mmdet_ext.functional.scoring.similarity import (
    Comparable,
    comparable,
    on_grid,
    pair_similarities,
    unit_embeddings,
)
from mmdet_ext.functional.scoring.verification import (
    OperatingPoint,
    RocCurve,
    ScoreCounts,
    allowed_errors,
    count_scores,
    equal_error_rate,
    roc_auc,
    roc_curve,
    tar_at_far,
)

__all__ = [
    'AllPairs',
    'Comparable',
    'ExtremePairs',
    'FoldAccuracy',
    'OpenSetPoint',
    'OperatingPoint',
    'Progress',
    'RocCurve',
    'ScoreCounts',
    'Searches',
    'allowed_errors',
    'best_accuracy',
    'comparable',
    'count_all_pairs',
    'count_scores',
    'equal_error_rate',
    'fold_accuracy',
    'match_rates',
    'on_grid',
    'pair_similarities',
    'roc_auc',
    'roc_curve',
    'search_gallery',
    'tar_at_far',
    'tpir_at_fpir',
    'unit_embeddings',
]
