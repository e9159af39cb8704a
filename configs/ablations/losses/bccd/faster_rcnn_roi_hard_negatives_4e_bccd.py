# The second stage learns from the regions of the highest scores among its negatives.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    train_cfg=dict(
        rcnn=dict(
            sampler=dict(
                _delete_=True,
                type='mmdet_ext.HardNegativeSampler',
                num=64,
                pos_fraction=0.25,
                add_gt_as_proposals=True,
            ),
        ),
    ),
)
