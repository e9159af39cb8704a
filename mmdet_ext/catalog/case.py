"""A case: one component, as contract tests, benchmarks, plots and tables of the docs build it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Kind(NamedTuple):
    """A kind of component.

    Attributes:
        registry: name of the registry that holds its components.
        facts: what a case of this kind may say beside its options, with the usual value. A fact
            without a usual value is `REQUIRED`.
        hosts: names of the hosts that train its components (see `mmdet_ext.catalog.hosts`). None
            where each case's target decides, as for losses.
        needs: module of a host that an environment may lack; the components are hidden without it.
    """

    registry: str
    facts: Mapping[str, Any] = {}
    hosts: tuple[str, ...] | None = ('mmpretrain', 'mmengine')
    needs: str | None = None


#: Stands for the usual value of a fact that every case of a kind must give.
REQUIRED = object()

KINDS: dict[str, Kind] = {
    'loss': Kind(
        'model',
        {
            # (generator, N) -> pred, target: ordinary ones, N of them along the first dimension.
            'inputs': REQUIRED,
            # The same for the edges: inputs at which losses become NaN.
            'hard_inputs': REQUIRED,
            # The same for the benchmark; None for `inputs`.
            'bench_inputs': None,
            # 'overlap' for boxes (N, 4) to losses (N,), 'regression' for (N, 4) to (N, 4),
            # 'classification' for logits.
            'family': 'classification',
            # What the host's class takes in place of the options, where that differs.
            'stock_options': None,
            # The loss is exactly 0 where prediction equals target.
            'zero_at_target': False,
            # The paper holds a part of the formula fixed in the gradient, so that finite
            # differences of the value do not apply; the loss's own tests hold it fixed too.
            'detaches': False,
            # An element's loss depends on the other elements (a mean over the batch, a ranking, a
            # normalisation of its own); the loss's own tests cover the reductions.
            'together': False,
        },
        hosts=None,
    ),
    'head': Kind('model', hosts=('mmdet',)),
    'RoI head': Kind('model', hosts=('mmdet',)),
    'RoI extractor': Kind('model', hosts=('mmdet',)),
    'neck': Kind('model', hosts=('mmdet',)),
    'detection backbone': Kind('model', hosts=('mmdet',)),
    'detector': Kind('model', hosts=('mmdet',)),
    'detection transform': Kind('transform', hosts=('mmdet',)),
    'mixing transform': Kind('transform', hosts=('mmdet',)),
    'detection hook': Kind('hook', hosts=('mmdet',)),
    'grouping loss': Kind('model', hosts=('mmdet',)),
    'assigner': Kind(
        'task util',
        {
            # 'anchors' one per place, 'points' with strides, those of one 'heatmap', or 'cells' of
            # three anchors each.
            'priors': 'anchors',
            # The rule uses what the head predicts.
            'predicts': False,
            # Each box has a prior, however small it is.
            'every_box': True,
            # Of boxes that want the same prior the later one gets it.
            'later_wins': False,
        },
        hosts=('mmdet',),
    ),
    'overlap measure': Kind('task util', hosts=('mmdet',)),
    'sampler': Kind('task util', hosts=('mmdet',)),
    'data set': Kind('dataset', hosts=('mmdet',)),
    'face head': Kind('model'),
    'feature loss': Kind(
        'model',
        {
            # The largest batch of its kind that costs nothing: of 'one identity' (there is no
            # negative), of 'one sample' (there is no pair), or 'no sample'.
            'zero_on': 'one sample',
            # A call in training changes the next one's result.
            'remembers': False,
        },
    ),
    'backbone': Kind('model'),
    'preprocessor': Kind('model'),
    'face data set': Kind(
        'dataset',
        {
            # How many images, and how many identities (0 where the files do not tell), it finds
            # among the made faces.
            'images': REQUIRED,
            'identities': REQUIRED,
            # The option that takes the folder of the files, None for a data set without files; and
            # the part of that folder which it reads.
            'root': 'data_root',
            'folder': '',
            # An entry holds the image, so that no transform has to load it.
            'loads': True,
            # A part of the data set can be taken.
            'divisible': True,
        },
    ),
    'transform': Kind('transform'),
    'data sampler': Kind('data sampler'),
    'class sampler': Kind('data sampler', hosts=('mmdet',)),
    'metric': Kind('metric'),
    'segmentation metric': Kind('metric', hosts=('mmseg',)),
    'detection metric': Kind('metric', hosts=('mmdet',)),
    'hook': Kind('hook'),
    'margin': Kind('margin'),
    'keypoint loss': Kind(
        'model',
        {
            # (generator, people) -> positional values of a call; the first is the prediction.
            'inputs': REQUIRED,
        },
        hosts=('mmpose',),
    ),
    'keypoint head': Kind('model', hosts=('mmpose',), needs='mmpose'),
    'keypoint codec': Kind(
        'keypoint codec',
        {
            # (codec, encoded targets, as arrays with a batch dimension) -> values of batch_decode.
            'maps': REQUIRED,
        },
        hosts=('mmpose',),
        needs='mmpose',
    ),
    'model wrapper': Kind('model wrapper'),
}


class Case:
    """One component with options, and the facts that tests of its kind need.

    Facts are attributes: ``case.predicts``. `KINDS` lists those of each kind with their usual
    values.

    Args:
        kind: a key of `KINDS`.
        name: registered name.
        options: config beside ``type``, as little as it takes.
        twin: whether it replaces mmdet's class of the same name; 'mmseg' or 'mmpose' where it
            replaces one of that host.
        hosts: names of the hosts that train it, where they are not those of its kind.
        **facts: what differs from the kind's usual values.

    Attributes:
        twin: name of the class that it replaces, or None.
        twin_scope: registry scope of that class, or None.

    Raises:
        TypeError: if a fact is not one of the kind, a required one is missing, or ``twin`` is
            another value.

    >>> case = Case('assigner', 'FCOSAssigner', {'center_sampling': True}, priors='points')
    >>> case.priors, case.predicts, case.twin
    ('points', False, None)
    """

    def __init__(
        self,
        kind: str,
        name: str,
        options: dict[str, Any] | None = None,
        *,
        twin: bool | Literal['mmseg', 'mmpose'] = False,
        hosts: tuple[str, ...] | None = None,
        **facts: Any,
    ) -> None:
        usual = KINDS[kind].facts
        unknown = sorted(set(facts) - set(usual))
        if unknown:
            raise TypeError(f'{name}: a {kind} has no fact {unknown}; it has {sorted(usual)}')
        if twin not in (True, False, 'mmseg', 'mmpose'):
            raise TypeError(f"{name}: twin must be True, False, 'mmseg' or 'mmpose', got {twin!r}")
        self.kind = kind
        self.name = name
        self.options = dict(options or {})
        self.twin = name if twin else None
        self.twin_scope = 'mmdet' if twin is True else twin or None
        self.hosts = KINDS[kind].hosts if hosts is None else hosts
        self._facts = {**usual, **facts}
        missing = sorted(fact for fact, value in self._facts.items() if value is REQUIRED)
        if missing:
            raise TypeError(f'{name}: a {kind} needs the facts {missing}')

    def __getattr__(self, fact: str) -> Any:
        """Return a fact of the kind."""
        facts = self.__dict__.get('_facts', {})
        if fact in facts:
            return facts[fact]
        raise AttributeError(f'a {self.__dict__.get("kind", "case")} has no fact {fact!r}')

    @property
    def registry(self) -> str:
        """Return the name of the registry that holds the component."""
        return KINDS[self.kind].registry

    def __repr__(self) -> str:
        """Return the name with the options, as tests show a case."""
        return '-'.join([self.name, *(f'{key}={value}' for key, value in self.options.items())])
