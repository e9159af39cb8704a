# SPPNet: the image goes through the network once, and each proposal is pooled from the last map
# into grids of 6, 3, 2 and 1 bins per side. All is trained together, in place of one part after
# another.
_base_ = [
    '../../_base_/models/fast_rcnn_r18_c5.py',
    '../../_base_/datasets/shapes_proposals.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    roi_head=dict(
        bbox_roi_extractor=dict(
            _delete_=True,
            type='mmdet_ext.SPPRoIExtractor',
            out_channels=64,
            featmap_strides=[8],
            pyramid=(6, 3, 2, 1),
        ),
        bbox_head=dict(roi_feat_size=(50, 1), num_classes=3),
    ),
)
train_dataloader = dict(batch_size=4)
