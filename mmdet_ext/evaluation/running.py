"""A backend run in a process of its own, with a limit of time.

A backend is native code: it cannot be interrupted, and one that hangs or crashes would take a
training run with it. The process is a fresh Python and no fork: a fork inherits locks that other
threads hold and thread pools without threads, both of which can hang the very code that is to be
guarded. It costs the start of an interpreter with NumPy, about a quarter of a second.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmdet_ext.evaluation.columns import Detections, GroundTruth
from mmdet_ext.evaluation.protocol import Protocol, Scores

Backend = Literal['auto', 'hotcoco', 'faster_coco_eval', 'pycocotools']
#: Takes a line and its level of `logging`.
Say = Callable[[str, int], Any]

#: Backends, fastest first -> the module that runs each.
BACKENDS: dict[str, str] = {
    'hotcoco': 'mmdet_ext.evaluation.with_hotcoco',
    'faster_coco_eval': 'mmdet_ext.evaluation.with_faster_coco_eval',
    'pycocotools': 'mmdet_ext.evaluation.with_pycocotools',
}
#: The backend that the others are measured by, and fall back to.
REFERENCE = 'pycocotools'
#: Seconds between two reports of a backend that is still at work.
REPORT_EVERY = 10.0


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    Attributes:
        scores: the tables.
        backend: name of the backend that filled them.
        seconds: time that it took, its process included.
        peak_bytes: most memory that its process held; None in this process.
    """

    scores: Scores
    backend: str
    seconds: float
    peak_bytes: int | None = None

    def __str__(self) -> str:
        """Return the backend with its version, time and memory."""
        peak = '' if self.peak_bytes is None else f', {self.peak_bytes / 1e6:,.0f} MB'
        return f'{self.backend} {_version(self.backend)}, {self.seconds:.1f} s{peak}'


class BackendError(RuntimeError):
    """A backend that failed or did not return in time."""


def choose_backend(backend: Backend | str) -> str:
    """Return the name of the backend to use: of 'auto' the fastest that is installed.

    Raises:
        ImportError: if the backend, or for 'auto' each of them, is not installed.
        ValueError: if there is none of this name.
    """
    names = list(BACKENDS) if backend == 'auto' else [backend]
    for name in names:
        if name not in BACKENDS:
            raise ValueError(
                f"backend must be 'auto' or one of {', '.join(map(repr, BACKENDS))}, "
                f'got {backend!r}'
            )
        if find_spec(name) is not None:
            return name
    raise ImportError(
        f'backend {backend!r}: {" and ".join(names)} not installed; '
        "`pip install 'mmdet-ext[eval]'` brings all three"
    )


def time_bound(truth: GroundTruth, found: Detections, protocol: Protocol) -> float:
    """Return the seconds after which a backend counts as stuck.

    The bound grows with the work: with boxes and detections, ten times that for masks and
    keypoints, and with pairs of an image and a category. It is about three times what pycocotools
    takes on one core, and hundreds of times what hotcoco takes, so that a busy machine does not
    reach it.
    """
    rows = (len(truth) + len(found)) * (1 if protocol.kind == 'bbox' else 10)
    pairs = len(truth.image_ids) * len(truth.category_ids)
    return 60.0 + 6e-4 * rows + 1e-4 * pairs


def evaluate(
    truth: GroundTruth,
    found: Detections,
    protocol: Protocol,
    backend: Backend | str = 'auto',
    time_limit: float | Literal['auto'] | None = 'auto',
    say: Say = lambda message, level: None,
) -> Outcome:
    """Fill the tables of a protocol.

    A backend other than pycocotools that fails or takes too long is ended, and pycocotools does
    the work; ``say`` reports it.

    Args:
        truth: ground truth.
        found: detections, which `check_detections` passes.
        protocol: what is compared.
        backend: name of a backend, or 'auto' for the fastest that is installed.
        time_limit: seconds that a backend may take; 'auto' for `time_bound`; None runs it in this
            process, without a limit. pycocotools has no limit.
        say: takes lines of progress and warnings, with their level.

    Raises:
        BackendError: if pycocotools fails, too.
        ImportError: if the backend is not installed.
        ValueError: if there is no such backend.
    """
    name = choose_backend(backend)
    if time_limit is None:
        start = time.monotonic()
        module = importlib.import_module(BACKENDS[name])
        scores: Scores = module.evaluate(truth, found, protocol)
        return Outcome(scores, name, time.monotonic() - start)
    bound = time_bound(truth, found, protocol) if time_limit == 'auto' else float(time_limit)
    with tempfile.TemporaryDirectory(prefix='mmdet_ext_evaluation_') as folder:
        task = Path(folder, 'task.pickle')
        with task.open('wb') as file:
            pickle.dump((truth, found, protocol), file, protocol=5)
        if name != REFERENCE:
            try:
                return _in_process(name, task, bound, say)
            except BackendError as error:
                say(
                    f'{error}; pycocotools evaluates instead, which can take minutes',
                    logging.WARNING,
                )
        return _in_process(REFERENCE, task, None, say)


