# R-FCN: position-sensitive maps whose bins vote.
_base_ = '../detection/two_stage/rfcn_r18_12e_shapes.py'
