# Faster R-CNN with the balanced L1 loss of Libra R-CNN.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_bbox=dict(_delete_=True, type='mmdet_ext.BalancedL1Loss', loss_weight=1.0),
        ),
    ),
)
