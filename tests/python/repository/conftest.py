from string import Template

import pytest
from stub_engine import write_engine


@pytest.fixture
def engine(tmp_path):
    return write_engine(tmp_path / "engine")


# The parts of upstream's templates that a check could stumble over: unfilled variables without a default, commas
# between repeated fields, several spellings of the same field, models in Python.
UPSTREAM_ENSEMBLE = """
name: "ensemble"
platform: "ensemble"
max_batch_size: ${triton_max_batch_size}
input [
  {
    name: "text_input"
    data_type: TYPE_STRING
    dims: [ -1 ]
  }
]
output [
  {
    name: "text_output"
    data_type: TYPE_STRING
    dims: [ -1 ]
  }
]
ensemble_scheduling {
  step [
    {
      model_name: "preprocessing"
      model_version: -1
      input_map { key: "QUERY" value: "text_input" },
      output_map { key: "INPUT_ID" value: "_INPUT_ID" }
    },
    {
      model_name: "tensorrt_llm"
      model_version: -1
      input_map { key: "input_ids" value: "_INPUT_ID" }
      output_map { key: "output_ids" value: "_TOKENS_BATCH" },
    },
    {
      model_name: "postprocessing"
      model_version: -1
      input_map { key: "TOKENS_BATCH" value: "_TOKENS_BATCH" }
      output_map { key: "OUTPUT" value: "text_output" }
    }
  ]
}
"""
UPSTREAM_TENSORRT_LLM = """
name: "tensorrt_llm"
backend: "${triton_backend}"
max_batch_size: ${triton_max_batch_size}
model_transaction_policy {
  decoupled: ${decoupled_mode}
}
dynamic_batching {
    preferred_batch_size: [ ${triton_max_batch_size} ]
    max_queue_delay_microseconds: ${max_queue_delay_microseconds}
}
instance_group [
  {
    count: 1
    kind : KIND_CPU
  }
]
parameters: {
  key: "gpt_model_path"
  value: {
    string_value: "${engine_dir}"
  }
}
# parameters: {
#   key: "enable_trt_overlap"
#   value: {
#     string_value: "${enable_trt_overlap}"
#   }
# }
parameters: {
  key: "medusa_choices"
    value: {
      string_value: "${medusa_choices}"
  }
}
"""
UPSTREAM_PYTHON = """
name: "%s"
backend: "python"
max_batch_size: ${triton_max_batch_size}
parameters {
  key: "tokenizer_dir"
  value: {
    string_value: "${tokenizer_dir}"
  }
}
parameters {
  key: "skip_special_tokens"
  value: {
    string_value: "${skip_special_tokens}"
  }
}
instance_group [
    {
        count: ${instance_count}
        kind: KIND_CPU
    }
]
"""
UPSTREAM_BLS = """
name: "tensorrt_llm_bls"
backend: "python"
max_batch_size: ${triton_max_batch_size}
model_transaction_policy {
  decoupled: ${decoupled_mode}
}
parameters: {
  key: "accumulate_tokens"
  value: {
    string_value: "${accumulate_tokens}"
  }
}
parameters: {
  key: "tensorrt_llm_model_name"
  value: {
    string_value: "${tensorrt_llm_model_name}"
  }
}
"""


@pytest.fixture
def make_upstream_repository(engine, tmp_path):
    """make_upstream_repository(**values): what upstream's templates and its fill_template, which is
    string.Template.safe_substitute, leave on disk."""

    def make(**values):
        values = {
            "triton_backend": "tensorrtllm", "triton_max_batch_size": 8, "decoupled_mode": "False",
            "max_queue_delay_microseconds": 0, "engine_dir": engine, "tokenizer_dir": engine / "tokenizer",
            "instance_count": 1, **values,
        }  # fmt: skip
        templates = {
            "ensemble": UPSTREAM_ENSEMBLE,
            "preprocessing": UPSTREAM_PYTHON % "preprocessing",
            "tensorrt_llm": UPSTREAM_TENSORRT_LLM,
            "postprocessing": UPSTREAM_PYTHON % "postprocessing",
            "tensorrt_llm_bls": UPSTREAM_BLS,
        }
        for model, template in templates.items():
            (tmp_path / "upstream" / model).mkdir(parents=True)
            text = Template(template).safe_substitute(values)
            (tmp_path / "upstream" / model / "config.pbtxt").write_text(text)
        return tmp_path / "upstream"

    return make
