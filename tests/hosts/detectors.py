"""Configs of small detectors, each with a component of ours in its place."""

from __future__ import annotations

from typing import Any

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.hosts import Target, target_of
from mmdet_ext.registry import MODELS
from tests._helpers.dense_heads import ANCHORS, CHANNELS, DELTAS, HEADS, NORM, STRIDES, scoped
from tests.hosts.faces import configured

CLASSES = 4
#: Channels of a ResNet-18 of base_channels=4.
WIDTHS = (4, 8, 16, 32)
TEST = dict(
    nms_pre=100,
    min_bbox_size=0,
    score_thr=0.0,
    nms=dict(type='nms', iou_threshold=0.6),
    max_per_img=20,
)
RANGES = [(-1, 24), (24, 48), (48, 1e8)]
PSEUDO = dict(type='PseudoSampler')
#: Where a loss stands, by its target: the head, and the option of the head.
PLACES: dict[Target, tuple[str, str]] = {
    'labels': ('RetinaHead', 'loss_cls'),
    'elements': ('YOLOXHead', 'loss_cls'),
    'scores': ('GFLHead', 'loss_cls'),
    'distances': ('GFLHead', 'loss_dfl'),
    'boxes': ('RetinaHead', 'loss_bbox'),
    'offsets': ('RetinaHead', 'loss_bbox'),
}
#: Options of assigners for three levels.
LEVELS = {
    'FCOSAssigner': dict(regress_ranges=RANGES),
    'RFLAAssigner': dict(receptive_fields=[16, 32, 64]),
}

YOLO_SIDES = [[(60, 45), (78, 99)], [(30, 31), (42, 25)], [(10, 13), (23, 13)]]
#: Options of the heads that `HEADS` does not have.
MORE_HEADS: dict[str, dict[str, Any]] = {
    'SSDHead': dict(
        in_channels=(CHANNELS,) * 3,
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=96,
            strides=list(STRIDES),
            ratios=([2], [2], [2]),
            min_sizes=[16, 30, 50],
            max_sizes=[30, 50, 80],
        ),
        bbox_coder=DELTAS,
        train_cfg=dict(
            smoothl1_beta=1.0,
            allowed_border=-1,
            pos_weight=-1,
            neg_pos_ratio=3,
            debug=False,
            sampler=PSEUDO,
            assigner=dict(type='{scope}.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5),
        ),
    ),
    'YOLOV3Head': dict(
        in_channels=[CHANNELS] * 3,
        out_channels=[CHANNELS] * 3,
        anchor_generator=dict(
            type='YOLOAnchorGenerator', strides=list(STRIDES[::-1]), base_sizes=YOLO_SIDES
        ),
        bbox_coder=dict(type='YOLOBBoxCoder'),
        featmap_strides=list(STRIDES[::-1]),
        train_cfg=dict(assigner=dict(type='mmdet_ext.YOLOv3Assigner')),
    ),
    'VFNetHead': dict(
        stacked_convs=1,
        feat_channels=CHANNELS,
        strides=list(STRIDES),
        regress_ranges=RANGES,
        norm_cfg=NORM,
        anchor_generator={**ANCHORS, 'center_offset': 0.0},
        train_cfg=dict(
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
            assigner=dict(type='mmdet_ext.ATSSAssigner', topk=9),
        ),
    ),
}
#: Losses that each head reports.
REPORTED = {
    'ATSSHead': {'loss_cls', 'loss_bbox', 'loss_centerness'},
    'FCOSHead': {'loss_cls', 'loss_bbox', 'loss_centerness'},
    'GFLHead': {'loss_cls', 'loss_bbox', 'loss_dfl'},
    'NanoDetPlusHead': {
        prefix + name for prefix in ('', 'aux_') for name in ('loss_cls', 'loss_bbox', 'loss_dfl')
    },
    'YOLOXHead': {'loss_cls', 'loss_bbox', 'loss_obj'},
    'YOLOV1Head': {'loss_cls', 'loss_conf', 'loss_noobj', 'loss_xy', 'loss_wh'},
    'YOLOV2Head': {'loss_cls', 'loss_conf', 'loss_noobj', 'loss_prior', 'loss_xy', 'loss_wh'},
    'YOLOV3Head': {'loss_cls', 'loss_conf', 'loss_xy', 'loss_wh'},
    'YOLOv5Head': {'loss_cls', 'loss_bbox', 'loss_obj'},
    'VFNetHead': {'loss_cls', 'loss_bbox', 'loss_bbox_rf'},
    'SOLOHead': {'loss_cls', 'loss_mask'},
    'proposals': {'loss_cls', 'loss_bbox', 'acc'},
    'two stages': {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'acc'},
    'masks': {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'acc', 'loss_mask'},
}


def reported(head: str) -> set[str]:
    """Return the names of the losses that a head reports."""
    return REPORTED.get(head, {'loss_cls', 'loss_bbox'})


