"""Label assignment: the ground-truth box that each prior learns."""

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.atss import (
    Affinity,
    atss_match,
    prediction_affinity,
    prior_affinity,
)
from mmdet_ext.functional.assignment.cells import (
    CellGrid,
    LeadingGrid,
    count_leading,
    find_cells,
    leading_grid,
    neighbour_cells,
    own_cells,
)
from mmdet_ext.functional.assignment.center_heatmap import (
    HeatmapGrid,
    SharedCell,
    center_cells,
    center_heatmaps,
    center_match,
    gaussian_heatmaps,
    gaussian_radius,
    heatmap_grid,
)
from mmdet_ext.functional.assignment.claims import (
    border_distance,
    ignored_priors_mask,
    mark_ignored,
    resolve_claims,
)
from mmdet_ext.functional.assignment.dynamic_k import (
    PairCosts,
    PairwiseMeasure,
    PriorPart,
    dynamic_k_match,
    label_rows,
    measured_pairs,
    priors_near_boxes,
    rows_of,
    without_padding,
)
from mmdet_ext.functional.assignment.fcos import RegressRanges, centerness, fcos_match
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors
from mmdet_ext.functional.assignment.grids import Grid, find_grid, nearest_priors
from mmdet_ext.functional.assignment.max_iou import AlignedMeasure, max_iou_match
from mmdet_ext.functional.assignment.prior_blocks import PriorBlocks, pairs_at_a_time
from mmdet_ext.functional.assignment.rfla import (
    FieldDistance,
    SharedField,
    effective_fields,
    field_similarity,
    hierarchical_match,
)
from mmdet_ext.functional.assignment.simota import SimOTACosts, simota_match
from mmdet_ext.functional.assignment.soft_label import SoftLabelCosts, soft_label_match
from mmdet_ext.functional.assignment.task_aligned import power_of, task_aligned_match
from mmdet_ext.functional.assignment.yolo import (
    concentric_iou,
    overlapping_mask,
    side_ratio,
    yolo_match,
    yolov5_match,
)

__all__ = [
    'Affinity',
    'AlignedMeasure',
    'Assignment',
    'BatchGeometry',
    'CellGrid',
    'FieldDistance',
    'Grid',
    'HeatmapGrid',
    'LeadingGrid',
    'PairCosts',
    'PairwiseMeasure',
    'Predictions',
    'PriorBlocks',
    'PriorPart',
    'Priors',
    'RegressRanges',
    'SharedCell',
    'SharedField',
    'SimOTACosts',
    'SoftLabelCosts',
    'assign_nothing',
    'atss_match',
    'border_distance',
    'center_cells',
    'center_heatmaps',
    'center_match',
    'centerness',
    'concentric_iou',
    'count_leading',
    'dynamic_k_match',
    'effective_fields',
    'fcos_match',
    'field_similarity',
    'find_cells',
    'find_grid',
    'gaussian_heatmaps',
    'gaussian_radius',
    'heatmap_grid',
    'hierarchical_match',
    'ignored_priors_mask',
    'label_rows',
    'leading_grid',
    'mark_ignored',
    'max_iou_match',
    'measured_pairs',
    'nearest_priors',
    'neighbour_cells',
    'overlapping_mask',
    'own_cells',
    'pairs_at_a_time',
    'power_of',
    'prediction_affinity',
    'prior_affinity',
    'priors_near_boxes',
    'resolve_claims',
    'rows_of',
    'side_ratio',
    'simota_match',
    'soft_label_match',
    'task_aligned_match',
    'without_padding',
    'yolo_match',
    'yolov5_match',
]
