# Faster R-CNN with smooth L1 in both stages.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    rpn_head=dict(
        loss_bbox=dict(
            _delete_=True, type='mmdet_ext.SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0
        ),
    ),
    roi_head=dict(
        bbox_head=dict(
            loss_bbox=dict(_delete_=True, type='mmdet_ext.SmoothL1Loss', beta=1.0, loss_weight=1.0),
        ),
    ),
)
