# ATSS with the targets of a batch computed at once, mixed image sizes included.
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(type='mmdet_ext.ATSSHead'),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
