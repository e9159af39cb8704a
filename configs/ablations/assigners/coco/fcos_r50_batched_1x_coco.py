# FCOS with the targets of a batch computed at once.
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

model = dict(bbox_head=dict(type='mmdet_ext.FCOSHead'))
