"""The road of two-stage detectors, R-CNN to Light-Head R-CNN: accuracy against time per image.

Each detector is trained and tested by ``mim`` on the shapes (`config_runs`), and its network is
then timed here, one image at a time. Hosts are imported only where they are used.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.analysis.comparison import RunResult
from mmdet_ext.data.coco.annotations import load_coco
from mmdet_ext.data.images import decode_image
from mmdet_ext.data.proposals import (
    Search,
    find_proposals,
    grid_windows,
    selective_search,
    write_proposals,
)
from mmdet_ext.data.synthetic.shapes import make_shapes
from mmdet_ext.studies.config_runs import run_once
from mmdet_ext.utils.files import write_json

#: The stations of the road, in the order of their papers, by the name of their config.
STATIONS = {
    'rcnn': 'R-CNN',
    'sppnet': 'SPPNet',
    'fast_rcnn': 'Fast R-CNN',
    'faster_rcnn': 'Faster R-CNN',
    'rfcn': 'R-FCN',
    'light_head_rcnn': 'Light-Head R-CNN',
}
#: Those whose proposals come from a file.
SEARCHED = ('rcnn', 'sppnet', 'fast_rcnn')
#: Those with types of mmdet alone, whose configs say so in their names.
STOCK = ('fast_rcnn', 'faster_rcnn')
#: Ways to find the proposals of a file.
METHODS = ('grid', 'fast', 'quality', 'single')

_PARTS = ('train', 'val')


@dataclass(frozen=True)
class Road:
    """Folders and options of a run of the road.

    Attributes:
        data: folder of the shapes.
        configs: folder of the configs ``<station>_r18_12e_shapes.py``, those of `STOCK`
            ``<station>_r18_stock_12e_shapes.py``.
        work_dir: folder of the runs.
        method: one of `METHODS`.
        epochs: epochs of training, at least 1.
        seed: seed of training.
        images: validation images that are timed, at least 1.
    """

    data: Path
    configs: Path
    work_dir: Path
    method: str = 'grid'
    epochs: int = 12
    seed: int = 0
    images: int = 10

    def config(self, station: str) -> Path:
        """Return the config of a station."""
        stock = '_stock' if station in STOCK else ''
        return self.configs / f'{station}_r18{stock}_12e_shapes.py'


@dataclass(frozen=True)
class Stop:
    """Measurements of one station of the road.

    Attributes:
        name: name of the detector.
        precision: mAP of the test, 0 to 1.
        precision_50: mAP at IoU 0.5.
        search: seconds per image to find its proposals; 0 where its network does that.
        network: seconds per image of its network, with its suppression.
        training: seconds per iteration of training.
    """

    name: str
    precision: float
    precision_50: float
    search: float
    network: float
    training: float

    @property
    def seconds(self) -> float:
        """Seconds per image, proposals included."""
        return self.search + self.network


def travel(road: Road, stations: Sequence[str], train: int = 240, val: int = 60) -> list[Stop]:
    """Train, test and time each station; what is done before is read again.

    Args:
        road: folders and options.
        stations: keys of `STATIONS`.
        train: training images to make where the data set is absent.
        val: validation images to make then.

    Raises:
        MimError: if a run fails, or was made before with other options.
        ShapesError: if the folder of the data holds something else.
        ModuleNotFoundError: if the method needs OpenCV's contrib modules, and they are absent.
    """
    propose = proposer(road.method)
    provide_data(road, propose, train, val)
    searched = [station for station in stations if station in SEARCHED]
    search = search_seconds(road, propose) if searched else 0.0
    stops = []
    for number, station in enumerate(stations, 1):
        print(f'[{number}/{len(stations)}] {STATIONS[station]}', flush=True)
        folder = road.work_dir / station / f'seed{road.seed}'
        result = run_once(road.config(station), road.seed, folder, run_options(road, station))
        network = _network_seconds(road, station, folder)
        stop = stop_of(station, result, search if station in SEARCHED else 0.0, network)
        print(
            f'    mAP {stop.precision:.3f}, {stop.seconds:.3f} s per image (search '
            f'{stop.search:.3f}, network {stop.network:.3f})',
            flush=True,
        )
        stops.append(stop)
    return stops


def stop_of(station: str, result: RunResult, search: float, network: float) -> Stop:
    """Return the measurements of a station, whose metrics are those of COCO."""
    return Stop(
        STATIONS[station],
        result.metrics['bbox_mAP'],
        result.metrics['bbox_mAP_50'],
        search,
        network,
        result.seconds_per_iter,
    )


def proposer(method: str) -> Callable[[Any], Any]:
    """Return the function from an image to its proposals, of one of `METHODS`."""
    if method == 'grid':
        return grid_windows
    search: Search = method  # type: ignore[assignment]  # the search refuses any other
    return partial(selective_search, search=search)


def provide_data(road: Road, propose: Callable[[Any], Any], train: int, val: int) -> None:
    """Make the shapes and the files of proposals, where they are absent."""
    files = {part: road.data / f'annotations/instances_{part}.json' for part in _PARTS}
    if not all(path.is_file() for path in files.values()):
        print(f'Data: making {train} + {val} images of shapes in {road.data}', flush=True)
        make_shapes(road.data, train=train, val=val)
    for part, path in files.items():
        out = road.data / _proposal_file(road, part)
        if not out.is_file():
            found = find_proposals(path, road.data / 'images' / part, propose)
            write_proposals(found.boxes, out)
            print(f'Proposals by {road.method}: {out}\n    {found}', flush=True)


def run_options(road: Road, station: str) -> list[str]:
    """Return the ``--cfg-options`` of a station: its data, proposals and length.

    R-CNN is validated at the end alone, as it is the slowest of all by far.
    """
    data = road.data.resolve()
    every = road.epochs if station == 'rcnn' else 1
    options = [f'train_dataloader.dataset.data_root={data}']
    for part in ('val', 'test'):
        options.append(f'{part}_dataloader.dataset.data_root={data}')
        options.append(f'{part}_evaluator.ann_file={data}/annotations/instances_val.json')
    if station in SEARCHED:
        options += [
            f'{loader}_dataloader.dataset.proposal_file={_proposal_file(road, part)}'
            for loader, part in (('train', 'train'), ('val', 'val'), ('test', 'val'))
        ]
    return options + [
        f'train_cfg.max_epochs={road.epochs}',
        f'train_cfg.val_interval={every}',
        f'param_scheduler.1.T_max={road.epochs}',
        f'param_scheduler.1.end={road.epochs}',
    ]


def search_seconds(road: Road, propose: Callable[[Any], Any]) -> float:
    """Measure the median time to propose boxes for a validation image, seconds."""
    coco = load_coco(road.data / 'annotations/instances_val.json')
    folder = road.data / 'images/val'
    paths = [folder / image['file_name'] for image in coco['images'][: road.images]]
    images = [decode_image(path.read_bytes()) for path in paths]
    return _median_seconds(propose, images)


def _network_seconds(road: Road, station: str, folder: Path) -> float:
    """Measure the median time of a trained network per image, or read what was measured before."""
    done = folder / 'seconds.json'
    if done.is_file():
        content = json.loads(done.read_text(encoding='utf-8'))
        if content['images'] == road.images:
            return float(content['seconds'])
    from mmengine.config import Config, DictAction
    from mmengine.runner import Runner

    config = Config.fromfile(road.config(station))
    pairs = (option.split('=', 1) for option in run_options(road, station))
    config.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
    loader = config.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    loader.dataset.indices = road.images
    config.work_dir = str(folder / 'timing')
    config.load_from = (folder / 'last_checkpoint').read_text(encoding='utf-8').strip()
    config.visualizer = dict(type='DetLocalVisualizer', name=f'timing of {station}')
    runner = Runner.from_cfg(config)
    runner.load_or_resume()
    model = runner.model.eval()
    seconds = _median_seconds(model.test_step, list(runner.test_dataloader))
    write_json(done, {'images': road.images, 'seconds': seconds})
    return seconds


def _median_seconds(call: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """Return the median time of a call, after one on the first input that is not counted."""
    call(inputs[0])
    seconds = []
    for each in inputs:
        begin = time.perf_counter()
        call(each)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def road_table(stops: Sequence[Stop]) -> str:
    """Format the measurements as a Markdown table, one line per station.

    >>> print(road_table([Stop('R-CNN', 0.25, 0.5, 0.5, 1.5, 2.0)]).splitlines()[-1])
    | R-CNN | 0.250 | 0.500 | 0.500 | 1.500 | 2.000 | 1.0 | 2.00 |
    """
    title = ['detector', 'mAP', 'mAP 50', 'search s', 'network s', 's / image', 'times as fast']
    rows = [[*title, 's / iteration'], ['---'] + ['---:'] * len(title)]
    for stop in stops:
        numbers = (stop.precision, stop.precision_50, stop.search, stop.network, stop.seconds)
        faster = stops[0].seconds / max(stop.seconds, float(np.finfo(float).tiny))
        texts = [f'{number:.3f}' for number in numbers]
        rows.append([stop.name, *texts, f'{faster:.1f}', f'{stop.training:.2f}'])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def road_json(road: Road, stops: Sequence[Stop]) -> dict[str, Any]:
    """Return options and measurements as plain values."""
    options = {key: value for key, value in asdict(road).items() if not isinstance(value, Path)}
    return {**options, 'stations': [asdict(stop) | {'seconds': stop.seconds} for stop in stops]}


def _proposal_file(road: Road, part: str) -> str:
    return f'proposals/{road.method}_{part}.pkl'
