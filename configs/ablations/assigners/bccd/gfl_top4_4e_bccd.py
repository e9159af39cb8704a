# GFL with ATSS that has four candidates per level instead of nine: cells are small and many.
_base_ = 'gfl_batched_4e_bccd.py'

model = dict(train_cfg=dict(assigner=dict(topk=4)))
