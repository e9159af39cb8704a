# YOLOv5s, layout v6, for 80 classes. Depth and width make the other sizes: n, m and l.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0, 0, 0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        # The grey of the mosaic, after the division by 255.
        pad_value=114 / 255,
    ),
    backbone=dict(type='mmdet_ext.YOLOv5Backbone', depth=0.33, width=0.5),
    neck=dict(type='mmdet_ext.YOLOv5Neck', in_channels=[128, 256, 512], depth=0.33),
    bbox_head=dict(
        type='mmdet_ext.YOLOv5Head',
        num_classes=80,
        in_channels=[128, 256, 512],
        anchors=[
            [(10, 13), (16, 30), (33, 23)],
            [(30, 61), (62, 45), (59, 119)],
            [(116, 90), (156, 198), (373, 326)],
        ],
        strides=[8, 16, 32],
        image_size=640,
        level_weights=[4.0, 1.0, 0.4],
        loss_cls=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5),
        loss_bbox=dict(type='mmdet_ext.CIoULoss', eps=1e-12, aspect_thr=None, loss_weight=0.05),
        loss_obj=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(type='mmdet_ext.YOLOv5Assigner', ratio_thr=4.0)),
    test_cfg=dict(
        multi_label=True,
        nms_pre=30000,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.65),
        max_per_img=300,
    ),
)
