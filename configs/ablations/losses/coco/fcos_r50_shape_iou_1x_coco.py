# FCOS with Shape-IoU.
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_bbox=dict(_delete_=True, type='mmdet_ext.ShapeIoULoss', loss_weight=1.0),
    ),
)
