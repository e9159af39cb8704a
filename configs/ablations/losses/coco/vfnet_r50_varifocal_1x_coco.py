# VarifocalNet with our replacement of its loss.
_base_ = 'mmdet::vfnet/vfnet_r50_fpn_1x_coco.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(type='mmdet_ext.VarifocalLoss'),
    ),
)
