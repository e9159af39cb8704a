# Label smoothing: the classes of regions are learnt as 0.925 for the right one, and 0.025 for
# each of the three others, background included, instead of 1 and 0.
_base_ = '../detection/two_stage/faster_rcnn_r18_stock_12e_shapes.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='mmdet_ext.CrossEntropyLoss',
                label_smoothing=0.1,
                loss_weight=1.0,
            )
        )
    )
)
