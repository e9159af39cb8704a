# YOLOv2 with a quarter of its channels, small enough to train on a CPU. A leaf sets num_classes and
# anchors.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0, 0, 0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type='mmdet_ext.Darknet19', width=0.25),
    neck=dict(
        type='mmdet_ext.YOLOV2Neck', in_channels=[128, 256], out_channels=256, fine_channels=16
    ),
    bbox_head=dict(
        type='mmdet_ext.YOLOV2Head',
        num_classes=20,
        in_channels=320,
        feat_channels=256,
        prior_samples=1000,
    ),
    train_cfg=dict(assigner=dict(type='mmdet_ext.YOLOv3Assigner', ignore_iou_thr=0.6)),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.01,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=100,
    ),
)
