# IResNet-50, ArcFace, MS1MV3 on one device, with a tenth of the identities in each step: Partial FC
# with a rate of 0.1, as InsightFace's names pfc02 say 0.2. Sampling is for one process.
_base_ = './arcface_iresnet50_1xb128_ms1mv3.py'

model = dict(head=dict(sample_rate=0.1))