def detector(kind: str, first_level: int = 1, **parts: Any) -> dict[str, Any]:
    """Return the config of a detector on a narrow ResNet-18 with a feature pyramid."""
    return dict(
        type=kind,
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[127.0] * 3,
            std=[64.0] * 3,
            pad_size_divisor=32,
            pad_mask=True,
        ),
        backbone=dict(type='ResNet', depth=18, base_channels=4, norm_cfg=dict(type='BN')),
        neck=dict(
            type='FPN',
            in_channels=list(WIDTHS),
            out_channels=CHANNELS,
            start_level=first_level,
            num_outs=4 - first_level,
        ),
        **parts,
    )


def single(
    head: str, scope: str = 'mmdet_ext', classes: int = CLASSES, **changes: Any
) -> dict[str, Any]:
    """Return the config of a one-stage detector.

    Args:
        head: name of its head.
        scope: scope of the head and of its assigner.
        classes: number of classes.
        **changes: options of the head; those of ``train_cfg`` are merged.
    """
    options = scoped({**HEADS, **MORE_HEADS}[head], scope)
    train = {**options.pop('train_cfg', {}), **changes.pop('train_cfg', {})}
    options = {'in_channels': CHANNELS, **options, **changes}
    model = detector(
        'YOLOV3' if head == 'YOLOV3Head' else 'SingleStageDetector',
        bbox_head=dict(type=f'{scope}.{head}', num_classes=classes, **options),
        train_cfg=train or None,
        test_cfg=TEST | (dict(conf_thr=0.0) if head == 'YOLOV3Head' else {}),
    )
    if head == 'YOLOV3Head':  # it takes the deepest level first
        model['neck'] = dict(
            type='YOLOV3Neck', num_scales=3, in_channels=[32, 16, 8], out_channels=[CHANNELS] * 3
        )
        model['backbone'].update(out_indices=(1, 2, 3))
    return model


def corners(loss: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a CornerNet, whose embeddings mmdet decodes with one dimension alone.

    Args:
        loss: config of the loss of its embeddings.
    """
    backbone = dict(
        type='HourglassNet',
        downsample_times=2,
        num_stacks=1,
        stage_channels=[CHANNELS] * 3,
        stage_blocks=[1, 1, 1],
        feat_channel=CHANNELS,
        norm_cfg=NORM,
    )
    head = dict(
        type='CornerHead',
        num_classes=CLASSES,
        in_channels=CHANNELS,
        corner_emb_channels=1,
        loss_embedding=loss,
    )
    test = dict(
        corner_topk=40,
        local_maximum_kernel=3,
        distance_threshold=0.5,
        score_thr=0.0,
        max_per_img=20,
        nms=dict(type='soft_nms', iou_threshold=0.5),
    )
    model = detector('CornerNet', bbox_head=head, test_cfg=test)
    return {**model, 'backbone': backbone, 'neck': None}


def two_stages(masks: bool = False, classes: int = CLASSES, **changes: Any) -> dict[str, Any]:
    """Return the config of a two-stage detector.

    Args:
        masks: whether it has a mask head.
        classes: number of classes.
        **changes: ``rpn``, ``box`` and ``mask`` with options of these heads, ``rpn_train`` and
            ``box_train`` with options of their training.
    """
    extractor = dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=4, sampling_ratio=1),
        out_channels=CHANNELS,
        featmap_strides=list(STRIDES),
        finest_scale=24,
    )
    box = dict(
        type='Shared2FCBBoxHead',
        in_channels=CHANNELS,
        fc_out_channels=16,
        roi_feat_size=4,
        num_classes=classes,
        bbox_coder=DELTAS,
        loss_cls=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=False),
        loss_bbox=dict(type='mmdet_ext.SmoothL1Loss'),
    )
    roi: dict[str, Any] = dict(type='StandardRoIHead', bbox_roi_extractor=extractor)
    roi['bbox_head'] = box | changes.get('box', {})
    if masks:
        roi['mask_roi_extractor'] = extractor
        roi['mask_head'] = dict(
            type='FCNMaskHead',
            num_convs=1,
            in_channels=CHANNELS,
            conv_out_channels=CHANNELS,
            roi_feat_size=4,
            num_classes=classes,
        ) | changes.get('mask', {})
    rpn = dict(
        type='RPNHead',
        in_channels=CHANNELS,
        feat_channels=CHANNELS,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[3], ratios=[0.5, 1.0, 2.0], strides=list(STRIDES)
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True),
        loss_bbox=dict(type='mmdet_ext.SmoothL1Loss', beta=1 / 9),
    )
    return detector(
        'MaskRCNN' if masks else 'FasterRCNN',
        rpn_head=rpn | changes.get('rpn', {}),
        roi_head=roi,
        **two_stage_options(changes),
    )


def two_stage_options(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the options of training and test of a two-stage detector."""
    proposals = dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7))
    usual = dict(allowed_border=-1, pos_weight=-1, debug=False)
    assigner = dict(type='mmdet_ext.MaxIoUAssigner', pos_iou_thr=0.5)
    sampler = dict(type='RandomSampler', neg_pos_ub=-1)
    rpn = usual | dict(
        assigner={**assigner, 'neg_iou_thr': 0.3, 'min_pos_iou': 0.3},
        sampler=dict(**sampler, num=32, pos_fraction=0.5, add_gt_as_proposals=False),
    )
    box = usual | dict(
        assigner={**assigner, 'neg_iou_thr': 0.5, 'match_low_quality': False},
        sampler=dict(**sampler, num=16, pos_fraction=0.25, add_gt_as_proposals=True),
        mask_size=8,
    )
    return dict(
        train_cfg=dict(
            rpn=rpn | changes.get('rpn_train', {}),
            rpn_proposal=dict(**proposals, min_bbox_size=0),
            rcnn=box | changes.get('box_train', {}),
        ),
        test_cfg=dict(
            rpn=dict(**proposals, min_bbox_size=0),
            rcnn=dict(
                score_thr=0.0,
                nms=dict(type='nms', iou_threshold=0.5),
                max_per_img=10,
                mask_thr_binary=0.5,
            ),
        ),
    )


