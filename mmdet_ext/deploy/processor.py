"""Instructions of this processor, which decide what int8 and bfloat16 are worth."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

#: Flags of /proc/cpuinfo under which products of int8 are summed without saturation.
INT8_FLAGS = {
    'avx512_vnni': 'AVX-512 VNNI',
    'avx_vnni': 'AVX-VNNI',
    'avx_vnni_int8': 'AVX-VNNI-INT8',
    'amx_int8': 'AMX-INT8',
    'asimddp': 'dot product (ARM)',
    'i8mm': 'int8 matrix product (ARM)',
}


@functools.cache
def flags() -> frozenset[str]:
    """Return the flags of the first processor; none where the system does not list them."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(':')
        if name.strip() in ('flags', 'Features'):
            return frozenset(value.split())
    return frozenset()


def int8_instructions() -> list[str]:
    """List the instructions of this processor that sum products of int8 without saturation."""
    return [name for flag, name in INT8_FLAGS.items() if flag in flags()]


def processor_name() -> str:
    """Return the name of this processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.machine()


def default_threads() -> int | None:
    """Return the threads that OMP_NUM_THREADS asks for, which onnxruntime and OpenVINO ignore."""
    text = os.environ.get('OMP_NUM_THREADS', '').partition(',')[0].strip()
    return int(text) if text.isdigit() and int(text) > 0 else None
