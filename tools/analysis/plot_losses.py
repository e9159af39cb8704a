"""Draw each loss and its gradient.

    python tools/analysis/plot_losses.py --out docs/images/losses

Box losses, all of mmdet_ext.catalog.cases, along three paths of a prediction with a target of
32 x 32 px: box_shift.png (moved past the target), box_scale.png (same centre, smaller to larger)
and box_aspect.png (same centre and area, high to wide), and with their options (box_options.png).
Classification losses by the predicted probability: classification.png, quality.png and
long_tail.png. Losses per coordinate by the error: regression.png. If mmdet has the loss too, its
value is drawn beneath, as a wide pale line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.plots.losses import draw_panels
from mmdet_ext.studies.loss_curves import loss_figures


def main(argv: list[str] | None = None) -> int:
    """Draw all figures and print their paths."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('docs/images/losses'), help='folder')
    args = parser.parse_args(argv)
    for name, (panels, gradient_label) in loss_figures().items():
        path = args.out / f'{name}.png'
        draw_panels(panels, gradient_label, path)
        print(path)
    return 0


if __name__ == '__main__':
    sys.exit(main())
