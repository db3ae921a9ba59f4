"""Whatever the guide and the tokenizer: what a client gets is valid, or the guide is refused.

GUIDED_CASES=200 in the environment tries that many guides of each sort with each tokenizer; a few otherwise.
"""

import json
import os
import re
from collections import Counter
from datetime import date, datetime, time

import pytest
import small_tokenizers
from guided_guides import Guides
from jsonschema import Draft202012Validator, FormatChecker

CASES = int(os.environ.get("GUIDED_CASES", 12))
WALKS = 3
MAX_TOKENS = 200
KINDS = {
    "byte-level BPE": (small_tokenizers.byte_level, "<|im_end|>"),
    "SentencePiece BPE with a dummy prefix": (small_tokenizers.llama2, "</s>"),
    "SentencePiece BPE without": (small_tokenizers.gemma, "</s>"),
    "SentencePiece unigram with bytes": (small_tokenizers.sentencepiece, "</s>"),
    "SentencePiece unigram": (small_tokenizers.t5, "</s>"),
}

checker = FormatChecker()
checker.checks("date-time", raises=ValueError)(lambda text: bool(datetime.fromisoformat(text)))
checker.checks("time", raises=ValueError)(lambda text: time.fromisoformat(text) is not None)
checker.checks("date", raises=ValueError)(lambda text: bool(date.fromisoformat(text)))


@pytest.fixture(scope="module", params=KINDS)
def kind_walker(request, make_walker, tmp_path_factory):
    make, end_token = KINDS[request.param]
    tokenizer = make()
    directory = small_tokenizers.save(tokenizer, tmp_path_factory.mktemp("tokenizer"))
    return make_walker(directory, tokenizer.get_vocab_size() + 3, end_token)


def texts_of(walker, type, guide, seed, outcomes):
    answer = walker.ask(type, guide, WALKS, MAX_TOKENS, seed)
    if "error" in answer:
        assert answer["error"].startswith(f"guided_decoding: {type}: "), answer
        outcomes["refused"] += 1
        return []
    outcomes["accepted"] += 1
    for walk in answer["walks"]:
        outcomes["ended" if walk["ended"] else "cut off"] += 1
    return [walker.text(walk["ids"]) for walk in answer["walks"] if walk["ended"]]


def check_outcomes(outcomes, what):
    print(f"{what}: {dict(outcomes)}")
    assert outcomes["accepted"] > outcomes["refused"]
    assert outcomes["ended"] > outcomes["cut off"]


def test_texts_match_their_expressions(kind_walker):
    outcomes = Counter()
    for seed in range(CASES):
        regex = Guides(seed).regex()
        for text in texts_of(kind_walker, "regex", regex, seed, outcomes):
            for flags in (0, re.ASCII):
                assert re.fullmatch(regex, text, flags), (regex, text)
    check_outcomes(outcomes, "expressions")


def test_texts_are_valid_by_their_schemas(kind_walker):
    outcomes = Counter()
    for seed in range(CASES):
        schema = Guides(seed).schema()
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema, format_checker=checker)
        for text in texts_of(kind_walker, "json_schema", json.dumps(schema), seed, outcomes):
            error = next(validator.iter_errors(json.loads(text)), None)
            assert error is None, (schema, text)
    check_outcomes(outcomes, "schemas")
