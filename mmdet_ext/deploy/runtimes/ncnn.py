"""Networks run by ncnn on the processor, an image at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmdet_ext.deploy.errors import ModelFileError
from mmdet_ext.deploy.metadata import KEY, from_json
from mmdet_ext.deploy.runtimes.base import Runtime, check_weights, load

#: Options under which ncnn computes in other numbers than float32, most of them on by default.
REDUCED = (
    'use_fp16_packed',
    'use_fp16_storage',
    'use_fp16_arithmetic',
    'use_bf16_storage',
    'use_bf16_packed',
)

#: Begin of the line behind the layers of a ``.param`` file, which ncnn does not read.
LINE = f'# {KEY} '


class Ncnn(Runtime):
    """Network in ncnn.

    A network was traced for one size and one image, and answers others with the traced number of
    rows: other inputs are refused here. Outputs are found by their names, as ncnn lists them in
    reverse.
    """

    name = 'ncnn'
    package = 'ncnn'
    suffixes = ('.param',)
    batches = False

    def __init__(self, path: Path, threads: int | None) -> None:
        ncnn = load(self.package, self.name)
        self._ncnn = ncnn
        try:
            lines = path.read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f'{path} cannot be read as text of ncnn: {error}') from error
        self._check_whole(lines, path)
        found = [line.removeprefix(LINE) for line in lines if line.startswith(LINE)]
        self.info = from_json(found[-1] if found else None, path)
        weights = path.with_suffix('.bin')
        check_weights(self.info, path, weights)
        self._net = ncnn.Net()
        self._net.opt.use_vulkan_compute = False
        for name in REDUCED:
            if hasattr(self._net.opt, name):
                setattr(self._net.opt, name, False)
        if threads is not None:
            self._net.opt.num_threads = threads
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise ModelFileError(
                f'{path} cannot be loaded by ncnn {ncnn.__version__}: it holds a layer that this '
                'release does not have. Export it anew'
            )
        self._outputs = list(self._net.output_names())

    @staticmethod
    def _check_whole(lines: list[str], path: Path) -> None:
        """Raise where the text holds fewer layers than it announces, on which ncnn may crash."""
        try:
            whole = lines[0].strip() == '7767517' and len(lines) >= 2 + int(lines[1].split()[0])
        except (IndexError, ValueError):
            whole = False
        if not whole:
            raise ModelFileError(f'{path} is truncated, or no text file of ncnn: export it anew')

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network on one image; see `Runtime.run`."""
        images = feeds['images']
        wanted = self.info.input.size
        if images.shape[0] != 1 or tuple(images.shape[2:]) != wanted:
            raise ModelFileError(
                f'a network in ncnn takes one image of {wanted} (height, width), got an input of '
                f'{images.shape}: export one for that size'
            )
        extractor = self._net.create_extractor()
        extractor.input('in0', self._ncnn.Mat(np.ascontiguousarray(images[0])))
        found = {}
        for place, name in enumerate(self.info.output_names()):
            code, mat = extractor.extract(f'out{place}')
            if code:
                raise ModelFileError(f'ncnn computes no output {name}: error {code}')
            # ncnn has no axis of images, and keeps or drops axes of length 1 as layers left them.
            columns = {'boxes': 4, 'scores': len(self.info.classes)}.get(name)
            shape = (1, -1) if columns is None else (1, -1, columns)
            found[name] = np.array(mat).reshape(shape)
        return found
