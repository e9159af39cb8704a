# Glint360K: 17,091,657 images of 360,232 identities, in InsightFace's records.
_base_ = './ms1mv3.py'

data_root = 'data/glint360k/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
