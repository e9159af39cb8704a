# mmseg's cross entropy, the reference of the configs beside it.
_base_ = [
    '../../_base_/models/unet_s4.py',
    '../../_base_/datasets/shapes_masks_half.py',
    '../../_base_/schedules/adamw_36e_small.py',
    '../../_base_/segmentation_runtime.py',
]

model = dict(decode_head=dict(num_classes=4))
