"""Requests to an inflight._native.BatchManager."""

import threading


class Collector:
    """A callback that keeps all responses."""

    def __init__(self):
        self.responses = []
        self._final = threading.Event()

    def __call__(self, request_id, response):
        self.responses.append(response)
        if response.is_final:
            self._final.set()

    def wait(self):
        assert self._final.wait(30), "no final response"
        return self.responses


def run(manager, input_ids, max_new_tokens, **options):
    collector = Collector()
    manager.submit(input_ids, max_new_tokens, collector, **options)
    return collector.wait()
