"""Demonstration of margins: four losses side by side, on embeddings of two numbers to be drawn.

    python tools/face/digits_demo.py --out work_dirs/digits

Trains configs/ablations/margins/digits/{softmax,softmax_center,sphereface,arcface}_digits.py on
the digits 0 to 6, half a minute each on one core, and draws test images of all ten digits: 7, 8
and 9 are as new to the network as people are to a face recogniser. Prints a table, and writes to
the folder digits.png, digits.json (its figures), and one folder per run with its log, its
checkpoint, and scatter/scatter.gif, which shows the embeddings during training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from mmdet_ext.face.studies.digits import TITLES, Figures, save, table, train_and_measure, verdict

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'ablations' / 'margins' / 'digits'
DEFAULT_RUNS = ('softmax', 'softmax_center', 'sphereface', 'arcface')


class _Progress(Hook):  # type: ignore[misc]
    """Hook that prints epoch and loss: on one line of a terminal, else on every eighth epoch."""

    priority = 'VERY_LOW'

    def __init__(self, name: str) -> None:
        self.name = name

    def after_train_epoch(self, runner: Any) -> None:
        """Print epoch and loss."""
        done, last = runner.epoch + 1, runner.max_epochs
        terminal = sys.stdout.isatty()
        if terminal or done == last or done % 8 == 0:
            loss = runner.message_hub.get_scalar('train/loss').mean(len(runner.train_dataloader))
            text = f'{self.name}: epoch {done}/{last}, loss {loss:.3f}'
            end = '\r' if terminal and done < last else '\n'
            print(f'{text:60}', end=end, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the demonstration; return 0, or 2 for bad input."""
    args = _parse(argv)
    threads = torch.get_num_threads()
    # Several threads would slow down so small a network, and change its sums.
    torch.set_num_threads(1)
    try:
        _check(args)
        args.out.mkdir(parents=True, exist_ok=True)
        demonstrate(args.runs, args.out, args.seed, args.epochs)
    except (ImportError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        torch.set_num_threads(threads)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='folder')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--runs',
        nargs='+',
        choices=list(TITLES),
        default=list(DEFAULT_RUNS),
        metavar='RUN',
        help=f'of {", ".join(TITLES)}; default: the first four',
    )
    parser.add_argument('--epochs', type=int, help='instead of what the configs say')
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError, naming the argument, if one is out of range."""
    if args.seed < 0:
        raise ValueError(f'--seed must be at least 0, got {args.seed}')
    if args.epochs is not None and args.epochs < 2:
        raise ValueError(f'--epochs must be at least 2, got {args.epochs}')
    if len(set(args.runs)) < len(args.runs):
        raise ValueError(f'--runs must name each run once, got {" ".join(args.runs)}')


def demonstrate(runs: list[str], out: Path, seed: int, epochs: int | None) -> list[Figures]:
    """Train and measure the runs, print their figures, and write them to a folder."""
    measured = [
        train_and_measure(name, CONFIGS, out, seed, epochs, [_Progress(TITLES[name])])
        for name in runs
    ]
    figures = [found for found, _ in measured]
    print(f'\n{table(figures)}\n\n{verdict(figures)}')
    print(f'\n{save(figures, [panel for _, panel in measured], seed, out)}')
    return figures


if __name__ == '__main__':
    sys.exit(main())
