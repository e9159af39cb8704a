"""Command-line tools, loaded as modules.

`tools/` is no package, and its folder train/ has the name of its file train.py.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


def load_tool(path: str) -> ModuleType:
    """Load a script below ``tools/``, such as ``'data/convert_voc.py'``, once per process."""
    name = 'tool_' + path.removesuffix('.py').replace('/', '_')
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TOOLS / path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
