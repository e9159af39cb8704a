"""Draw margins: decision boundaries, the own class's score by angle, and its slope.

    python tools/face/plot_margins.py --out docs/images/face

margin_boundaries.png shows the regions of two classes, by the angles to both centres.
margin_scores.png shows the score that replaces the cosine, for all margins of
mmdet_ext.MarginHead, and below it the factor on the gradient, which is 1 for the cosine itself.
The margins themselves compute all curves.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.plots.margins import draw_boundaries, draw_scores
from mmdet_ext.studies.margin_curves import boundaries, score_panels


def main(argv: list[str] | None = None) -> int:
    """Draw both figures and print their names; return 0, or 2 if the folder cannot be made."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('docs/images/face'), help='folder')
    args = parser.parse_args(argv)
    try:
        draw_boundaries(boundaries(), args.out / 'margin_boundaries.png')
        print(args.out / 'margin_boundaries.png')
        draw_scores(score_panels(), args.out / 'margin_scores.png')
        print(args.out / 'margin_scores.png')
    except OSError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
