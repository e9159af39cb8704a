# The first row of the comparison of samplers, where a class is in few images: 1 to 3 shapes in
# each, and 7 images in 100 have a triangle. All images are drawn alike. Data:
# `python tools/data/make_shapes.py --out data/shapes_few --train 600 --val 600 --shapes 1 3`.
_base_ = '../../_base_/half_atss_8e_shapes.py'

data_root = 'data/shapes_few/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
