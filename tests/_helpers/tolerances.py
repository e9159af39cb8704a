"""How far a result may stand from its float64 reference."""

from __future__ import annotations

from typing import TypedDict

import torch


class Tolerance(TypedDict):
    """As :func:`torch.testing.assert_close` takes them."""

    rtol: float
    atol: float


#: By the precision of the inputs. Half precision is computed in float32, so that a result errs by
#: the rounding of its inputs alone; tests round the reference's inputs alike.
TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: {'rtol': 1e-12, 'atol': 1e-12},
    torch.float32: {'rtol': 1e-5, 'atol': 1e-6},
    torch.float16: {'rtol': 1e-5, 'atol': 1e-6},
    torch.bfloat16: {'rtol': 1e-5, 'atol': 1e-6},
}
