"""Worker of llama.cpp: llama_cpp_worker.py GGUF THREADS. All prompts in batches of 2,048 tokens, then one token of each
sequence a step, chosen greedily: what its own llama-batched-bench does, with an argmax that costs next to nothing.
"""

import sys
import time

import llama_cpp
import numpy as np
from worker_loop import serve

MAX_TOKENS_IN_BATCH = 2048


class LlamaCpp:
    def __init__(self, model: str, threads: int):
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(model.encode(), parameters)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        self._threads = threads
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(MAX_TOKENS_IN_BATCH, 0, 1)
        self._context, self._context_shape = None, None

    def generate(self, prompts, outputs):
        self._prepare_context(len(prompts), max(map(len, prompts)) + max(outputs))
        arrivals = [[] for _ in prompts]
        start = time.perf_counter()
        feed = [
            (sequence, position, token, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        last = {}
        for first in range(0, len(feed), MAX_TOKENS_IN_BATCH):
            sampled = self._decode(feed[first : first + MAX_TOKENS_IN_BATCH])
            last |= sampled
            for sequence in sampled:
                arrivals[sequence].append((time.perf_counter() - start, 1))
        while running := [s for s in last if len(arrivals[s]) < outputs[s]]:
            feed = [(s, len(prompts[s]) + len(arrivals[s]) - 1, last[s], True) for s in running]
            last |= self._decode(feed)
            for sequence in running:
                arrivals[sequence].append((time.perf_counter() - start, 1))
        return arrivals

    def _prepare_context(self, sequences: int, tokens: int) -> None:
        """An empty KV cache with a stream of its own for each sequence; made anew only for another shape."""
        shape = (sequences, -(-tokens // 256) * 256)
        if shape != self._context_shape:
            if self._context:
                llama_cpp.llama_free(self._context)
            parameters = llama_cpp.llama_context_default_params()
            parameters.n_ctx = shape[0] * shape[1]
            parameters.n_seq_max = sequences
            parameters.n_batch = MAX_TOKENS_IN_BATCH
            parameters.n_threads = parameters.n_threads_batch = self._threads
            parameters.kv_unified = False
            self._context, self._context_shape = llama_cpp.llama_init_from_model(self._model, parameters), shape
            if not self._context:
                raise RuntimeError(f"llama.cpp has no context of {sequences} sequences with {shape[1]} tokens")
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def _decode(self, feed) -> dict[int, int]:
        """One llama_decode of (sequence, position, token, wants logits); the greedy token of each that wants them."""
        batch = self._batch
        batch.n_tokens = len(feed)
        for index, (sequence, position, token, wants_logits) in enumerate(feed):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wants_logits
        if status := llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {status}")
        return {sequence: self._greedy(index) for index, (sequence, _, _, wants) in enumerate(feed) if wants}

    def _greedy(self, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, index)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())


def load():
    model, threads = sys.argv[1:]
    return LlamaCpp(model, int(threads)).generate, {"version": llama_cpp.__version__}


if __name__ == "__main__":
    serve(load)
