# Beside step 2, as the quality focal loss of the later steps has no class weights: weights by the
# effective number of boxes, 1.37 for platelets, 0.29 for red and 1.34 for white cells.
_base_ = './recipe_2_stride_4_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            # Platelets, red cells and white cells of the training split.
            class_weight=dict(type='effective_number', beta=0.999, counts=[209, 2381, 214]),
            loss_weight=1.0,
        ),
    ),
)
