# SSD with our assigner. The head is ours, because that of mmdet 3.3 trains but cannot predict.
_base_ = 'mmdet::ssd/ssd300_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(type='mmdet_ext.SSDHead'),
    train_cfg=dict(assigner=dict(type='mmdet_ext.MaxIoUAssigner')),
)
