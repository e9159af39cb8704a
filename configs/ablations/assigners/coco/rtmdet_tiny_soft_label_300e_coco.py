# RTMDet-tiny with an assignment whose cost does not grow with the number of classes.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(type='mmdet_ext.RTMDetSepBNHead'),
    train_cfg=dict(assigner=dict(type='mmdet_ext.DynamicSoftLabelAssigner')),
)
