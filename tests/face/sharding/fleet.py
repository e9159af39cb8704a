"""Processes that train heads with split classes: forked, so that imports are paid once.

    python -m tests.face.sharding.fleet FOLDER

writes ``FOLDER/<scenario>_<processes>_<rank>.json``. `SCENARIOS` lists the scenarios.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed

Scenario = Callable[[Path], Any]


def run(scenario: Scenario, processes: int, folder: Path) -> dict[int, int]:
    """Run a scenario in so many processes; return the rank of each by its process id."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        os.environ['MASTER_PORT'] = str(probe.getsockname()[1])
    return {_fork(scenario, rank, processes, folder): rank for rank in range(processes)}


def _fork(scenario: Scenario, rank: int, processes: int, folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    name = f'{scenario.__name__}_{processes}_{rank}'
    log = os.open(folder / f'{name}.log', os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1'
        )
        distributed.init_process_group('gloo', 'env://', timeout=datetime.timedelta(seconds=300))
        result = scenario(folder)
        (folder / f'{name}.json').write_text(json.dumps(result))
        distributed.barrier()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(*fleets: dict[int, int]) -> list[dict[int, int]]:
    """Return the exit status of each process, by its rank."""
    return [{rank: _status(child) for child, rank in fleet.items()} for fleet in fleets]


def _status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(arguments: Sequence[str]) -> int:
    """Run all scenarios at once."""
    from mmdet_ext.registry import MODEL_WRAPPERS, MODELS
    from tests.face.sharding.scenarios import SCENARIOS

    for nodes in (MODELS, MODEL_WRAPPERS):
        nodes.import_from_location()
    torch.set_num_threads(1)
    folder = Path(arguments[0])
    fleets = [run(scenario, number, folder) for scenario, number in SCENARIOS]
    statuses = wait(*fleets)
    named = {
        f'{scenario.__name__}_{number}': status
        for (scenario, number), status in zip(SCENARIOS, statuses, strict=True)
    }
    (folder / 'statuses.json').write_text(json.dumps(named))
    return 0


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
