# DETR with mmdet's head: a transformer of two and two layers with 30 queries, an optimal matching,
# and no NMS. The schedule is that of the other leaves; the paper's is 500 epochs.
_base_ = [
    '../_base_/models/single_stage_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

layer = dict(
    self_attn_cfg=dict(embed_dims=64, num_heads=4, dropout=0.1, batch_first=True),
    ffn_cfg=dict(
        embed_dims=64,
        feedforward_channels=128,
        num_fcs=2,
        ffn_drop=0.1,
        act_cfg=dict(type='ReLU', inplace=True),
    ),
)
model = dict(
    type='DETR',
    num_queries=30,
    backbone=dict(out_indices=(3,)),
    neck=dict(
        _delete_=True,
        type='ChannelMapper',
        in_channels=[256],
        kernel_size=1,
        out_channels=64,
        act_cfg=None,
        norm_cfg=None,
        num_outs=1,
    ),
    encoder=dict(num_layers=2, layer_cfg=layer),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            **layer,
            cross_attn_cfg=dict(embed_dims=64, num_heads=4, dropout=0.1, batch_first=True),
        ),
        return_intermediate=True,
    ),
    positional_encoding=dict(num_feats=32, normalize=True),
    bbox_head=dict(
        type='DETRHead',
        num_classes=3,
        embed_dims=64,
        loss_cls=dict(
            type='CrossEntropyLoss',
            bg_cls_weight=0.1,
            use_sigmoid=False,
            loss_weight=1.0,
            class_weight=1.0,
        ),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        ),
    ),
    test_cfg=dict(_delete_=True, max_per_img=30),
)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=1e-4), clip_grad=dict(max_norm=0.1, norm_type=2)
)
