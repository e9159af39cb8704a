# R-CNN: each proposal is cut out of the image, warped to 64 px, and goes through a narrow ResNet-18
# of its own. A softmax and the box regression are trained together, in place of SVMs afterwards.
# Validation runs the network for each of thousands of proposals: it comes every sixth epoch.
_base_ = [
    '../../_base_/models/fast_rcnn_r18_c5.py',
    '../../_base_/datasets/shapes_proposals.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    backbone=dict(_delete_=True, type='mmdet_ext.IdentityBackbone'),
    neck=None,
    roi_head=dict(
        bbox_roi_extractor=dict(
            _delete_=True,
            type='mmdet_ext.RCNNWarpRoIExtractor',
            backbone=dict(
                type='ResNet',
                depth=18,
                base_channels=16,
                out_indices=(3,),
                norm_cfg=dict(type='BN', requires_grad=True),
                norm_eval=False,
            ),
            out_channels=128,
            output_size=2,
            crop_size=64,
            context=4,
        ),
        bbox_head=dict(
            _delete_=True,
            type='BBoxHead',
            with_avg_pool=True,
            roi_feat_size=2,
            in_channels=128,
            num_classes=3,
        ),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=32))),
)
train_dataloader = dict(batch_size=4)
train_cfg = dict(val_interval=6)
