# YOLOv4 as published, for 80 classes. `model.bbox_head` takes the deepest level first.
model = dict(
    type='mmdet_ext.YOLOV4',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0, 0, 0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type='mmdet_ext.CSPDarknet53'),
    neck=dict(type='mmdet_ext.YOLOV4Neck', in_channels=[256, 512, 1024]),
    bbox_head=dict(
        type='mmdet_ext.YOLOV3Head',
        num_classes=80,
        in_channels=[512, 256, 128],
        out_channels=[1024, 512, 256],
        anchor_generator=dict(
            type='YOLOAnchorGenerator',
            base_sizes=[
                [(142, 110), (192, 243), (459, 401)],
                [(36, 75), (76, 55), (72, 146)],
                [(12, 16), (19, 36), (40, 28)],
            ],
            strides=[32, 16, 8],
        ),
        bbox_coder=dict(type='YOLOBBoxCoder'),
        featmap_strides=[32, 16, 8],
        scale_x_y=[1.05, 1.1, 1.2],
        loss_cls=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True, reduction='sum'),
        loss_conf=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True, reduction='sum'),
        loss_bbox=dict(type='mmdet_ext.CIoULoss', loss_weight=0.07, reduction='sum'),
    ),
    train_cfg=dict(
        assigner=dict(type='mmdet_ext.YOLOv4Assigner', iou_thr=0.213, ignore_iou_thr=0.7)
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.001,
        conf_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
