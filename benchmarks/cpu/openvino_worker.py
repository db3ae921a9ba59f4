"""Worker of OpenVINO GenAI: openvino_worker.py GGUF THREADS. Its continuous batching, driven step by step.

Steps of up to 2,048 tokens: fewer make prompts slower, more change nothing.
"""

import sys
import time

import numpy as np
import openvino
import openvino_genai
from worker_loop import serve

MAX_TOKENS_IN_STEP = 2048
KV_CACHE_GIB = 2


def load():
    model, threads = sys.argv[1:]
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = MAX_TOKENS_IN_STEP
    scheduler.cache_size = KV_CACHE_GIB
    properties = {"INFERENCE_NUM_THREADS": int(threads)}
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
    return lambda prompts, outputs: generate(pipeline, prompts, outputs), {"version": openvino_genai.__version__}


def generate(pipeline, prompts, outputs):
    inputs = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
    configs = [openvino_genai.GenerationConfig(max_new_tokens=output, ignore_eos=True) for output in outputs]
    arrivals = [[] for _ in prompts]
    start = time.perf_counter()
    handles = [
        pipeline.add_request(index, tokens, config)
        for index, (tokens, config) in enumerate(zip(inputs, configs, strict=True))
    ]
    while pipeline.has_non_finished_requests():
        pipeline.step()
        seconds = time.perf_counter() - start
        for handle, responses in zip(handles, arrivals, strict=True):
            if handle.can_read():
                responses.extend((seconds, len(output.generated_ids)) for output in handle.read().values())
    return arrivals


if __name__ == "__main__":
    serve(load)
