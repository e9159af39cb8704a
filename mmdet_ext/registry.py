"""Registries of the scope ``mmdet_ext``.

MMEngine imports this module when a config of any scope has ``type='mmdet_ext.X'``. Each registry is
a child of MMEngine's root registry, so that X resolves from mmdet, mmpretrain and MMEngine alone,
in nested builds too, without ``custom_imports``.

A new package of components is added to ``LOCATIONS``. A new kind of component needs a key there,
and a registry at the end of this module.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Any

from mmengine import registry as root

from mmdet_ext.compat.checkpoint import install_safe_loading

#: Packages that register the components of each registry.
LOCATIONS: dict[str, tuple[str, ...]] = {
    # The order matters: mmdet_ext.detection.losses replaces a loss of mmdet_ext.losses.
    'model': (
        'mmdet_ext.losses',
        'mmdet_ext.detection.losses',
        'mmdet_ext.detection.heads.dense',
        'mmdet_ext.face.heads',
        'mmdet_ext.face.losses',
        'mmdet_ext.face.backbones',
        'mmdet_ext.face.preprocessor',
    ),
    'task util': ('mmdet_ext.detection.assigners', 'mmdet_ext.detection.samplers'),
    'dataset': ('mmdet_ext.detection.datasets', 'mmdet_ext.face.datasets'),
    'transform': ('mmdet_ext.face.transforms',),
    'data sampler': ('mmdet_ext.face.samplers',),
    'metric': ('mmdet_ext.face.metrics',),
    'hook': ('mmdet_ext.face.hooks',),
    'margin': ('mmdet_ext.face.margins',),
}

#: Advice for a user without a host package.
INSTALL_HINTS: dict[str, str] = {
    'mmdet': "install it: `pip install 'mmdet>=3.3,<4'`",
    'mmpretrain': "install it: `pip install 'mmpretrain>=1.2,<2'`",
    'mmcv': "install it: `pip install 'mmcv>=2.1,<2.2'`",
    'mmcv._ext': 'mmcv is there without its compiled operators (mmcv-lite, or built without '
    'MMCV_WITH_OPS=1): uninstall it and build mmcv with them (`make env` in a checkout does)',
    'pycocotools': 'install it: `pip install pycocotools`',
}


class ExtRegistry(root.Registry):
    """Registry with helpful errors for unknown names and misspelt options.

    A location whose host package is absent is skipped. Only a request for a name that no loaded
    location has raises an error then, which names the package to install.

    Args:
        name: Key of ``LOCATIONS``.
        parent: Registry of MMEngine, None for a registry of its own.
    """

    _imported: bool

    def __init__(self, name: str, parent: root.Registry | None) -> None:
        super().__init__(name, parent=parent, scope='mmdet_ext')
        self._places = LOCATIONS[name]
        self._absent: dict[str, str] = {}

    def import_from_location(self) -> None:
        """Import the locations of this registry once; remember those whose host is absent."""
        if self._imported:
            return
        self._imported = True
        for place in self._places:
            try:
                import_module(place)
            except ImportError as error:
                hint = _host_hint(error)
                if hint is None:
                    self._imported = False
                    raise
                self._absent[place] = hint

    def get(self, key: str) -> Any:
        """Return the component named ``key``, with or without scope; None for an unknown name.

        Raises:
            ImportError: If the name is unknown and a location was skipped because its host is
                absent.
            KeyError: If the name is unknown but close to a known one.
        """
        found = super().get(key)
        if found is not None:
            return found
        name = key.rpartition('.')[2]
        if self._absent:
            lacks = '; '.join(f'{place}: {hint}' for place, hint in self._absent.items())
            raise ImportError(
                f'mmdet_ext.{name} is not among the {self.name} components that could be loaded '
                f'({_listing(self._module_dict)}). Not loaded for want of a package: {lacks}'
            )
        close = difflib.get_close_matches(name, self._module_dict, n=1, cutoff=0.7)
        if close:
            raise KeyError(
                f'mmdet_ext has no {self.name} named {name!r}; did you mean {close[0]!r}? '
                f'There are: {_listing(self._module_dict)}'
            )
        return None

    def __contains__(self, key: object) -> bool:
        try:
            return isinstance(key, str) and self.get(key) is not None
        except (ImportError, KeyError):
            return False

    def _register_module(self, module: Any, *args: Any, **kwargs: Any) -> None:
        if inspect.isclass(module):
            _explain_unknown_options(module)
        super()._register_module(module, *args, **kwargs)


def import_components(package: ModuleType, nodes: ExtRegistry) -> dict[str, type]:
    """Import the modules of a package, which registers its components.

    Args:
        package: Package whose direct modules are imported.
        nodes: Registry of the components.

    Returns:
        The registered classes of these modules by name, in alphabetical order.
    """
    for module in pkgutil.iter_modules(package.__path__, f'{package.__name__}.'):
        import_module(module.name)
    return {
        name: component
        for name, component in sorted(nodes.module_dict.items())
        if component.__module__.startswith(f'{package.__name__}.')
    }


def _listing(names: Any) -> str:
    return ', '.join(sorted(names)) or 'none'


def _host_hint(error: ImportError) -> str | None:
    """Return advice if the error comes from an absent host, otherwise None."""
    name = error.name or ''
    key = name if name in INSTALL_HINTS else name.partition('.')[0]
    if key not in INSTALL_HINTS:
        return None
    return f'{name} could not be imported; {INSTALL_HINTS[key]}'


def _options(cls: type) -> list[str] | None:
    """Return the options of a class, including those that it passes on with ``**kwargs``.

    Returns:
        The names, or None if the class accepts any option.
    """
    options: list[str] = []
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        _, *parameters = inspect.signature(vars(base)['__init__']).parameters.values()
        options += [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return list(dict.fromkeys(options))
    return None


def _explain_unknown_options(cls: type) -> None:
    """Make a class refuse an unknown option with its name, the nearest name and all names."""
    init = cls.__init__  # type: ignore[misc]
    options = _options(cls)
    if options is None:
        return

    @functools.wraps(init)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in options:
                close = difflib.get_close_matches(name, options, n=1)
                hint = f'; did you mean {close[0]!r}?' if close else '.'
                raise TypeError(
                    f'mmdet_ext.{cls.__name__} has no option {name!r}{hint} '
                    f'Its options: {", ".join(options) or "none"}'
                )
        init(self, *args, **kwargs)

    cls.__init__ = checked_init  # type: ignore[misc]


MODELS = ExtRegistry('model', parent=root.MODELS)
TASK_UTILS = ExtRegistry('task util', parent=root.TASK_UTILS)
DATASETS = ExtRegistry('dataset', parent=root.DATASETS)
TRANSFORMS = ExtRegistry('transform', parent=root.TRANSFORMS)
DATA_SAMPLERS = ExtRegistry('data sampler', parent=root.DATA_SAMPLERS)
METRICS = ExtRegistry('metric', parent=root.METRICS)
HOOKS = ExtRegistry('hook', parent=root.HOOKS)
# Margins belong to no host: only a margin head builds them, with or without the scope.
MARGINS = ExtRegistry('margin', parent=None)

# A config that names one of our types can load checkpoints with torch >= 2.6.
install_safe_loading()
