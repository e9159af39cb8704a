"""Results of an image as a COCO metric keeps them until all are evaluated: a few small arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.structures.mask import encode_mask_results
from numpy.typing import NDArray

from mmdet_ext.evaluation.annotations import Reading, from_content
from mmdet_ext.evaluation.columns import Detections, GroundTruth, Rows, rows_of

Array = NDArray[Any]


class ImageResult(NamedTuple):
    """Detections of an image, and its ground truth where no file has it.

    Attributes:
        img_id: id of the image.
        size: height and width in pixels.
        boxes: corners (N, 4) in pixels.
        scores: scores (N,).
        labels: labels (N,).
        masks: compressed run lengths of each detection, None without masks.
        mask_size: height and width of the masks.
        mask_scores: scores (N,) of the masks, None where they are those of the boxes.
        keypoints: x, y and score (N, K, 3), None without keypoints.
        instances: the data sample's ground truth, None where a file has it.
    """

    img_id: Any
    size: tuple[int, int]
    boxes: Array
    scores: Array
    labels: Array
    masks: list[bytes] | None = None
    mask_size: tuple[int, int] = (0, 0)
    mask_scores: Array | None = None
    keypoints: Array | None = None
    instances: Any = None

    @classmethod
    def of_sample(cls, sample: Mapping[str, Any], with_truth: bool, masks: bool) -> ImageResult:
        """Take the columns out of a data sample.

        Args:
            sample: data sample with ``pred_instances``, ``img_id`` and ``ori_shape``.
            with_truth: take its ground truth, ``instances``, too.
            masks: take its masks, encoded.

        Raises:
            ValueError: if the predictions lack boxes, scores or labels, or the data sample lacks
                the ground truth.
        """
        pred, img_id = sample['pred_instances'], sample['img_id']
        lacking = [name for name in ('bboxes', 'scores', 'labels') if name not in pred]
        if lacking:
            raise ValueError(
                f'image {img_id!r}: pred_instances has no {", ".join(lacking)}; COCO ranks '
                'detections by score, so that each needs a box, a score and a label'
            )
        if with_truth and 'instances' not in sample:
            raise ValueError(
                f'image {img_id!r}: its data sample has no instances, the ground truth; give '
                'ann_file, or load annotations in the test pipeline'
            )
        height, width = sample['ori_shape'][:2]
        counts, mask_size = _encoded(pred['masks']) if masks and 'masks' in pred else (None, (0, 0))
        return cls(
            img_id,
            (int(height), int(width)),
            as_array(pred['bboxes']),
            as_array(pred['scores']),
            as_array(pred['labels']),
            counts,
            mask_size,
            as_array(pred['mask_scores']) if 'mask_scores' in pred else None,
            _points(pred) if 'keypoints' in pred else None,
            sample['instances'] if with_truth else None,
        )


def as_array(values: Any) -> Array:
    """Return a tensor, or what holds one, as an array."""
    tensor = getattr(values, 'tensor', values)
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach().cpu()
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        array: Array = tensor.numpy()
        return array
    return np.asarray(tensor)


def _points(pred: Mapping[str, Any]) -> Array:
    points = as_array(pred['keypoints']).astype(np.float64)
    if points.shape[-1] == 2:
        scores = as_array(pred['keypoint_scores']) if 'keypoint_scores' in pred else None
        third = np.ones(points.shape[:-1]) if scores is None else scores
        points = np.concatenate([points, third[..., None]], -1)
    return points


def _encoded(masks: Any) -> tuple[list[bytes], tuple[int, int]]:
    """Return the run lengths of masks, or take them as they are, and return their size."""
    if isinstance(masks, torch.Tensor):
        masks = encode_mask_results(masks.detach().cpu().numpy())
    counts = [each['counts'] for each in masks]
    counts = [each.encode() if isinstance(each, str) else each for each in counts]
    sizes = {tuple(int(side) for side in each['size']) for each in masks}
    if len(sizes) > 1:
        raise ValueError(f'masks of one image have several sizes: {sorted(sizes)}')
    height, width = sizes.pop() if sizes else (0, 0)
    return counts, (height, width)


def reading_of(images: Sequence[ImageResult], classes: Sequence[str]) -> Reading:
    """Return the ground truth of the data samples, as stock converts it to COCO's form.

    A category's id is its label, an ``ignore_flag`` is a crowd, and the area is that of the box.
    """
    annotations: list[dict[str, Any]] = []
    for image in images:
        for each in image.instances:
            left, top, right, bottom = (float(value) for value in each['bbox'])
            box = [left, top, right - left, bottom - top]
            annotation = {
                'id': len(annotations) + 1,
                'image_id': image.img_id,
                'category_id': int(each['bbox_label']),
                'bbox': box,
                'area': box[2] * box[3],
                'iscrowd': int(each.get('ignore_flag', 0)),
            }
            if each.get('mask'):
                annotation['segmentation'] = each['mask']
            annotations.append(annotation)
    content = {
        'images': [
            {'id': image.img_id, 'height': image.size[0], 'width': image.size[1]}
            for image in images
        ],
        'categories': [{'id': row, 'name': name} for row, name in enumerate(classes)],
        'annotations': annotations,
    }
    masks = bool(annotations) and all('segmentation' in each for each in annotations)
    return from_content(content, masks=masks)


def detections_of(
    images: Sequence[ImageResult], truth: GroundTruth, labelled: Rows, masks: bool = False
) -> Detections:
    """Join the detections of all images.

    Args:
        images: results of the images.
        truth: ground truth.
        labelled: row of the category of each label.
        masks: take the masks, with their scores.

    Raises:
        KeyError: if masks are asked for and an image has none.
        ValueError: if an image is not in the ground truth, or a label has no category.
    """
    rows = rows_of(
        [image.img_id for image in images],
        truth.image_ids,
        'image ids of the results',
        'are not in the ground truth: the annotations are of another data set, or of another part '
        'of it',
    )
    counts = np.array([len(image.boxes) for image in images], np.int64)
    label = _joined([image.labels for image in images], (0,)).astype(np.int64)
    if len(label) and not 0 <= label.min() <= label.max() < len(labelled):
        wrong = label[(label < 0) | (label >= len(labelled))][0]
        raise ValueError(
            f'a detection has the label {wrong}, and the ground truth has {len(labelled)} of the '
            f"data set's classes: {', '.join(truth.names[row] for row in labelled.tolist())}"
        )
    boxes = _joined([image.boxes for image in images], (0, 4)).astype(np.float64)
    # As stock subtracts: in float64, of what the model gave.
    boxes[:, 2:] -= boxes[:, :2]
    scores = [
        image.mask_scores if masks and image.mask_scores is not None else image.scores
        for image in images
    ]
    points = [image.keypoints for image in images if image.keypoints is not None]
    image_rows = np.repeat(rows, counts)
    found = Detections(
        image_rows,
        labelled[label] if len(label) else label,
        boxes,
        _joined(scores, (0,)).astype(np.float64),
        keypoints=np.concatenate(points) if len(points) == len(images) else None,
    )
    if not masks:
        return found
    lacking = [image.img_id for image in images if image.masks is None]
    if lacking:
        raise KeyError(f'segm is not in the results: image {lacking[0]!r} has no masks')
    sizes = np.array([image.mask_size for image in images], np.int64).reshape(-1, 2)
    return Detections(
        found.image,
        found.category,
        found.boxes,
        found.scores,
        [each for image in images for each in image.masks or ()],
        np.repeat(sizes, counts, axis=0),
    )


def _joined(parts: Sequence[Array], empty: tuple[int, ...]) -> Array:
    """Join arrays; without any, return one of the shape ``empty``."""
    return np.concatenate(parts) if parts else np.zeros(empty)
