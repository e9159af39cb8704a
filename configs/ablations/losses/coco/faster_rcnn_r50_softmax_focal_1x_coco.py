# Faster R-CNN with softmax focal loss, classes weighted by 1 / log(1.10 + frequency).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='mmdet_ext.FocalLoss',
                use_sigmoid=False,
                gamma=2.0,
                alpha=dict(type='inverse_log', counts='batch'),
                loss_weight=1.0,
            ),
        ),
    ),
)
