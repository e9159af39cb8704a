"""Allowed differences between a result and its float64 reference."""

from __future__ import annotations

from typing import TypedDict

import torch


class Tolerance(TypedDict):
    """Tolerance in the form of :func:`torch.testing.assert_close`."""

    rtol: float
    atol: float


#: Tolerance per precision of the inputs. Half precision is computed in float32, so that only the
#: rounding of the inputs matters; tests round the inputs of the reference too.
TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float64: {'rtol': 1e-12, 'atol': 1e-12},
    torch.float32: {'rtol': 1e-5, 'atol': 1e-6},
    torch.float16: {'rtol': 1e-5, 'atol': 1e-6},
    torch.bfloat16: {'rtol': 1e-5, 'atol': 1e-6},
}
