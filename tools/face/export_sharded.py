"""Write a plain checkpoint from one of ShardedCheckpointHook, for `mim test` and `load_from`.

    python tools/face/export_sharded.py work_dirs/run/sharded/epoch_3 backbone.pth
    python tools/face/export_sharded.py work_dirs/run/sharded backbone.pth
    python tools/face/export_sharded.py work_dirs/run/sharded/epoch_3 whole.pth --centers

A folder of checkpoints stands for the latest complete one in it. The file has all of the model but
the centres of the classes; --centers adds their whole table, for a MarginHead in one process.
Optimizer and schedules are left behind.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.face.sharding.checkpoint_folders import MANIFEST, latest_checkpoint
from mmdet_ext.face.sharding.checkpoints import export_checkpoint


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='a checkpoint, or a folder of checkpoints')
    parser.add_argument('out', type=Path, help='file to write, which ends in .pth')
    parser.add_argument('--centers', action='store_true', help='add the table of all centres')
    args = parser.parse_args(argv)
    try:
        if args.out.suffix != '.pth':
            raise ValueError(f'out must end in .pth, got {args.out}')
        folder = args.folder
        if not (folder / MANIFEST).is_file():
            folder = latest_checkpoint(folder) or folder
        names = export_checkpoint(folder, args.out, centers=args.centers)
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{folder}: {len(names)} tensors in {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
