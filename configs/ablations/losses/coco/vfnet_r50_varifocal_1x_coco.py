# VarifocalNet with our replacement of its loss.
_base_ = 'mmdet::vfnet/vfnet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        loss_cls=dict(type='mmdet_ext.VarifocalLoss'),
    ),
)