def solo(head: str, loss: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a SOLO detector with a loss of its masks."""
    return detector(
        'SOLO',
        first_level=0,
        mask_head=dict(
            type=head,
            num_classes=CLASSES,
            in_channels=CHANNELS,
            feat_channels=CHANNELS,
            stacked_convs=1,
            strides=[8, 8, 16, 16],
            scale_ranges=((1, 32), (16, 48), (32, 64), (48, 512)),
            num_grids=[8, 6, 4, 3],
            norm_cfg=NORM,
            loss_mask=loss,
        ),
        test_cfg=dict(
            nms_pre=20,
            score_thr=0.0,
            mask_thr=0.0,
            filter_thr=0.0,
            kernel='gaussian',
            sigma=2.0,
            max_per_img=5,
        ),
    )


def with_loss(case: Case) -> tuple[str, dict[str, Any], int]:
    """Return the place of a loss, the detector that has it there, and its number of classes.

    Softmax has a column for the background, so that there is a class less than columns.
    """
    loss, target = configured(case), target_of(case)
    sigmoid = getattr(MODELS.build(loss), 'use_sigmoid', None)
    if sigmoid is not None:
        loss['use_sigmoid'] = sigmoid  # heads read it from the config
    columns = case.inputs(_generator(), 2)[0].shape[1]
    classes = columns if sigmoid or target == 'masks' else columns - 1
    if case.name == 'DiceLoss':
        logits = case.options.get('activate', True)
        return 'SOLOHead', solo('SOLOHead' if logits else 'DecoupledSOLOHead', loss), CLASSES
    if target == 'masks':
        return 'masks', two_stages(masks=True, classes=classes, mask=dict(loss_mask=loss)), classes
    if case.options.get('activated'):
        early = target == 'labels'
        place = dict(initial_loss_cls=loss) if early else dict(loss_cls=loss)
        phase = dict(initial_epoch=4 if early else 0)
        return 'TOODHead', single('TOODHead', classes=classes, train_cfg=phase, **place), classes
    if case.name == 'VarifocalLoss':
        return 'VFNetHead', single('VFNetHead', 'mmdet', classes, loss_cls=loss), classes
    head, option = PLACES[target]
    if target in ('boxes', 'offsets', 'distances'):
        classes = CLASSES
    changes: dict[str, Any] = {option: loss}
    if target == 'boxes':
        changes['reg_decoded_bbox'] = True
    if target == 'distances':
        changes['reg_max'] = columns - 1
    if head == 'YOLOXHead':
        loss['reduction'] = 'sum'  # the head divides by the number of positives
    return head, single(head, classes=classes, **changes), classes


def with_assigner(case: Case) -> tuple[str, dict[str, Any]]:
    """Return the head that suits an assigner's priors, and the detector with both."""
    assigner = configured(case)
    if case.priors != 'anchors' or 'receptive_fields' not in case.options:
        assigner = {**assigner, **LEVELS.get(case.name, {})}
    train: dict[str, Any] = dict(assigner=assigner)
    if case.priors == 'heatmap':
        return 'FCOSHead', one_level(train)
    if case.priors == 'cells':
        return 'YOLOV3Head', single('YOLOV3Head', train_cfg=train)
    if case.priors == 'points':
        head = 'YOLOXHead' if case.predicts else 'FCOSHead'
        return head, single(head, train_cfg=train)
    if case.predicts:
        return 'TOODHead', single('TOODHead', train_cfg={**train, 'initial_epoch': 0})
    return 'RetinaHead', single('RetinaHead', train_cfg=train)


def one_level(train: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a detector on the finest level alone."""
    model = single('FCOSHead', train_cfg=train, strides=STRIDES[:1], regress_ranges=((-1, 1e8),))
    model['neck'].update(in_channels=[WIDTHS[1]], start_level=0, num_outs=1)
    model['backbone'].update(out_indices=(1,))
    return model


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(0)
