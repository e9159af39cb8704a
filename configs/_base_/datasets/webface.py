# WebFace42M: 42,474,557 images of 2,059,906 identities, in InsightFace's records. Its subset
# WebFace12M, also called WebFace600K, has 12,720,066 images of 617,970 identities; its leaf configs
# name another folder.
_base_ = './ms1mv3.py'

data_root = 'data/webface42m/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
