# YOLOv1 with a quarter of its channels, small enough to train on a CPU. A leaf sets num_classes.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0, 0, 0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=True,
        pad_size_divisor=64,
    ),
    backbone=dict(type='mmdet_ext.YOLOV1Backbone', width=0.25),
    bbox_head=dict(
        type='mmdet_ext.YOLOV1Head',
        num_classes=20,
        in_channels=256,
        grid_size=7,
        boxes_per_cell=2,
        fc_channels=512,
        lambda_coord=5.0,
        lambda_noobj=0.5,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.01,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
    ),
)
