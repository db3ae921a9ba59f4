"""Our templates, filled by upstream's fill_template: string.Template, given the variables of its own templates."""

import shutil
from string import Template

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from inflight.repository.check import check_repository
from inflight.repository.generate import MODELS
from inflight.repository.template import find_templates, template_variables

# Of every template of 0.5 to 0.21: users fill any of these, and its tool refuses what a template has not.
VARIABLES = {
    "ensemble": "triton_max_batch_size logits_datatype",
    "preprocessing": "triton_max_batch_size tokenizer_dir tokenizer_type preprocessing_instance_count "
    "add_special_tokens engine_dir visual_model_path multimodal_model_path max_num_images max_queue_size "
    "max_queue_delay_microseconds",
    "postprocessing": "triton_max_batch_size tokenizer_dir tokenizer_type postprocessing_instance_count "
    "skip_special_tokens",
    "tensorrt_llm": "triton_backend triton_max_batch_size decoupled_mode max_queue_delay_microseconds max_queue_size "
    "engine_dir encoder_engine_dir batching_strategy batch_scheduler_policy max_beam_width max_num_sequences "
    "max_tokens_in_paged_kv_cache max_attention_window_size sink_token_length kv_cache_free_gpu_mem_fraction "
    "cross_kv_cache_fraction kv_cache_host_memory_bytes kv_cache_onboard_blocks exclude_input_in_output "
    "cancellation_check_period_ms stats_check_period_ms iter_stats_max_iterations request_stats_max_iterations "
    "enable_kv_cache_reuse normalize_log_probs enable_chunked_context gpu_device_ids participant_ids num_nodes "
    "lora_cache_optimal_adapter_size lora_cache_max_adapter_size lora_cache_gpu_memory_fraction "
    "lora_cache_host_memory_bytes lora_prefetch_dir decoding_mode lookahead_window_size lookahead_ngram_size "
    "lookahead_verification_set_size medusa_choices eagle_choices gpu_weights_percent enable_context_fmha_fp32_acc "
    "multi_block_mode cuda_graph_mode cuda_graph_cache_size speculative_decoding_fast_logits tokenizer_dir "
    "guided_decoding_backend xgrammar_tokenizer_info_path encoder_input_features_data_type logits_datatype "
    "enable_trt_overlap",
    "tensorrt_llm_bls": "triton_max_batch_size decoupled_mode bls_instance_count accumulate_tokens logits_datatype "
    "tensorrt_llm_model_name tensorrt_llm_draft_model_name multimodal_encoders_name",
}
# What its documentation has one fill.
DOCUMENTED = {
    "triton_max_batch_size": 8,
    "decoupled_mode": "True",
    "bls_instance_count": 2,
    "preprocessing_instance_count": 1,
    "postprocessing_instance_count": 1,
    "triton_backend": "tensorrtllm",
    "max_queue_delay_microseconds": 0,
    "max_queue_size": 0,
    "batching_strategy": "inflight_fused_batching",
    "encoder_input_features_data_type": "TYPE_FP16",
    "logits_datatype": "TYPE_FP32",
}


def template(model: str) -> str:
    return (find_templates() / model / "config.pbtxt").read_text()


@pytest.mark.parametrize("model", VARIABLES)
def test_each_variable_of_upstreams_templates_is_in_ours(model):
    ours = {variable.name for variable in template_variables(template(model))}
    assert set(VARIABLES[model].split()) <= ours


def test_filled_as_documented_they_are_a_repository(engine, tmp_path):
    values = {**DOCUMENTED, "engine_dir": engine, "tokenizer_dir": engine / "tokenizer"}
    for model in MODELS:
        shutil.copytree(find_templates() / model, tmp_path / "repository" / model)
        text = Template(template(model)).safe_substitute(
            {name: value for name, value in values.items() if name in VARIABLES[model].split()}
        )
        (tmp_path / "repository" / model / "config.pbtxt").write_text(text)
        config = text_format.Parse(text, ModelConfig())
        assert config.max_batch_size == 8
        for name, parameter in config.parameters.items():
            assert "${" not in parameter.string_value or parameter.string_value.startswith("${"), name
    check_repository(tmp_path / "repository")
