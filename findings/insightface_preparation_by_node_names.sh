#!/usr/bin/env bash
# InsightFace 0.7.3 and 2.1 choose the mean and divisor of an ONNX recogniser by the names of its first nodes.
#
# Versions:  insightface 0.7.3 and 2.1, onnx 1.19.1, onnxruntime 1.23.2, numpy 2.2.6
# Input:     a recogniser that subtracts 127.5 and multiplies by 1/128 itself, as those converted from MXNet do,
#            once with its nodes named _minusscalar0 and _mulscalar0, once with the same nodes renamed.
# Seen:      named     mean 0.0 std 1.0
#            renamed   mean 127.5 std 127.5, cosine to the embedding above: below 0.5
#            The names are the only difference between the files. A node is taken for the subtraction if its
#            name starts with Sub or _minus, whatever it computes.
# Matters:   onnxsim, onnxruntime's optimiser and PyTorch's exporters rename nodes. The network then gets images
#            that are normalised twice: embeddings are wrong without an error, and fit no gallery.
#            mmdet_ext's InsightFaceEmbedder takes mean and std as options, and counts them to the identity of
#            the recogniser.
# Fails if a release infers otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install numpy==2.2.6 onnx==1.19.1 onnxruntime==1.23.2 opencv-python-headless scikit-image

cat > "$folder/names.py" <<'PYTHON'
import sys
import types
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The package itself imports much that is not needed here: only its folders are made known.
package = next(Path(folder) / 'insightface' for folder in sys.path if (Path(folder) / 'insightface').is_dir())
for name, path in (('', package), ('.utils', package / 'utils'), ('.model_zoo', package / 'model_zoo')):
    module = types.ModuleType(f'insightface{name}')
    module.__path__ = [str(path)]
    sys.modules[f'insightface{name}'] = module
import onnxruntime
from insightface.model_zoo.arcface_onnx import ArcFaceONNX

table = np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32)
values = {'mean': np.float32(127.5), 'factor': np.float32(1 / 128), 'table': table}


def embedding(names):
    nodes = [
        helper.make_node('Sub', ['x', 'mean'], ['a'], name=names[0]),
        helper.make_node('Mul', ['a', 'factor'], ['b'], name=names[1]),
        helper.make_node('AveragePool', ['b'], ['c'], name='pool', kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node('Flatten', ['c'], ['d'], name='flat'),
        helper.make_node('MatMul', ['d', 'table'], ['y'], name='last'),
    ]
    graph = helper.make_graph(
        nodes,
        'face',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 8])],
        [numpy_helper.from_array(np.array(value), key) for key, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    onnx.save(model, sys.argv[1])
    session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
    network = ArcFaceONNX(sys.argv[1], session)
    image = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    row = network.get_feat(image)[0]
    return network, row / np.linalg.norm(row)


named, one = embedding(('_minusscalar0', '_mulscalar0'))
renamed, other = embedding(('node_0', 'node_1'))
print('named', named.input_mean, named.input_std)
print('renamed', renamed.input_mean, renamed.input_std, 'alike' if one @ other > 0.5 else 'cosine below 0.5')
PYTHON

for release in 0.7.3 2.1; do
    "${pip[@]}" install --no-deps "insightface==$release"
    echo "insightface $release"
    "$folder/venv/bin/python" "$folder/names.py" "$folder/face.onnx"
done | tee "$folder/seen.txt"

diff - "$folder/seen.txt" <<'EXPECTED' || { echo 'the behaviour has changed' >&2; exit 1; }
insightface 0.7.3
named 0.0 1.0
renamed 127.5 127.5 cosine below 0.5
insightface 2.1
named 0.0 1.0
renamed 127.5 127.5 cosine below 0.5
EXPECTED
echo 'as described'
