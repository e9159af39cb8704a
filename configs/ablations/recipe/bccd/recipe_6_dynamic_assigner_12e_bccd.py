# Beside the recipe: RTMDet's rule in place of ATSS, which chooses priors by what the head predicts.
_base_ = './recipe_5_flips_12e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(_delete_=True, type='mmdet_ext.DynamicSoftLabelAssigner', topk=13),
    ),
)
