# SPPNet: the map of the image, pooled into grids of several sizes per proposal.
_base_ = '../detection/two_stage/sppnet_r18_12e_shapes.py'
