"""Figures of a run: loss curve, precision-recall, detections beside the ground truth.

They show the results that :mod:`mmdet_ext.analysis.run_report` reads, and need no display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.analysis.run_report import (
    Box,
    Evaluation,
    ImageResult,
    ReportError,
    TrainingCurve,
    summary,
)
from mmdet_ext.plots.detection.boxes import outline, read_image
from mmdet_ext.plots.style import COLOURS, DASHED, GREY, PALE, new_figure, save_figure
from mmdet_ext.utils.files import write_json


def class_colours(evaluation: Evaluation) -> dict[str, str]:
    """Return one colour per class, the same in every figure, by decreasing number of boxes.

    Colours repeat after seven classes.
    """
    order = sorted(evaluation.classes, key=lambda result: -result.boxes)
    return {result.name: COLOURS[k % len(COLOURS)] for k, result in enumerate(order)}


def write_report(
    out_dir: Path,
    curve: TrainingCurve | None = None,
    evaluation: Evaluation | None = None,
    image_dir: Path | None = None,
    about: dict[str, Any] | None = None,
) -> list[Path]:
    """Draw the given results, and write ``report.json`` with the same numbers.

    Args:
        out_dir: Folder of the files; made if absent.
        curve: Curves for ``loss_curve.png``.
        evaluation: Results for ``precision_recall.png`` and, with ``image_dir``,
            ``detections.png``.
        image_dir: Folder of the images of the evaluation.
        about: Further content of ``report.json``.

    Returns:
        The files written.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    report = dict(about or {})
    written = []
    if evaluation is not None and image_dir is not None:
        written.append(out_dir / 'detections.png')
        report['pictures_drawn'] = draw_detections(evaluation, image_dir, written[-1])
    if curve is not None:
        written.append(out_dir / 'loss_curve.png')
        draw_loss_curve(curve, written[-1])
    if evaluation is not None:
        written.append(out_dir / 'precision_recall.png')
        draw_precision_recall(evaluation, written[-1])
    written.append(out_dir / 'report.json')
    write_json(written[-1], {**report, **summary(evaluation, curve)})
    return written


def draw_loss_curve(curve: TrainingCurve, path: Path) -> None:
    """Draw each loss by iteration, and the validation metric on an axis of its own.

    Args:
        curve: Curves that the run logged.
        path: The png file to write.
    """
    figure = new_figure(9, 5)
    axes = figure.add_subplot()
    for index, (name, values) in enumerate(curve.losses.items()):
        total = name == 'loss'
        axes.plot(
            curve.iterations,
            values,
            color='black' if total else COLOURS[(index - 1) % len(COLOURS)],
            linewidth=2 if total else 1.4,
            marker='.' if len(curve.iterations) < 3 else None,
            label='loss (total)' if total else name,
        )
    axes.set(xlabel='iteration', ylabel='loss', title='Training loss', xlim=(0, None))
    axes.set_ylim(0, _loss_ceiling(curve.losses['loss']))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if curve.val:
        right = axes.twinx()
        steps, _, scores = zip(*curve.val, strict=True)
        label = f'{curve.val_name} (validation)'
        handles += right.plot(steps, scores, 'D--', color='#B8860B', markersize=5, linewidth=1.2)
        labels.append(label)
        right.set_ylabel(label)
        right.set_ylim(0, max(0.1, 1.25 * max(scores)))
        axes.set_title('Training loss and validation by iteration')
        _epoch_axis(axes, curve)
    figure.legend(handles, labels, loc='outside lower center', ncols=5, frameon=False)
    save_figure(figure, path)


