# R-FCN: 7 x 7 position-sensitive maps per output, whose bins vote; the 64 hardest RoIs per image
# teach. 8 outputs: three classes, the background, and the four numbers of a box.
_base_ = [
    '../../_base_/models/faster_rcnn_r18_c5.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    roi_head=dict(
        bbox_roi_extractor=dict(
            _delete_=True,
            type='mmdet_ext.PSRoIPool',
            in_channels=64,
            out_channels=8,
            output_size=7,
            featmap_strides=[8],
        ),
        bbox_head=dict(
            _delete_=True,
            type='mmdet_ext.RFCNHead',
            num_classes=3,
            roi_feat_size=7,
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder',
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[0.1, 0.1, 0.2, 0.2],
            ),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(type='OHEMSampler'))),
)
train_dataloader = dict(batch_size=4)
