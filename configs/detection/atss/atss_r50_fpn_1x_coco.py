# mmdet's COCO config with our assigner and box loss.
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(loss_bbox=dict(_delete_=True, type='mmdet_ext.CIoULoss', loss_weight=2.0)),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
