#!/usr/bin/env bash
# torchvision's ps_roi_pool never reads the last row and the last column of a map.
#
# Versions:  torchvision 0.26.0 with torch 2.11.0, on the CPU; the environment's own are taken
# Input:     a map of 8 x 8 cells that is 1 in its last column, and one that is 1 in its last row; a RoI of
#            the whole map, and one of the last column or row alone, pooled to one bin.
# Seen:                                   mean of the bin   ps_roi_pool
#              whole map                  0.125             0
#              last column or row alone   1                 0
#            With a row and a column more in the map, ps_roi_pool gives the means: it stops one cell
#            before the end of what it is given.
# Matters:   objects at the right and lower edge of the image lose a cell, 16 px in R-FCN, and a RoI within
#            it scores 0 whatever is there. `PSRoIPool` of this package pads the maps.
# Fails if any of these figures changes. Run it with PYTHON=.venv/bin/python in a checkout.
set -euo pipefail
"${PYTHON:-python3}" - <<'PYTHON'
import torch
from torch.nn.functional import pad
from torchvision.ops import ps_roi_pool

whole = torch.tensor([[0.0, 0, 0, 8, 8]])
alone = {3: torch.tensor([[0.0, 7, 0, 8, 8]]), 2: torch.tensor([[0.0, 0, 7, 8, 8]])}
for dim, name in ((3, 'column'), (2, 'row')):
    maps = torch.zeros(1, 1, 8, 8)
    maps.select(dim, 7).fill_(1)
    for rois, mean in ((whole, 0.125), (alone[dim], 1.0)):
        seen = ps_roi_pool(maps, rois, 1).item()
        padded = ps_roi_pool(pad(maps, (0, 1, 0, 1)), rois, 1).item()
        print(f'last {name}: mean {mean:g}, ps_roi_pool {seen:g}, padded {padded:g}')
        assert seen == 0 and padded == mean, 'the behaviour of torchvision has changed'
PYTHON
echo 'as described'
