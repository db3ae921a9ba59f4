"""Templates: what is filled, what is left and what is said about it."""

import subprocess
import sys
from pathlib import Path

import pytest

from inflight.errors import InflightError
from inflight.repository.template import fill, find_templates, parse_substitutions, template_variables

TOOL = Path(__file__).parents[3] / "tools" / "fill_template.py"
TEMPLATE = """\
max_batch_size: ${triton_max_batch_size}
decoupled: ${decoupled_mode}  # never ${this}
parameters { key: "engine" value { string_value: "${engine_dir}" } }
parameters { key: "policy" value { string_value: "${policy}" } }
"""
UPSTREAM_PARAMETER = 'parameters { key: "skip_special_tokens" value { string_value: "${skip_special_tokens}" } }\n'


def names(variables):
    return [variable.name for variable in variables]


def test_variables_are_named_with_their_defaults():
    variables = {variable.name: variable for variable in template_variables(TEMPLATE)}
    assert {name: variable.default for name, variable in variables.items()} == {
        "triton_max_batch_size": None,
        "decoupled_mode": "true",
        "engine_dir": None,
        "policy": None,
    }
    assert [name for name, variable in variables.items() if variable.read_by_triton] == [
        "triton_max_batch_size",
        "decoupled_mode",
    ]


def test_unfilled_variables_stay_unless_triton_has_to_read_their_default():
    filled = fill(TEMPLATE, {"engine_dir": "/e", "other": 1})
    assert 'string_value: "/e"' in filled.text
    assert "decoupled: true" in filled.text and names(filled.defaulted) == ["decoupled_mode"]
    assert "${triton_max_batch_size}" in filled.text and "${policy}" in filled.text
    assert names(filled.unfilled) == ["triton_max_batch_size", "policy"]
    assert filled.unknown == ["other"]


def test_a_template_can_be_filled_in_several_passes():
    once = fill(TEMPLATE, {"triton_max_batch_size": 4, "engine_dir": "/e", "policy": "p"}).text
    passes = fill(fill(TEMPLATE, {"engine_dir": "/e"}).text, {"triton_max_batch_size": 4, "policy": "p"}).text
    assert passes == once


def test_parameters_can_be_left_empty_in_place_of_unfilled():
    filled = fill(TEMPLATE, {}, leave_parameters=False)
    assert names(filled.unfilled) == ["triton_max_batch_size", "engine_dir"]
    assert 'key: "policy" value { string_value: "" }' in filled.text


@pytest.mark.parametrize(
    ("backend", "required"), [("python", "tokenizer_dir"), ("tensorrtllm", "engine_dir"), ("${backend}", "engine_dir")]
)
def test_which_directory_is_required_depends_on_the_model(backend, required):
    """preprocessing can do without an engine, and tensorrt_llm without a tokenizer."""
    text = f'backend: "{backend}"\n' + "".join(
        f'parameters {{ key: "{name}" value {{ string_value: "${{{name}}}" }} }}\n'
        for name in ("engine_dir", "tokenizer_dir")
    )
    assert [
        variable.name for variable in template_variables(text) if variable.required and variable.name != "backend"
    ] == [required]


def test_upstreams_defaults_of_what_triton_reads():
    """Its documented commands leave these out."""
    policy = "{ max_queue_delay_microseconds: ${max_queue_delay_microseconds} max_queue_size: ${max_queue_size} }"
    assert fill(policy, {}).text == "{ max_queue_delay_microseconds: 0 max_queue_size: 0 }"


def test_an_empty_value_stands_in_a_string_but_not_where_triton_reads():
    filled = fill(TEMPLATE, {"policy": "", "decoupled_mode": "", "triton_max_batch_size": ""})
    assert 'string_value: ""' in filled.text and "decoupled: true" in filled.text
    assert names(filled.unfilled) == ["triton_max_batch_size", "engine_dir"]


def test_booleans_are_spelled_as_protobuf_spells_them():
    assert "decoupled: false" in fill(TEMPLATE, {"decoupled_mode": False}).text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a:1,b:two", {"a": "1", "b": "two"}),
        ("url:http://host:80/x", {"url": "http://host:80/x"}),
        (r"ids:0\,1,b:2", {"ids": "0,1", "b": "2"}),
        (r"url:http\\://host", {"url": "http://host"}),  # upstream's escape of a colon
        ("a:,b:1", {"a": "", "b": "1"}),
        ("", {}),
    ],
)
def test_substitutions_are_read_as_upstream_writes_them(text, expected):
    assert parse_substitutions(text) == expected


@pytest.mark.parametrize("text", ["a", ":1", "a:1,b"])
def test_a_substitution_without_key_or_colon_is_refused(text):
    with pytest.raises(InflightError, match="key:value"):
        parse_substitutions(text)


def test_split_is_the_tools_as_it_is_upstreams():
    program = (
        f"import sys; sys.path.insert(0, {str(TOOL.parent)!r}); from fill_template import split\n"
        r"print(split('a,b,c', ','), split('a\\,b\\,c', ','), split('a\\,b', ':'), split('', ','))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "['a', 'b', 'c'] ['a,b,c'] ['a,b'] ['']\n", done.stderr


def run_tool(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=60)


def test_the_tool_prints_or_changes_the_file(tmp_path):
    file = tmp_path / "config.pbtxt"
    file.write_text(TEMPLATE)
    printed = run_tool(file, "triton_max_batch_size:4")
    assert printed.returncode == 0 and file.read_text() == TEMPLATE
    assert run_tool("--in_place", file, "triton_max_batch_size:4").stdout == ""
    assert file.read_text() == printed.stdout
    assert "max_batch_size: 4\n" in printed.stdout


def test_the_tool_names_what_it_left_and_what_it_did_not_know(tmp_path):
    file = tmp_path / "config.pbtxt"
    file.write_text(TEMPLATE + UPSTREAM_PARAMETER)
    messages = run_tool("-i", file, "polcy:x").stderr
    assert "${triton_max_batch_size} is required and left unfilled" in messages
    assert "${engine_dir} is required and left unfilled" in messages
    assert "left unfilled, which means the default: policy, skip_special_tokens\n" in messages
    assert "filled with the default: decoupled_mode (true)" in messages
    assert "no such variable: polcy; the file has triton_max_batch_size" in messages


def test_the_tool_says_what_has_no_effect(tmp_path):
    file = tmp_path / "postprocessing" / "config.pbtxt"
    file.parent.mkdir()
    file.write_text((find_templates() / "postprocessing" / "config.pbtxt").read_text())
    messages = run_tool("-i", file, "triton_max_batch_size:4,tokenizer_dir:/t,postprocessing_instance_count:3").stderr
    assert "postprocessing_instance_count has no effect: one instance keeps" in messages


def test_the_tool_fails_on_what_it_cannot_read(tmp_path):
    assert run_tool(tmp_path / "nothing", "a:1").returncode == 1
    assert run_tool(__file__, "a").returncode == 1
