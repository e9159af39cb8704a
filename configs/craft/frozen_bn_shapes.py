# Frozen batch norms in the backbone, for fine-tuning with small batches: their statistics and
# factors stay those of the weights that load_from names.
#     mim train mmdet configs/craft/frozen_bn_shapes.py --cfg-options load_from=CHECKPOINT
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

model = dict(backbone=dict(norm_cfg=dict(requires_grad=False), norm_eval=True, frozen_stages=1))
optim_wrapper = dict(optimizer=dict(lr=3e-4))
