# The recipe for BCCD from scratch: GFL on levels of stride 4 to 64, batches of 4, flips in three
# directions, and Gaussian soft-NMS. configs/ablations/recipe/bccd/ has it step by step.
_base_ = '../../ablations/recipe/bccd/recipe_5_flips_12e_bccd.py'

custom_imports = dict(
    imports=['mmdet_ext.compat', 'mmdet_ext.detection'], allow_failed_imports=False
)
model = dict(
    test_cfg=dict(
        score_thr=0.01,
        nms=dict(
            _delete_=True,
            type='mmdet_ext.soft_nms',
            method='gaussian',
            iou_threshold=0.5,
            sigma=0.5,
            min_score=0.05,
        ),
    ),
)
