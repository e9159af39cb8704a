"""Print and draw the parameters, operations, time and sizes per layer of detectors.

    python tools/analysis/zoo_table.py --out work_dirs/zoo
    python tools/analysis/zoo_table.py configs/zoo_small/ssd_small_12e_shapes.py --out work_dirs/zoo

Without CONFIG it takes all of configs/zoo_small. It writes zoo.json, zoo.md, costs.png and
sizes_<config>.png. Detectors have random weights and predict an image of noise, with one thread; a
multiplication and its addition are two operations. The receptive field of each layer of
backbone and neck is computed by the formula and by gradients.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ZOO = Path(__file__).resolve().parents[2] / 'configs' / 'zoo_small'


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    import torch
    from mmengine.logging import MMLogger

    from mmdet_ext.engine.errors import InputError, explained
    from mmdet_ext.plots.architecture import draw_costs, draw_sizes
    from mmdet_ext.utils.files import write_json, write_text

    # MMEngine logs how each weight is initialised.
    MMLogger.get_instance('zoo_table', log_level='WARNING')
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    rows = []
    try:
        # Wrong configs are named before the first is measured.
        configs = [_detector_config(path) for path in args.configs]
        args.out.mkdir(parents=True, exist_ok=True)
        for number, (path, config) in enumerate(zip(args.configs, configs, strict=True), 1):
            print(f'{number} of {len(configs)}: {path.stem}', file=sys.stderr, flush=True)
            with explained(f'cannot measure {path}', with_place=True):
                row = _row(path.stem, config, args)
            rows.append(row)
            side = max(row['width'], row['height'])
            draw_sizes(path.stem, row['layers'], side, args.out / f'sizes_{path.stem}.png')
    except (OSError, InputError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(threads)
    draw_costs(rows, args.out / 'costs.png')
    write_json(args.out / 'zoo.json', {'seed': args.seed, 'runs': args.runs, 'rows': _plain(rows)})
    write_text(args.out / 'zoo.md', table(rows) + '\n')
    print(table(rows))
    return 0


def _detector_config(path: Path) -> Any:
    """Read the config of a detector; raise InputError for one of another task."""
    from mmdet_ext.engine.configs import read_config
    from mmdet_ext.engine.errors import InputError

    config = read_config(path)
    scope = config.get('default_scope', 'mmdet')
    if scope != 'mmdet':
        raise InputError(
            f"{path} is of default_scope {scope!r}, and the table is of mmdet's detectors: give "
            'configs of these'
        )
    return config


def _row(name: str, cfg: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Build a detector; return its cost and the sizes of the layers of backbone and neck."""
    from mmdet_ext.detection.inspection.cost import (
        build_detector,
        example,
        features_of,
        image_size,
        measure_cost,
    )
    from mmdet_ext.studies.receptive_field import layer_fields

    model = build_detector(cfg, args.seed)
    data = example(cfg, *image_size(cfg, tuple(args.size)), args.seed)
    cost = measure_cost(model, data, args.runs)
    layers = layer_fields(*features_of(model, data))
    return {'name': name, **asdict(cost), 'layers': [asdict(layer) for layer in layers]}


def table(rows: list[dict[str, Any]]) -> str:
    """Format a Markdown table with a line per detector.

    Map and field are those of the last layer of the backbone; the layers that agree are of all.
    """
    lines = [
        '| config | image | M parameters | GFLOPs | ms | IQR ms | last map | field, formula '
        '| measured | layers that agree |',
        '| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |',
    ]
    for row in rows:
        last = [layer for layer in row['layers'] if layer['name'].startswith('backbone')][-1]
        height, width = last['map_size']
        with_formula = [layer['agrees'] for layer in row['layers'] if layer['agrees'] is not None]
        lines.append(
            f'| {row["name"]} | {row["width"]} x {row["height"]} | {row["parameters"] / 1e6:.2f} '
            f'| {row["gflops"]:.2f} | {row["median_ms"]:.1f} | {row["iqr_ms"]:.1f} '
            f'| {width} x {height} | {_shown(last["field"])} | {_shown(last["measured"])} '
            f'| {sum(with_formula)} of {len(with_formula)} |'
        )
    return '\n'.join(lines)


def _shown(field: float | None) -> str:
    if field is None:
        return '-'
    return 'image' if field == math.inf else f'{field:.0f}'


def _plain(value: Any) -> Any:
    """Write an infinite field as 'image', as JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return 'image' if value == math.inf else value


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', type=Path, metavar='CONFIG', help='default: the zoo')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(240, 180),
        metavar=('WIDTH', 'HEIGHT'),
        help='size of the image in px; a config that resizes to one size keeps it '
        '(default: 240 180)',
    )
    parser.add_argument('--runs', type=int, default=5, help='timed predictions; default: 5')
    parser.add_argument('--threads', type=int, default=1, help='default: 1')
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    args = parser.parse_args(argv)
    args.configs = args.configs or sorted(ZOO.glob('*.py'))
    return args


if __name__ == '__main__':
    sys.exit(main())
