"""The five configurations: the wire contract's tensors, and ensembles whose steps fit together."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from inflight.repository.generate import MODELS, find_templates
from inflight.repository.template import fill

ENSEMBLES = ("ensemble", "tensorrt_llm_bls")
SCALARS = {
    "INT32": "num_return_sequences num_draft_tokens decoder_input_lengths end_id pad_id beam_width runtime_top_k "
    "runtime_top_p_reset_ids min_length min_tokens prompt_vocab_size retention_decode_priority "
    "retention_decode_duration_ms lookahead_window_size lookahead_ngram_size lookahead_verification_set_size",
    "FP32": "draft_acceptance_threshold temperature runtime_top_p min_p runtime_top_p_min runtime_top_p_decay "
    "len_penalty repetition_penalty presence_penalty frequency_penalty beam_search_diversity_rate",
    "BOOL": "early_stopping return_log_probs return_context_logits return_generation_logits "
    "return_kv_cache_reuse_stats return_perf_metrics return_num_input_tokens return_num_output_tokens "
    "exclude_input_in_output include_stop_str_in_output stop streaming",
    "UINT64": "random_seed seed lora_task_id",
}
VECTORS = {
    ("INT32", (-1,)): "draft_input_ids decoder_input_ids retention_token_range_starts retention_token_range_ends "
    "retention_token_range_priorities retention_token_range_durations_ms",
    ("FP32", (-1, -1)): "draft_logits",
    ("INT32", (2, -1)): "stop_words_list bad_words_list",
    ("FP32", (-1,)): "embedding_bias",
    ("FP16", (-1, -1)): "prompt_embedding_table lora_weights",
    ("UINT64", (-1,)): "prompt_table_extra_ids",
    ("INT32", (-1, 3)): "lora_config",
    ("STRING", (-1,)): "stop_words",
    ("STRING", (1,)): "guided_decoding_guide_type guided_decoding_guide",
}
GENERATION_OUTPUTS = {
    "cum_log_probs": ("FP32", (-1,)),
    "output_log_probs": ("FP32", (-1, -1)),
    "context_logits": ("FP32", (-1, -1)),
    "generation_logits": ("FP32", (-1, -1, -1)),
    "batch_index": ("INT32", (1,)),
    "sequence_index": ("INT32", (1,)),
    "kv_cache_alloc_new_blocks": ("INT32", (1,)),
    "kv_cache_reused_blocks": ("INT32", (1,)),
    "kv_cache_alloc_total_blocks": ("INT32", (1,)),
    "arrival_time_ns": ("INT64", (1,)),
    "first_scheduled_time_ns": ("INT64", (1,)),
    "first_token_time_ns": ("INT64", (1,)),
    "last_token_time_ns": ("INT64", (1,)),
    "acceptance_rate": ("FP32", (1,)),
    "total_accepted_draft_tokens": ("INT32", (1,)),
    "total_draft_tokens": ("INT32", (1,)),
    "num_input_tokens": ("INT32", (1,)),
    "num_output_tokens": ("INT32", (1,)),
}


@pytest.fixture(scope="module")
def configs():
    values = {"triton_max_batch_size": 8, "engine_dir": "/engine", "tokenizer_dir": "/tokenizer"}
    texts = {model: (find_templates() / model / "config.pbtxt").read_text() for model in MODELS}
    return {
        model: text_format.Parse(fill(text, values, leave_parameters=False).text, ModelConfig())
        for model, text in texts.items()
    }


def signature(tensors):
    types = {tensor.name: DataType.Name(tensor.data_type).removeprefix("TYPE_") for tensor in tensors}
    return {tensor.name: (types[tensor.name], tuple(tensor.dims)) for tensor in tensors}


def test_tensorrt_llm_takes_and_gives_the_contracts_tensors(configs):
    config = configs["tensorrt_llm"]
    optional = {name: (type_, (1,)) for type_, names in SCALARS.items() for name in names.split()}
    optional |= {name: kind for kind, names in VECTORS.items() for name in names.split()}
    optional["generation_id"] = ("UINT64", (1,))  # of a request that fetches, and has none of the others
    required = {"input_ids": ("INT32", (-1,)), "input_lengths": ("INT32", (1,)), "request_output_len": ("INT32", (1,))}
    assert signature(config.input) == required | optional
    assert all(tensor.optional for tensor in config.input)
    assert signature(config.output) == {
        "output_ids": ("INT32", (-1, -1)),
        "sequence_length": ("INT32", (-1,)),
        "preceding_ids": ("INT32", (16,)),
        "sequence_finished": ("BOOL", (1,)),
        "num_cut_bytes": ("INT32", (-1,)),
        "generation_id": ("UINT64", (1,)),
        **GENERATION_OUTPUTS,
    }


@pytest.mark.parametrize("model", ENSEMBLES)
def test_ensembles_give_text_and_what_the_generation_gives(configs, model):
    assert signature(configs[model].output) == {"text_output": ("STRING", (-1,)), **GENERATION_OUTPUTS}
    inputs = signature(configs[model].input)
    assert inputs["text_input"] == ("STRING", (1,)) and inputs["max_tokens"] == ("INT32", (1,))


@pytest.mark.parametrize("model", ENSEMBLES)
def test_every_tensor_of_an_ensemble_comes_from_somewhere_in_the_type_that_the_step_takes(configs, model):
    ensemble = configs[model]
    types = {name: type_ for name, (type_, _) in signature(ensemble.input).items()}
    for step in ensemble.ensemble_scheduling.step:
        inputs, outputs = signature(configs[step.model_name].input), signature(configs[step.model_name].output)
        for name, source in step.input_map.items():
            assert inputs[name][0] == types[source], (step.model_name, name)
        required = {tensor.name for tensor in configs[step.model_name].input if not tensor.optional}
        assert required <= step.input_map.keys()
        types |= {target: outputs[name][0] for name, target in step.output_map.items()}
    used = {source for step in ensemble.ensemble_scheduling.step for source in step.input_map.values()}
    assert {tensor.name for tensor in ensemble.input} <= used, "an input that no step takes is ignored silently"
    assert all(types[name] == type_ for name, (type_, _) in signature(ensemble.output).items())


def test_both_ensembles_do_the_same(configs):
    steps = {model: configs[model].ensemble_scheduling.step for model in ENSEMBLES}
    for one, other in zip(*steps.values(), strict=True):
        assert one.model_name == other.model_name and one.output_map == other.output_map
        assert one.input_map.items() <= other.input_map.items()
