"""Values of upstream's template variables that the models of model_templates beside tensorrt_llm do not serve.

Those of tensorrt_llm are in backend/triton/unserved_parameters.cc.
"""

from collections.abc import Iterator

_MULTIMODAL = "multimodal models are not served"
# Model → parameter → why it is refused, unless it is unfilled.
REFUSED = {
    "preprocessing": {
        "visual_model_path": _MULTIMODAL,
        "multimodal_model_path": _MULTIMODAL,
        "hf_model_path": _MULTIMODAL,
    },
    "tensorrt_llm_bls": {
        "tensorrt_llm_draft_model_name": "a draft model runs inside tensorrt_llm: give its engine as draft_engine_dir",
        "multimodal_encoders_name": _MULTIMODAL,
    },
}
# Model → parameter → why its value changes nothing.
WITHOUT_EFFECT = {
    "preprocessing": {
        "tokenizer_type": "the tokenizer's files say what it is",
        "max_num_images": _MULTIMODAL,
        "max_queue_size": "tensorrt_llm's counts",
        "max_queue_delay_microseconds": "no request waits for others",
    },
    "postprocessing": {
        "tokenizer_type": "the tokenizer's files say what it is",
        "postprocessing_instance_count": "one instance keeps the responses of a stream in order",
    },
    "tensorrt_llm_bls": {
        "decoupled_mode": "tensorrt_llm's counts",
        "bls_instance_count": "it is an ensemble, which serves any number of requests at once",
        "accumulate_tokens": "text is put together right with every response",
    },
}


def unserved_values(model: str, values: dict[str, str]) -> Iterator[str]:
    """What is wrong with the parameters of a model of ours. values: of those that are filled."""
    for parameter, reason in REFUSED.get(model, {}).items():
        if value := values.get(parameter):
            yield f"parameter {parameter} (${{{parameter}}}) is {value}, but {reason}; leave it empty"
