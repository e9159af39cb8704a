# Mixed precision: most of the network in float16, with a scaled loss. Needs a GPU.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