def _in_process(name: str, task: Path, bound: float | None, say: Say) -> Outcome:
    """Run a backend in a process of its own; raise a `BackendError` if it gives no tables."""
    start = time.monotonic()
    log = task.parent / f'{name}.log'
    code = 'from mmdet_ext.evaluation.running import main; main()'
    seconds = 0 if bound is None else int(bound) + 30
    command = [sys.executable, '-c', code, BACKENDS[name], str(task), str(seconds)]
    paths = os.pathsep.join(path for path in sys.path if path)
    with log.open('wb') as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONPATH': paths},
        )
        try:
            _wait(process, name, bound, start, say)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    last = log.read_text('utf-8', 'replace').strip().splitlines()[-1:]
    if process.returncode:
        how = f'stopped with exit code {process.returncode} ({"".join(last) or "no output"})'
        raise BackendError(f'backend {name} {_version(name)} {how}')
    with np.load(task.parent / 'scores.npz') as tables:
        scores = Scores(tables['precision'], tables['recall'])
        peak = int(tables['peak'])
    return Outcome(scores, name, time.monotonic() - start, peak or None)


def _wait(
    process: subprocess.Popen[bytes], name: str, bound: float | None, start: float, say: Say
) -> None:
    """Wait for a process, and report in between that it is at work."""
    while True:
        left = np.inf if bound is None else start + bound - time.monotonic()
        try:
            process.wait(max(0.0, min(REPORT_EVERY, left)))
            return
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - start
            if bound is not None and passed >= bound:
                raise BackendError(
                    f'backend {name} {_version(name)} did not return within {bound:.0f} s, a '
                    'bound on its work (time_limit)'
                ) from None
            limit = '' if bound is None else f' of at most {bound:.0f} s'
            say(f'{name} is at work: {passed:.0f} s{limit}', logging.INFO)


class _TaskReader(pickle.Unpickler):
    """Reader of a task: columns of NumPy, and the dataclasses of this package."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class by name, if a task may hold it."""
        if module.partition('.')[0] == 'numpy' or module.startswith('mmdet_ext.evaluation.'):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'a task holds no {module}.{name}')


def main(argv: Sequence[str] | None = None) -> None:
    """Run a backend on a pickled task, and leave its tables beside it: what the process does."""
    module, path, seconds = list(sys.argv[1:] if argv is None else argv)
    if int(seconds) and hasattr(signal, 'alarm'):
        # Should the parent be killed, nobody else ends a backend that hangs.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(seconds))
    task = Path(path)
    with task.open('rb') as file:
        given = list(reversed(_TaskReader(file).load()))
    run = importlib.import_module(module).evaluate
    # No name is left to the columns here, so that a backend can free what it has copied.
    scores: Scores = run(given.pop(), given.pop(), given.pop())
    np.savez(
        task.parent / 'scores.npz',
        precision=scores.precision,
        recall=scores.recall,
        peak=_peak_bytes(),
    )


def _peak_bytes() -> int:
    """Return the most memory that this process held; 0 where the system does not say.

    `getrusage` knows it too, but counts the process that started this one, from before the start.
    """
    status = Path('/proc/self/status')
    lines = status.read_text('utf-8').splitlines() if status.is_file() else []
    found = [int(line.split()[1]) for line in lines if line.startswith('VmHWM:')]
    return 1024 * found[0] if found else 0


def _version(name: str) -> str:
    try:
        return version(name.replace('_', '-'))
    except PackageNotFoundError:
        return '(version unknown)'
