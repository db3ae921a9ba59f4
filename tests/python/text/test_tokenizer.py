"""Tokenizer directories: what is read, what is refused, how chat messages become a prompt."""

import json
import os
import subprocess
import sys

import pytest
from small_tokenizers import byte_level, save

from inflight.errors import InflightError
from inflight.text import Tokenizer

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MESSAGES = [{"role": "user", "content": "你好"}]


def test_special_ids_come_from_tokenizer_config(tmp_path):
    fast = byte_level()
    save(fast, tmp_path, eos_token={"content": "<|im_end|>"})
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.eos_id == fast.token_to_id("<|im_end|>")
    assert tokenizer.pad_id == tokenizer.eos_id, "no pad_token: the end token pads"
    assert tokenizer.vocab_size == fast.get_vocab_size()


def test_a_tokenizer_without_configuration_has_no_special_ids(tokenizer_dirs):
    tokenizer = Tokenizer(tokenizer_dirs["byte_level"])
    assert (tokenizer.eos_id, tokenizer.pad_id) == (None, None)


def test_chat_prompt_equals_transformers(tmp_path):
    from transformers import AutoTokenizer

    save(
        byte_level(),
        tmp_path,
        tokenizer_class="PreTrainedTokenizerFast",
        eos_token="<|im_end|>",
        chat_template=CHATML + "{{ messages | tojson }}{% generation %}{{ eos_token }}{% endgeneration %}",
    )
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=True
    )
    assert Tokenizer(tmp_path).chat_prompt(MESSAGES) == expected


TOKEN_NAMES = "bos_token eos_token unk_token sep_token pad_token cls_token mask_token image_token tool_token".split()


@pytest.mark.parametrize(
    "config, token_map",
    [
        (dict(eos_token="<|im_end|>", extra_special_tokens={"image_token": "<image>"}), None),
        (dict(eos_token="<|im_end|>", image_token="<image>", add_bos_token=True), None),
        (dict(eos_token="<|im_end|>"), dict(eos_token="<think>", tool_token={"content": "<|im_start|>"})),
        (dict(eos_token="<|im_end|>"), dict(extra_special_tokens={"tool_token": "<|im_start|>"})),
        (dict(eos_token="<|im_end|>", added_tokens_decoder={}), dict(eos_token="<think>", pad_token="<think>")),
        (dict(bos_token=None, pad_token={"__type": "AddedToken", "content": "<think>"}), None),
    ],
)
def test_chat_templates_see_the_special_tokens_that_transformers_shows_them(config, token_map, tmp_path):
    from transformers import AutoTokenizer

    template = " ".join(f"{name}={{{{ {name} }}}}" for name in TOKEN_NAMES)
    save(byte_level(), tmp_path, tokenizer_class="PreTrainedTokenizerFast", chat_template=template, **config)
    if token_map is not None:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(token_map))
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(MESSAGES, tokenize=False)
    assert Tokenizer(tmp_path).chat_prompt(MESSAGES) == expected


@pytest.mark.parametrize(
    "config, message",
    [
        (dict(eos_token=3), "tokenizer_config.json: eos_token is 3; expected the text of a token"),
        (dict(extra_special_tokens={"x": 3}), "extra_special_tokens: x is 3; expected the text of a token"),
        (dict(chat_template=3), "chat_template is 3; expected a string"),
        (dict(chat_template=["x"]), r"chat_template is \['x'\]; expected a list of JSON objects"),
        (dict(chat_template=[{"name": "default"}]), "chat_template: template is missing"),
    ],
)
def test_malformed_configurations_are_refused_by_name(config, message, tmp_path):
    save(byte_level(), tmp_path, **({"chat_template": CHATML} | config))
    with pytest.raises(InflightError, match=message):
        Tokenizer(tmp_path).chat_prompt(MESSAGES)


def test_chat_template_file_wins_and_generation_prompt_can_be_left_out(tmp_path):
    save(byte_level(), tmp_path, chat_template="never this one")
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    prompt = Tokenizer(tmp_path).chat_prompt(MESSAGES, add_generation_prompt=False)
    assert prompt == "<|im_start|>user\n你好<|im_end|>\n"


def test_named_chat_templates_use_the_default(tmp_path):
    templates = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    save(byte_level(), tmp_path, chat_template=templates)
    assert Tokenizer(tmp_path).chat_prompt(MESSAGES) == "plain"


@pytest.mark.parametrize(
    "template, message",
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content.nothing.here }}", "rejects these messages"),
        ("{% for %}", "not valid"),
        ("{{ ''.__class__.__mro__ }}", "rejects these messages"),
        (None, "has no chat template"),
    ],
)
def test_a_chat_that_cannot_be_rendered_is_an_error(tmp_path, template, message):
    save(byte_level(), tmp_path, **({"chat_template": template} if template else {}))
    with pytest.raises(InflightError, match=message):
        Tokenizer(tmp_path).chat_prompt(MESSAGES)


def test_a_directory_without_tokenizer_json_is_refused(tmp_path):
    with pytest.raises(InflightError, match="tokenizer.json does not exist.*inflight convert"):
        Tokenizer(tmp_path)


def test_a_broken_tokenizer_json_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(InflightError, match="not a tokenizer"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("model", {"continuing_subword_prefix": "######"}, "is not a tokenizer .*: range end index"),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": ""}, "is not a tokenizer .*: Precompiled"),
        (
            "post_processor",
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            },
            "is damaged: it encodes no text: no entry found",
        ),
    ],
)
def test_a_panic_of_the_library_is_one_line(part, value, message, tmp_path, capfd):
    document = json.loads(byte_level().to_str())
    document[part] = {**(document[part] or {}), **value}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InflightError, match=f"tokenizer.json {message}"):
        Tokenizer(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_text_that_the_library_cannot_encode_is_an_error(tmp_path):
    model = {"type": "Unigram", "vocab": [[letter, -1.0] for letter in "Two wrds,12é\n"], "unk_id": None}
    document = json.loads(byte_level().to_str()) | {"model": model, "pre_tokenizer": None, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InflightError, match="tokenizer.json does not encode this text: .*unknown token"):
        Tokenizer(tmp_path).encode("機")


def test_neither_torch_nor_transformers_is_imported(tokenizer_dirs):
    program = (
        "import sys; from inflight.text import Tokenizer; "
        f"Tokenizer({str(tokenizer_dirs['byte_level'])!r}).decode([1]); "
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "set()", result.stderr


def test_files_are_utf8_whatever_the_locale(tmp_path):
    """Triton's python backend embeds an interpreter without the UTF-8 mode of the python command."""
    save(byte_level(), tmp_path)
    config = {"eos_token": "<｜end▁of▁sentence｜>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("答：{{ eos_token }}", encoding="utf-8")
    program = f"from inflight.text import Tokenizer; print(ascii(Tokenizer({str(tmp_path)!r}).chat_prompt([])))"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.stdout == ascii("答：<｜end▁of▁sentence｜>") + "\n", result.stderr
