# TOOD: ATSS in the first epochs, task-aligned assignment afterwards, for a batch at once.
_base_ = 'mmdet::tood/tood_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(type='mmdet_ext.TOODHead'),
    train_cfg=dict(
        initial_assigner=dict(type='mmdet_ext.ATSSAssigner'),
        assigner=dict(type='mmdet_ext.TaskAlignedAssigner'),
    ),
)
