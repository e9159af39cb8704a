#!/usr/bin/env bash
# MMEngine's EMAHook: runner.test() after runner.train() tests the weights that are not averaged.
#
# Versions:  mmengine 0.10.7, torch 2.11.0
# Input:     a model of one weight that every step raises by 1, four steps, averages with momentum 0.5, and
#            a metric that reports the weight it was evaluated with. Averaged after the steps, the
#            weight is 3.125; without averaging it is 4.
# Seen:      validation within the training evaluates 3.125. runner.test() on the same runner evaluates 4.
#            A new runner that tests the checkpoint of that epoch evaluates 3.125.
#            At the beginning of each loop the hook makes its averaged model anew, from the weights that
#            the model has by then.
# Matters:   a script that trains and then tests reports figures of other weights than those that the
#            validation chose and the checkpoint stores; no message says so.
# Fails if any of these three numbers changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    mmengine==0.10.7 torch==2.11.0 numpy==2.4.6 'setuptools<81'
"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import sys

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner


class OneWeight(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode='tensor'):
        if mode == 'loss':
            return dict(loss=-self.weight.sum())
        return [self.weight.item()]


class Evaluated(BaseMetric):
    default_prefix = 'evaluated'

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(weight=results[0])


def runner(name, training, **options):
    def loader(length):
        sampler = dict(type='DefaultSampler', shuffle=False)
        first = lambda items: dict(inputs=torch.tensor(items[:1]))
        return dict(dataset=[0] * length, batch_size=1, sampler=sampler, collate_fn=first)

    if training:
        options |= dict(
            train_cfg=dict(by_epoch=True, max_epochs=1),
            train_dataloader=loader(4),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
            val_cfg={},
            val_dataloader=loader(1),
            val_evaluator=[Evaluated()],
        )
    return Runner(
        OneWeight(),
        work_dir=f'{sys.argv[1]}/{name}',
        test_cfg={},
        test_dataloader=loader(1),
        test_evaluator=[Evaluated()],
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
        experiment_name=name,
        log_level='ERROR',
        **options,
    )


# MMEngine 0.10.7 reads its own checkpoints only in the way that torch had before 2.6.
load = torch.load
torch.load = lambda *args, **options: load(*args, **{**options, 'weights_only': False})

trained = runner('training', training=True)
trained.train()
validated = trained.message_hub.get_scalar('val/evaluated/weight').current()
same_runner = trained.test()['evaluated/weight']
path = f'{sys.argv[1]}/training/epoch_1.pth'
new_runner = runner('testing', training=False, load_from=path).test()['evaluated/weight']

print(f'mmengine 0.10.7: validation evaluates {validated}, runner.test() afterwards {same_runner}, '
      f'a new runner with the checkpoint {new_runner}')
if (validated, same_runner, new_runner) != (3.125, 4.0, 3.125):
    sys.exit('the behaviour has changed; expected 3.125, 4.0, 3.125')
print('as described')
PYTHON
