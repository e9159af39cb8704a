# FCOS's assignment with centre sampling.
_base_ = './rtmdet_fcos_4e_bccd.py'

model = dict(train_cfg=dict(assigner=dict(center_sampling=True)))
