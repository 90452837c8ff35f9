"""What a VM's event costs, from a line of a watch to what is published. Scenario j.

One process a measurement, so that none inherits another's memory. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time

from bench import dataset
from bench.subject import filled
from vmsvc_grpc.cache.cache import Cache
from vmsvc_grpc.cache.topic import Topic
from vmsvc_grpc.model.endpoints import FilterClass
from vmsvc_grpc.model.objects import Key, Kind
from vmsvc_grpc.source.listwatch import ListWatch

_EMPTY_LIST = b'{"metadata":{"resourceVersion":"1"},"items":[]}'


class _Reader:
    """Counts how often it is woken for something newer."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self, _topic: Topic) -> None:
        self.woken += 1


def measured(data: dataset.DataSet, events: int) -> dict[str, float]:
    """CPU in µs an event; how many services were looked at, and readers woken, by each.

    A reader follows the first service: what an event costs is worked out with it, and what
    it causes is seen.
    """
    cache = filled(data)
    reader = _Reader()
    for service in range(data.services):
        key = Key(dataset.NAMESPACE, dataset.service_name(service))
        cache.subscribe(key, FilterClass.READY_ONLY, reader)
    loop = ListWatch(Kind.VIRTUAL_MACHINE, version="v1alpha6")
    list(loop.page(_EMPTY_LIST, 0.0))
    loop.opened(0.0)
    lines = [
        b'{"type":"MODIFIED","object":%b}' % dataset.vm_json(*data.place(seq), seq)
        for seq in range(data.first_seq, data.first_seq + events)
    ]
    before = cache.counts.evaluations
    began = time.process_time()
    for line in lines:
        _tell(loop, line, cache)
    spent_s = time.process_time() - began
    return {
        "us": spent_s / events * 1e6,
        "evaluations": (cache.counts.evaluations - before) / events,
        "woken": reader.woken / events,
    }


def _tell(loop: ListWatch, line: bytes, cache: Cache) -> None:
    told = loop.line(line, 0.0)
    assert isinstance(told, list), told
    for event in told:
        cache.apply(event)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, required=True)
    parser.add_argument("--endpoints", type=int, required=True)
    parser.add_argument("--events", type=int, required=True)
    given = parser.parse_args()
    print(json.dumps(measured(dataset.DataSet(given.services, given.endpoints), given.events)))
