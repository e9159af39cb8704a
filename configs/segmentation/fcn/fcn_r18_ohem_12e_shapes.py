# The recipe of fcn_r18_cross_entropy_12e_shapes.py, trained on hard pixels alone: mmseg's sampler
# keeps those of probability below 0.7, and at least 2,000 per image of the batch.
_base_ = './fcn_r18_cross_entropy_12e_shapes.py'

model = dict(decode_head=dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=2000)))
