"""One contender of `latency.py`, in a process of its own, so that its memory is its own.

The contender is the first argument, as JSON. The process answers each line on standard input,
``{"runs": N}``, with a line of JSON: the seconds of N runs, and the peak of its memory. A contender
that is not torch does not import it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], Any]


def main(argv: list[str]) -> int:
    """Load the contender, then answer until the input ends."""
    spec = json.loads(argv[0])
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the answers
    try:
        work, facts = LOADERS[spec['kind']](spec)
        work()
    except Exception as error:
        text = ' '.join(str(error).split())[:300] or type(error).__name__
        print(json.dumps({'error': text}), file=answers, flush=True)
        return 1
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)['runs']):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        found = {'seconds': seconds, 'peak_mib': _peak_mib()}
        print(json.dumps(found), file=answers, flush=True)
    return 0


def _peak_mib() -> float:
    """Return the peak of this process's memory, MiB.

    The system's ``ru_maxrss`` begins with the memory of the process that started this one.
    """
    try:
        lines = Path('/proc/self/status').read_text(encoding='utf-8').splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM'))


def _file(spec: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """Load a model file of tools/deploy/export.py."""
    from mmdet_ext.deploy.runtimes import open_model

    runtime = open_model(spec['path'], spec['runtime'], spec['threads'])
    size, batch = runtime.info.input.size or spec['size'], runtime.info.input.batch or 1
    feeds = {
        'images': _image(batch, size),
        'sizes': np.array([size] * batch, np.float32),
    }
    return lambda: runtime.run(feeds), dict(precision=runtime.info.precision, size=size)


def _plain(spec: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """Load an ONNX file of another project."""
    path, threads = spec['path'], spec['threads']
    if spec['runtime'] == 'onnxruntime':
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        (entry,) = session.get_inputs()
        shape = [each if isinstance(each, int) else 1 for each in entry.shape]
        feeds = {entry.name: _image(shape[0], shape[2:])}
        return lambda: session.run(None, feeds), dict(precision='float32', size=shape[2:])
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    config = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads}
    request = core.compile_model(model, 'CPU', config).create_infer_request()
    shape = list(model.inputs[0].get_shape())
    image = {0: _image(shape[0], shape[2:])}
    return lambda: request.infer(image), dict(precision='float32', size=shape[2:])


def _torch(spec: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """Build the network in torch, compiled or not."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmdet_ext.detection.export import DetectorNetwork
    from mmdet_ext.detection.export.write import load_detector

    torch.set_num_threads(spec['threads'])
    config = Config.fromfile(spec['config'])
    if spec['checkpoint'] is not None:
        model, _ = load_detector(config, Path(spec['checkpoint']))
    else:
        init_default_scope('mmdet')
        model = MODELS.build(config.model)
    network: Any = DetectorNetwork(model)
    if spec['compiled']:
        network = torch.compile(network)
    images = torch.from_numpy(_image(1, spec['size']))

    def work() -> Any:
        with torch.inference_mode():
            return network(images)

    return work, dict(precision='float32', size=spec['size'])


def _image(batch: int, size: Any) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.standard_normal((batch, 3, *size), dtype=np.float32)


LOADERS: dict[str, Callable[[dict[str, Any]], tuple[Work, dict[str, Any]]]] = {
    'file': _file,
    'plain': _plain,
    'torch': _torch,
}

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
