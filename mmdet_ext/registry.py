"""Registries of the scope ``mmdet_ext``.

MMEngine imports this module when a config of any scope has ``type='mmdet_ext.X'``. Each registry is
a child of MMEngine's root registry, so that X resolves from mmdet, mmpretrain and MMEngine alone,
in nested builds too, without ``custom_imports``. The full path of a class is a name of it too:
configs that name classes themselves are dumped with such paths.

A new package of components is added to ``LOCATIONS``. A new kind of component needs a key there,
and a registry at the end of this module.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import pkgutil
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# First, as it names a host that is absent; checkpoints load where a type of ours is built.
import mmdet_ext.compat  # noqa: F401  # isort: skip

from mmengine import registry as root

from mmdet_ext.utils.late_import import call_when_imported

#: Packages that register the components of each registry.
LOCATIONS: dict[str, tuple[str, ...]] = {
    # The order matters: mmdet_ext.detection.losses replaces a loss of mmdet_ext.losses.
    'model': (
        'mmdet_ext.losses',
        'mmdet_ext.detection.losses',
        'mmdet_ext.detection.heads.dense',
        'mmdet_ext.detection.heads.yolo',
        'mmdet_ext.detection.heads.roi',
        'mmdet_ext.detection.necks',
        'mmdet_ext.detection.backbones',
        'mmdet_ext.detection.detectors',
        'mmdet_ext.face.heads',
        'mmdet_ext.face.losses',
        'mmdet_ext.face.backbones',
        'mmdet_ext.face.preprocessor',
        'mmdet_ext.pose.losses',
        'mmdet_ext.pose.heads',
    ),
    'task util': ('mmdet_ext.detection.assigners', 'mmdet_ext.detection.samplers'),
    'dataset': ('mmdet_ext.detection.datasets', 'mmdet_ext.face.datasets'),
    'transform': ('mmdet_ext.detection.transforms', 'mmdet_ext.face.transforms'),
    'data sampler': ('mmdet_ext.engine.samplers', 'mmdet_ext.face.samplers'),
    'metric': (
        'mmdet_ext.detection.metrics',
        'mmdet_ext.face.metrics',
        'mmdet_ext.segmentation.metrics',
    ),
    'hook': ('mmdet_ext.detection.hooks', 'mmdet_ext.face.hooks'),
    'model wrapper': ('mmdet_ext.face.sharding.ddp',),
    'margin': ('mmdet_ext.face.margins',),
    'keypoint codec': ('mmdet_ext.pose.codecs',),
}

#: Advice for a user without a host package.
INSTALL_HINTS: dict[str, str] = {
    'mmdet': "install it: `pip install 'mmdet>=3.3,<4'`, "
    'or beside onedl-mmengine `pip install onedl-mmdetection`',
    'mmpretrain': "install it: `pip install 'mmpretrain>=1.2,<2'`, "
    'or beside onedl-mmengine `pip install onedl-mmpretrain`',
    'mmseg': "install it: `pip install 'mmsegmentation>=1.2.2,<2'`, "
    'or beside onedl-mmengine `pip install onedl-mmsegmentation`',
    'mmpose': "install it: `pip install 'mmpose>=1.3.2,<2'`; docs/hosts.md has what it takes to "
    'build what it names',
    'xtcocotools': 'build it: docs/hosts.md has the command',
    'mmcv': "install it: `pip install 'mmcv>=2.1,<2.2'`, "
    'or beside onedl-mmengine `pip install onedl-mmcv`',
    'mmcv._ext': 'mmcv is there without its compiled operators (mmcv-lite, or built without '
    'MMCV_WITH_OPS=1): uninstall it and build mmcv with them (`make env` in a checkout does)',
    'pycocotools': 'install it: `pip install pycocotools`',
    'torchvision': 'install the release that fits your torch: `pip install torchvision`',
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
        # All that was registered, also where another component took its name.
        self._registered: list[Any] = []
        if parent is not None:
            parent.children['mmdet_ext'] = _AskedByScope(self)

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
        """Return the component named ``key``; None for an unknown name.

        Args:
            key: A name, with or without scope; or the full path of a class, of the module that
                defines it or of a package that has it. A path is of that very class, also where
                another component has taken its name.

        Raises:
            ImportError: If the name is unknown and a location was skipped because its host is
                absent.
            KeyError: If the name is unknown but close to a known one, or if a full path leads to
                nothing or to anything but a component of this registry.
        """
        path = _own_path(key)
        if path is not None:
            return self._get_by_path(path)
        found = super().get(key)
        scope, _, name = key.rpartition('.')
        if found is not None and scope == 'mmdet_ext' and name not in self._module_dict:
            return self._get_by_path(key)  # MMEngine also returns modules, and any text or number
        if found is not None:
            return found
        if self._absent:
            lacks = '; '.join(f'{place}: {hint}' for place, hint in self._absent.items())
            raise ImportError(
                f'mmdet_ext.{name} is not among the {self.name} components that could be loaded '
                f'({_listing(self._module_dict)}). Not loaded for want of a package: {lacks}'
            )
        close = _closest(name, self._module_dict)
        if close and scope in ('', 'mmdet_ext'):
            raise KeyError(
                f'mmdet_ext has no {self.name} named {name!r}; did you mean {close!r}? '
                f'There are: {_listing(self._module_dict)}'
            )
        if close:
            raise KeyError(
                f'there is no {self.name} {key!r}; did you mean {"mmdet_ext." + close!r}?'
            )
        return None

    def _get_by_path(self, path: str) -> Any:
        """Return the component of a full path; raise an error that says what is wrong with it."""
        self.import_from_location()
        try:
            found, lacks = _walk(path)
        except ImportError as error:
            hint = _host_hint(error)
            if hint is None:
                raise
            raise ImportError(f'{path} could not be loaded: {hint}') from error
        if not lacks and any(found is each for each in self._registered):
            return found
        wrong = lacks or f'it is {_described(found)}, and a {self.name} is wanted here'
        name = path.rpartition('.')[2]
        close = _closest(name, self._module_dict)
        if close:
            cls = self._module_dict[close]
            advice = f'did you mean {cls.__module__ + "." + cls.__qualname__!r}?'
        else:
            advice = f'there are, with or without a path: {_listing(self._module_dict)}'
        raise KeyError(f'{path} is no {self.name}: {wrong}; {advice}')

    def __contains__(self, key: object) -> bool:
        try:
            return isinstance(key, str) and self.get(key) is not None
        except (ImportError, KeyError, RuntimeError):  # the last for a key such as 'a..b'
            return False

    def _register_module(self, module: Any, *args: Any, **kwargs: Any) -> None:
        if inspect.isclass(module):
            _explain_unknown_options(module)
        super()._register_module(module, *args, **kwargs)
        self._registered.append(module)


class _AskedByScope(ExtRegistry):
    """A registry as its parent has it: the parent takes the scope off a key before it asks.

    With the scope back on, ``mmdet_ext.torch.nn.Linear`` is no name of ``torch.nn.Linear``. All
    else is the registry's own.
    """

    def __init__(self, nodes: ExtRegistry) -> None:
        self.__dict__ = nodes.__dict__
        self._nodes = nodes

    def get(self, key: str) -> Any:
        return self._nodes.get(f'mmdet_ext.{key}')

    def _search_child(self, scope: str) -> root.Registry | None:
        return self._nodes._search_child(scope)


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


def _closest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like another one, whatever the case of letters."""
    by_lower = {each.lower(): each for each in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[found[0]] if found else None


def _listing(names: Any) -> str:
    return ', '.join(sorted(names)) or 'none'


def _host_hint(error: ImportError) -> str | None:
    """Return advice if the error comes from an absent host, otherwise None."""
    name = error.name or ''
    key = name if name in INSTALL_HINTS else name.partition('.')[0]
    if key not in INSTALL_HINTS:
        return None
    return f'{name} could not be imported; {INSTALL_HINTS[key]}'


def _own_path(key: Any) -> str | None:
    """Return the full path within this package that a key stands for, otherwise None.

    Another registry has taken the scope off before it asks: ``losses.iou.CIoULoss`` then stands
    for ``mmdet_ext.losses.iou.CIoULoss``, unless it is the path of another package.
    """
    if not isinstance(key, str) or '.' not in key:
        return None
    scope, _, rest = key.partition('.')
    if scope == 'mmdet_ext':
        return key if '.' in rest else None
    if scope in INSTALL_HINTS:
        return None
    path = f'mmdet_ext.{key}'
    if not _is_package(scope):
        return path
    if not _is_package(f'mmdet_ext.{scope}'):
        return None
    # Two packages have a part of this name. A path that leads to nothing here is the other's.
    try:
        return None if _walk(path)[1] else path
    except ImportError:
        return path


def _is_package(name: str) -> bool:
    """Return whether there is a module of this name, without importing it."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _walk(path: str) -> tuple[Any, str]:
    """Follow a path within this package.

    Returns:
        The object, and an empty text; or None, and a text that says where the path ends.

    Raises:
        ImportError: If a module on the path exists and cannot be imported.
    """
    here, *parts = path.split('.')
    found: Any = import_module(here)
    for part in parts:
        inner = f'{here}.{part}'
        if hasattr(found, part):
            found = getattr(found, part)
        elif inspect.ismodule(found) and hasattr(found, '__path__') and _is_package(inner):
            found = import_module(inner)
        else:
            close = _closest(part, dir(found))
            hint = f' (it has {close!r})' if close else ''
            return None, f'{here} has no {part!r}{hint}'
        here = inner
    return found, ''


def _described(found: Any) -> str:
    """Describe an object for a message: a component of another registry by its kind."""
    for nodes in globals().values():
        if isinstance(nodes, ExtRegistry) and any(found is each for each in nodes._registered):
            return f'a {nodes.name}'
    if inspect.isclass(found):
        return 'a class that is not registered'
    return f'a {type(found).__name__}'


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
        try:
            init(self, *args, **kwargs)
        except ImportError as error:  # a host may import its operators when it is used
            absent = _host_hint(error)
            if absent is None:
                raise
            raise ImportError(f'mmdet_ext.{cls.__name__} could not be built: {absent}') from error

    cls.__init__ = checked_init  # type: ignore[misc]


MODELS = ExtRegistry('model', parent=root.MODELS)
TASK_UTILS = ExtRegistry('task util', parent=root.TASK_UTILS)
DATASETS = ExtRegistry('dataset', parent=root.DATASETS)
TRANSFORMS = ExtRegistry('transform', parent=root.TRANSFORMS)
DATA_SAMPLERS = ExtRegistry('data sampler', parent=root.DATA_SAMPLERS)
METRICS = ExtRegistry('metric', parent=root.METRICS)
HOOKS = ExtRegistry('hook', parent=root.HOOKS)
MODEL_WRAPPERS = ExtRegistry('model wrapper', parent=root.MODEL_WRAPPERS)
# Margins belong to no host: only a margin head builds them, with or without the scope.
MARGINS = ExtRegistry('margin', parent=None)
# MMPose's registry of codecs has no parent in MMEngine: ours becomes its child.
KEYPOINT_CODECS = ExtRegistry('keypoint codec', parent=None)


def attach_codecs() -> None:
    """Make our codecs a child of MMPose's registry of codecs, if that is imported."""
    codecs = getattr(sys.modules.get('mmpose.registry'), 'KEYPOINT_CODECS', None)
    if codecs is not None:
        codecs.children.setdefault('mmdet_ext', _AskedByScope(KEYPOINT_CODECS))


# MMEngine imports this module when it first looks for a type of ours, and not again. Where MMPose's
# registries come later, they are joined then; nothing of MMPose is imported here.
call_when_imported('mmpose.registry', attach_codecs)
