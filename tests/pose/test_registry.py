"""Codecs of ours resolve from MMPose's registry, whichever is imported first."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mmdet_ext.catalog.hosts import host

BUILD = """
codec = KEYPOINT_CODECS.build(dict(type='mmdet_ext.AssociativeEmbeddingCodec', input_size=(32, 32),
                                   heatmap_size=(8, 8)))
print(type(codec).__module__, type(codec).__name__)
"""
FOUND = 'mmdet_ext.pose.codecs.associative_embedding AssociativeEmbeddingCodec'

ORDERS = {
    'ours first': 'import mmdet_ext.registry\nfrom mmpose.registry import KEYPOINT_CODECS',
    'MMPose first': 'from mmpose.registry import KEYPOINT_CODECS\nimport mmdet_ext.registry',
    'our losses first': 'import mmdet_ext.pose.losses\nfrom mmpose.registry import KEYPOINT_CODECS',
    'in the scope of MMPose': 'from mmengine.registry import init_default_scope\n'
    "init_default_scope('mmpose')\nfrom mmpose.registry import KEYPOINT_CODECS",
}


def run(script: str) -> str:
    """Run a script in a fresh process; return the last line that it prints."""
    command = [sys.executable, '-W', 'ignore', '-c', script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.subprocess
@pytest.mark.skipif(not host('mmpose').is_installed(), reason='MMPose is absent')
@pytest.mark.parametrize('order', ORDERS.values(), ids=ORDERS)
def test_a_codec_resolves_in_every_order_of_imports(order: str) -> None:
    assert run(f'{order}\n{BUILD}') == FOUND


@pytest.mark.subprocess
@pytest.mark.skipif(not host('mmpose').is_installed(), reason='MMPose is absent')
def test_full_paths_errors_and_names_of_another_package() -> None:
    script = """
import mmdet_ext.registry
from mmpose.registry import KEYPOINT_CODECS
sizes = dict(input_size=(32, 32), heatmap_size=(8, 8))
path = 'mmdet_ext.pose.codecs.part_affinity.PartAffinityField'
names = [type(KEYPOINT_CODECS.build(dict(type=path, **sizes))).__name__]
for kind in ('mmdet_ext.PartAfinityField', 'mmdet_ext.torch.nn.Linear'):
    try:
        names.append(str(KEYPOINT_CODECS.get(kind)))
    except KeyError as error:
        names.append(str(error))
import json
print(json.dumps(names))
"""
    path, close, other = json.loads(run(script))
    assert path == 'PartAffinityField'
    assert "did you mean 'PartAffinityField'?" in close
    assert 'PartAffinityField' in other and 'Linear' in other


@pytest.mark.subprocess
def test_runs_without_poses_import_nothing_of_mmpose() -> None:
    script = """
import sys
import mmdet_ext.registry, mmdet_ext.pose.losses, mmdet_ext.face.losses
print([name for name in sys.modules if name.partition('.')[0] == 'mmpose'])
"""
    assert run(script) == '[]'


@pytest.mark.subprocess
def test_without_mmpose_only_what_needs_it_is_hidden() -> None:
    script = """
import json, sys
sys.modules['mmpose'] = None  # its import fails
from mmdet_ext.registry import KEYPOINT_CODECS, MODELS
losses = [type(MODELS.build(dict(type='mmdet_ext.' + name))).__name__
          for name in ('KeypointHeatmapLoss', 'AssociativeEmbeddingLoss', 'HeatmapGroupingLoss',
                       'PartAffinityFieldLoss', 'CIoULoss')]
errors = []
for nodes, name in ((KEYPOINT_CODECS, 'PartAffinityField'), (MODELS, 'PartAffinityFieldHead')):
    try:
        nodes.get(name)
    except ImportError as error:
        errors.append(str(error))
print(json.dumps([losses, errors]))
"""
    losses, errors = json.loads(run(script))
    assert len(losses) == 5 and len(errors) == 2
    for error in errors:
        assert "could not be imported; install it: `pip install 'mmpose>=1.3.2,<2'`" in error