def _loss_ceiling(values: Sequence[float]) -> float | None:
    """Choose the upper limit of the axis; a spike at the start is cut off."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    return 1.08 * min(max(finite), 4 * float(np.percentile(finite, 90)))


def _epoch_axis(axes: Any, curve: TrainingCurve) -> None:
    marks = [(step, epoch) for step, epoch, _ in curve.val if epoch is not None]
    if not marks:
        return
    every = math.ceil(len(marks) / 12)
    top = axes.secondary_xaxis('top')
    top.set_xticks([step for step, _ in marks[::every]], [str(e) for _, e in marks[::every]])
    top.set_xlabel('epoch')


def draw_precision_recall(evaluation: Evaluation, path: Path) -> None:
    """Draw precision by recall, per class at IoU 0.5, and the mean over classes at 0.5 and 0.75.

    A dot marks the score threshold on the curve of each class.

    Args:
        evaluation: Comparison with the ground truth.
        path: The png file to write.
    """
    order = sorted(range(len(evaluation.classes)), key=lambda k: -evaluation.classes[k].boxes)
    figure = new_figure(11, 4.4 + 0.21 * min(len(order), len(COLOURS)))  # room for the legend
    left, right = figure.subplots(1, 2, sharey=True)
    colours = class_colours(evaluation)
    for k in order[: len(COLOURS)]:
        result = evaluation.classes[k]
        label = f'{result.name}: AP50 {result.ap50:.3f} ({result.boxes} boxes)'
        _curve(left, evaluation.recall, evaluation.precision50[k], colours[result.name], label)
        left.plot(result.recall, result.precision, 'o', color=colours[result.name], markersize=7)
    left.plot([], [], 'o', color=GREY, label=f'where the score is {evaluation.score_thr:g}')
    shown = min(len(order), len(COLOURS))
    most = '' if shown == len(order) else f' ({shown} of {len(order)}: those with most boxes)'
    left.set_title(f'Per class at IoU 0.5{most}')
    for name, rows, colour in (
        ('0.5', evaluation.precision50, 'black'),
        ('0.75', evaluation.precision75, COLOURS[1]),
    ):
        label = f'IoU {name}: AP {rows.mean():.3f}'
        _curve(right, evaluation.recall, rows.mean(axis=0), colour, label)
    right.plot([], [], ' ', label=f'IoU 0.5 to 0.95: mAP {evaluation.mean("ap"):.3f}')
    right.set_title(f'Mean over {len(order)} class{"es" if len(order) > 1 else ""}')
    for axes in (left, right):
        axes.set(xlabel='recall', xlim=(0, 1.02), ylim=(0, 1.05))
        axes.grid(alpha=0.25)
        axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.13), frameon=False)
    left.set_ylabel('precision')
    save_figure(figure, path)


def _curve(axes: Any, recall: np.ndarray, precision: np.ndarray, colour: str, label: str) -> None:
    """Draw a curve up to the highest recall that is reached, and its fall to 0 there."""
    reached = int(np.count_nonzero(precision > 0))
    x = [*recall[:reached], recall[max(reached - 1, 0)]]
    axes.plot(x, [*precision[:reached], 0.0], color=colour, linewidth=2, label=label)


def pick_images(evaluation: Evaluation, count: int) -> list[ImageResult]:
    """Choose images that show every class, the rarest first, then images evenly over the set.

    The choice does not depend on the detections, so it does not favour good ones.

    Args:
        evaluation: Comparison with the ground truth.
        count: Largest number of images.

    Returns:
        At most ``count`` images with boxes, in the order of the set.
    """
    with_boxes = [image for image in evaluation.images if image.truth]
    chosen: list[int] = []
    for result in sorted(evaluation.classes, key=lambda result: result.boxes)[:count]:
        holds = [
            index
            for index, image in enumerate(with_boxes)
            if any(box.name == result.name for box in image.truth)
        ]
        if holds and not set(holds) & set(chosen):
            chosen.append(holds[len(holds) // 2])
    rest = [index for index in range(len(with_boxes)) if index not in chosen]
    missing = min(count - len(chosen), len(rest))
    chosen += [rest[(2 * step + 1) * len(rest) // (2 * missing)] for step in range(missing)]
    return [with_boxes[index] for index in sorted(chosen)]


def draw_detections(
    evaluation: Evaluation, image_dir: Path, path: Path, count: int = 6
) -> list[str]:
    """Draw a sheet of images: on the left the ground truth, on the right the detections.

    The colour shows the class. A dashed box was missed (left) or is false (right) at IoU 0.5.

    Args:
        evaluation: Comparison with the ground truth.
        image_dir: Folder that the file names are relative to.
        path: The png file to write.
        count: Largest number of images on the sheet.

    Returns:
        File names of the images drawn.

    Raises:
        ReportError: If an image cannot be read.
    """
    images = pick_images(evaluation, count)
    colours = class_colours(evaluation)
    pixels = [read_image(image_dir / image.file_name, ReportError) for image in images]
    pairs = 2 if len(images) > 1 else 1
    rows = math.ceil(len(images) / pairs)
    aspect = float(np.median([array.shape[0] / array.shape[1] for array in pixels]))
    width = 16.0 if pairs == 2 else 9.0
    height = width / (2 * pairs) * min(max(aspect, 0.4), 1.6) + 0.3
    figure = new_figure(width, rows * height + 0.9)
    # An empty column separates the pairs.
    ratios = [1, 1, 0.06, 1, 1][: 3 * pairs - 1]
    grid = figure.subplots(rows, len(ratios), squeeze=False, width_ratios=ratios)
    for axes in grid.flat:
        axes.set_axis_off()
    panels = []
    for index, (image, array) in enumerate(zip(images, pixels, strict=True)):
        row, column = divmod(index, pairs)
        for side, boxes in enumerate((image.truth, image.found)):
            axes = grid[row, 3 * column + side]
            _draw_image(axes, array, boxes, colours)
            axes.set_title(_caption(image, side), fontsize=9, loc='left')
            panels.append((axes, boxes))
    threshold = f'score >= {evaluation.score_thr:g}'
    figure.suptitle(f'Left: ground truth. Right: detections with {threshold}.', fontsize=13)
    _sheet_legend(figure, images, colours)
    figure.draw_without_rendering()  # fixes the layout that labels are placed in
    for axes, boxes in panels:
        _place_labels(axes, boxes, colours)
    save_figure(figure, path)
    return [image.file_name for image in images]


def _caption(image: ImageResult, side: int) -> str:
    """Return the title of the left (side 0) or right (side 1) panel of an image."""
    hits = sum(box.hit for box in image.found)
    if side == 0:
        name = image.file_name if len(image.file_name) <= 28 else f'...{image.file_name[-25:]}'
        return f'{name}: {len(image.truth)} boxes'
    missed = sum(not box.hit for box in image.truth)
    return f'{hits} right, {len(image.found) - hits} false, {missed} missed'


def _draw_image(
    axes: Any, array: np.ndarray, boxes: Sequence[Box], colours: dict[str, str]
) -> None:
    axes.imshow(array, interpolation='bilinear')
    for box in boxes:
        line = '-' if box.hit else DASHED
        outline(axes, box.bbox, colours[box.name], line, thickness=1.9)


def _place_labels(axes: Any, boxes: Sequence[Box], colours: dict[str, str]) -> None:
    """Write a label at each box, unless it would cover another label.

    Boxes are labelled from the highest score down, ground truth from the largest box down. A box
    without room for a label still shows its class by its colour.
    """
    frame = axes.get_window_extent()
    taken: list[Any] = []
    for box in sorted(boxes, key=lambda b: b.score or b.bbox[2] * b.bbox[3], reverse=True):
        x, y, width, height = box.bbox
        label = box.name if box.score is None else f'{box.name} {box.score:.2f}'
        colour = colours[box.name]
        text = axes.text(
            0,
            0,
            label,
            fontsize=7.5,
            color='black' if colour in PALE else 'white',
            clip_on=True,
            bbox={'boxstyle': 'square,pad=0.12', 'fc': colour, 'ec': 'none'},
        )
        spots = (
            (x, y, 'left', 'bottom'),
            (x, y + height, 'left', 'top'),
            (x + width, y, 'right', 'bottom'),
            (x + width, y + height, 'right', 'top'),
            (x, y, 'left', 'top'),
            (x, y + height, 'left', 'bottom'),
        )
        if not any(_fits(text, spot, frame, taken) for spot in spots):
            text.remove()


def _fits(text: Any, spot: tuple[float, float, str, str], frame: Any, taken: list[Any]) -> bool:
    """Move a label to a spot; return whether it fits, and if so add it to the taken places."""
    x, y, horizontal, vertical = spot
    text.set(position=(x, y), ha=horizontal, va=vertical)
    extent = text.get_window_extent().padded(1.5)
    inside = (
        extent.x0 >= frame.x0
        and extent.x1 <= frame.x1
        and extent.y0 >= frame.y0
        and extent.y1 <= frame.y1
    )
    if not inside or any(extent.overlaps(other) for other in taken):
        return False
    taken.append(extent)
    return True


def _sheet_legend(figure: Any, images: Sequence[ImageResult], colours: dict[str, str]) -> None:
    """Add a legend of the classes on the sheet and of the line styles."""
    from matplotlib.lines import Line2D

    shown = {box.name for image in images for box in [*image.truth, *image.found]}
    names = [name for name in colours if name in shown]
    handles = [
        Line2D([], [], color=colours[name], linewidth=3, label=name)
        for name in names[: len(COLOURS)]
    ]
    unnamed = len(names) - len(COLOURS)
    if unnamed > 0:
        handles.append(Line2D([], [], ls='', label=f'and {unnamed} more, see labels'))
    for style, label in (('-', 'matched at IoU 0.5'), (DASHED, 'missed (left) or false (right)')):
        handles.append(Line2D([], [], color=GREY, linewidth=2, ls=style, label=label))
    columns = min(len(handles), int(figure.get_figwidth() // 2.1))
    figure.legend(handles=handles, loc='outside lower center', ncols=columns, frameon=False)
