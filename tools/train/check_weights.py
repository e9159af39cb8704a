"""Compare a checkpoint with the model of a config: missing and unexpected weights, in groups.

    python tools/train/check_weights.py CONFIG FILE.pth

A run logs the same report where weights that it loads do not fit. This tool gives it before a run:
numbers of weights, the names by the part of the network, and both shapes of each weight whose shape
differs. Nothing is trained or written. The exit code is 0 where all fits, 1 where something
differs, and 2 for bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, 1 if something differs, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, metavar='CONFIG')
    parser.add_argument('checkpoint', type=Path, metavar='FILE.pth')
    args = parser.parse_args(argv)
    # Hosts are imported only once the arguments are read, so that --help is fast.
    from mmengine.registry import MODELS, init_default_scope

    from mmdet_ext.compat.checkpoint import load_from_local
    from mmdet_ext.compat.layouts import compare_layouts
    from mmdet_ext.engine.configs import read_config

    try:
        config = read_config(args.config)
        content = load_from_local(str(args.checkpoint), 'cpu')
        init_default_scope(config.get('default_scope', 'mmdet'))
        model = MODELS.build(config.model).state_dict()
        report = compare_layouts(model, content.get('state_dict', content))
    except (OSError, RuntimeError, AttributeError, KeyError, TypeError, ValueError) as error:
        print('error:', ' '.join(str(error).split()), file=sys.stderr)
        return 2
    print(report.counts(), *report.lines(), sep='\n')
    return 0 if report.fits else 1


if __name__ == '__main__':
    sys.exit(main())
