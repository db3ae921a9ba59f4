"""The keyword arguments of LLM, in vLLM's names and our own."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from inflight.engine.config import BuildOptions, option
from inflight.errors import InflightError
from inflight.llm.option_names import require_known_options
from inflight.llm.sampling_params import SamplingParams
from inflight.llm.serving_options import ServingOptions

# vLLM's names of build options.
_SYNONYMS = {
    "block_size": "tokens_per_block",
    "kv_cache_memory_bytes": "kv_cache_memory",
    "max_model_len": "max_seq_len",
    "max_num_batched_tokens": "max_num_tokens",
    "max_num_seqs": "max_batch_size",
}

# vLLM's options of which there is one value here, and what serves instead of another.
_FIXED = {
    "data_parallel_size": (1, "start a process for each replica"),
    "disable_log_stats": (True, "LLM.statistics() returns them"),
    "enable_lora": (False, "LoRA adapters are not served: merge the adapter into its base model"),
    "enforce_eager": (True, "nothing is compiled when a model is loaded"),
    "load_format": ("auto", "the files say what they are"),
    "pipeline_parallel_size": (1, "this version runs in one process"),
    "quantization": (None, 'dtype="int8" or dtype="int4" quantizes weights'),
    "skip_tokenizer_init": (False, "detokenize=False of SamplingParams leaves out the text"),
    "swap_space": (0, "kv_cache_host_memory_bytes is the host tier of the KV cache"),
    "task": ("generate", "there are generating models only"),
    "tensor_parallel_size": (1, "this version runs in one process"),
    "tokenizer_mode": ("auto", "the model's own tokenizer is used"),
    "trust_remote_code": (False, "code that comes with a model is never run"),
}

_ADVICE = {
    "cpu_offload_gb": "weights stay where the engine is built for",
    "download_dir": "model is a path: nothing is downloaded",
    "gpu_memory_utilization": "kv_cache_memory, in bytes, is the memory of the KV cache",
    "hf_token": "model is a path: nothing is downloaded",
    "num_gpu_blocks_override": "max_tokens_in_kv_cache is the size of the KV cache in tokens",
    "path": "say model",
    "revision": "model is a path: nothing is downloaded",
    "tokenizer": "the model's own tokenizer is used",
}


def split_options(options: Mapping[str, Any]) -> tuple[ServingOptions, dict[str, Any]]:
    """How the engine runs, and what it is built with (fields of BuildOptions). Raises InflightError for an option that
    is not known, naming the nearest one or what takes its place."""
    serving_names = [field.name for field in fields(ServingOptions)]
    build_names = [field.name for field in fields(BuildOptions)]
    of_sampling = {field.name: "it is an option of SamplingParams" for field in fields(SamplingParams)}
    known = [*serving_names, *build_names, *_SYNONYMS, *_FIXED]
    require_known_options("LLM", options, known, of_sampling | _ADVICE)
    serving, build = {}, {}
    for name, value in options.items():
        if name in _FIXED:
            only, advice = _FIXED[name]
            if value != only:
                raise InflightError(f"{name} is {value!r}; there is only {only!r}: {advice}")
        elif name in serving_names:
            serving[name] = value
        else:
            ours = _SYNONYMS.get(name, name)
            if ours in build:
                raise InflightError(f"{name} and {ours} are two names of one option; give one of them")
            build[ours] = value
    return ServingOptions(**serving), build


def in_words_of_llm(error: InflightError) -> InflightError:
    """An error of the build, whose options are spelled as the command line has them, as LLM spells them."""
    message = str(error)
    for field in fields(BuildOptions):
        message = message.replace(option(field.name), field.name)
    return InflightError(message, error.code)
