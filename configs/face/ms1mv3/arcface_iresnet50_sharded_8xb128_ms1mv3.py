# IResNet-50, ArcFace, MS1MV3 on eight devices, each of which holds an eighth of the identities. The
# loss is that of arcface_iresnet50_8xb128_ms1mv3.py over the batch of all devices together.
_base_ = './arcface_iresnet50_8xb128_ms1mv3.py'

model = dict(head=dict(type='mmdet_ext.ShardedMarginHead'))
model_wrapper_cfg = dict(type='mmdet_ext.ShardedHeadDDP', broadcast_buffers=False)
default_hooks = dict(checkpoint=dict(type='mmdet_ext.ShardedCheckpointHook'))
