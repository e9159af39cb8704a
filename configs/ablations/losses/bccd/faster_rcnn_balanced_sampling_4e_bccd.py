# The second stage draws regions evenly: positives over the ground-truth boxes, negatives over the
# range of their IoU, as Libra R-CNN (https://arxiv.org/abs/1904.02701). mmdet's samplers draw from
# what our assigner finds, which is what mmdet's finds.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(type='mmdet_ext.MaxIoUAssigner'),
            sampler=dict(
                _delete_=True,
                type='CombinedSampler',
                num=64,
                pos_fraction=0.25,
                add_gt_as_proposals=True,
                pos_sampler=dict(type='InstanceBalancedPosSampler'),
                neg_sampler=dict(
                    type='IoUBalancedNegSampler', floor_thr=-1, floor_fraction=0, num_bins=3
                ),
            ),
        ),
    ),
)
