# Both stages assign by our rules: ATSS among the anchors of the RPN, max-IoU among the regions.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    rpn_head=dict(type='mmdet_ext.RPNHead'),
    train_cfg=dict(
        rpn=dict(assigner=dict(_delete_=True, type='mmdet_ext.ATSSAssigner', topk=9)),
        rcnn=dict(
            assigner=dict(
                _delete_=True,
                type='mmdet_ext.MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1,
            ),
        ),
    ),
)
