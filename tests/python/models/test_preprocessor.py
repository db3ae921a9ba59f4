"""The tensors that preprocessing makes of a request."""

import numpy as np
import pytest
from small_tokenizers import KINDS, byte_level, save

from inflight.errors import InflightError
from inflight.text import Tokenizer
from inflight.text.preprocessor import Preprocessor
from inflight.text.spellings import spellings
from inflight.text.word_limits import WordLimits

VOCAB_SIZE = 512


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(save(byte_level(), tmp_path_factory.mktemp("tokenizer"), eos_token="<|im_end|>"))


@pytest.fixture(scope="module")
def preprocess(tokenizer):
    return Preprocessor(tokenizer, vocab_size=VOCAB_SIZE)


def strings(*rows):
    return np.array([[text.encode() for text in row] for row in rows], np.object_)


def request(**tensors):
    return {"QUERY": strings(["hello"]), "REQUEST_OUTPUT_LEN": np.array([[7]], np.int32), **tensors}


def test_prompt_becomes_ids_and_length(preprocess, tokenizer):
    outputs = preprocess(request())
    ids = tokenizer.encode("hello")
    assert outputs["INPUT_ID"].tolist() == [ids] and outputs["INPUT_ID"].dtype == np.int32
    assert outputs["REQUEST_INPUT_LEN"].tolist() == [[len(ids)]]
    assert outputs["REQUEST_OUTPUT_LEN"].tolist() == [[7]]
    assert outputs["OUT_PAD_ID"].tolist() == [[tokenizer.eos_id]]


def test_shorter_prompts_of_a_batch_are_padded_at_the_end(preprocess, tokenizer):
    batch = {
        "QUERY": strings(["a"], ["abc"]),
        "REQUEST_OUTPUT_LEN": np.ones((2, 1), np.int32),
        "PAD_ID": np.array([[5], [6]], np.int32),
    }
    outputs = preprocess(batch)
    assert outputs["INPUT_ID"].tolist() == [[*tokenizer.encode("a"), 5, 5], tokenizer.encode("abc")]


def test_word_lists_have_tokens_above_and_ends_below(preprocess, tokenizer):
    words = preprocess(request(STOP_WORDS_DICT=strings(["dog", "", "\n\n"])))["STOP_WORDS_IDS"]
    assert word_lists(words) == [[*spellings("dog", tokenizer), *spellings("\n\n", tokenizer)]]
    flat = [token for word in word_lists(words)[0] for token in word]
    assert words[0, 0].tolist() == flat and words[0, 1, -1] == -1


def word_lists(layout):
    """The words of TensorRT-LLM's word lists, [batch, 2, n]."""
    return [[word.tolist() for word in np.split(ids, ends[ends >= 0])[:-1]] for ids, ends in layout]


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_comes_as_it_is_spelled_after_a_space_and_inside_of_a_word(kind, tmp_path):
    tokenizer = Tokenizer(save(KINDS[kind](), tmp_path))
    decode = tokenizer.detokenizer().decode
    after_text = tokenizer.encode("The")
    texts = {decode(ids, preceding=after_text) for ids in spellings("dog", tokenizer)}
    puts_a_space_before_each_text = kind in ("sentencepiece", "llama2", "metaspace")
    assert texts == {"dog", " dog"} | ({"  dog"} if puts_a_space_before_each_text else set())
    assert spellings("", tokenizer) == []


@pytest.mark.parametrize(
    "words, expected", [(None, [[[], []]]), ([""], [[[0], [-1]]])], ids=["none given", "an empty string"]
)
def test_no_words(preprocess, words, expected):
    tensors = {} if words is None else {"BAD_WORDS_DICT": strings(words)}
    assert preprocess(request(**tensors))["BAD_WORDS_IDS"].tolist() == expected


def test_outputs_that_nothing_is_given_for(preprocess, tokenizer):
    """As TensorRT-LLM's: a client hands all of them on to tensorrt_llm."""
    batch = {"QUERY": strings(["a"], ["b"]), "REQUEST_OUTPUT_LEN": np.ones((2, 1), np.int32)}
    outputs = preprocess(batch)
    eos = tokenizer.eos_id
    for name, rows in {"OUT_END_ID": [[eos], [eos]], "OUT_PAD_ID": [[eos], [eos]], "DECODER_INPUT_ID": [[eos], [eos]],
                       "REQUEST_DECODER_INPUT_LEN": [[1], [1]]}.items():  # fmt: skip
        assert outputs[name].tolist() == rows and outputs[name].dtype == np.int32
    assert outputs["EMBEDDING_BIAS"].shape == (2, 0) and outputs["EMBEDDING_BIAS"].dtype == np.float32


def test_end_id_is_the_requests_the_engines_or_the_tokenizers(tokenizer, tmp_path):
    assert Preprocessor(tokenizer, end_id=9)(request())["OUT_END_ID"].tolist() == [[9]]
    given = request(END_ID=np.array([[3]], np.int32))
    assert Preprocessor(tokenizer, end_id=9)(given)["OUT_END_ID"].tolist() == [[3]]
    without = Tokenizer(save(byte_level(), tmp_path))
    assert without.eos_id is None and Preprocessor(without)(request())["OUT_END_ID"].tolist() == [[-1]]


def test_embedding_bias_is_over_the_engines_vocabulary_and_adds_up(preprocess, tokenizer):
    (a,) = tokenizer.encode("a")
    (b,) = tokenizer.encode("b")
    bias = preprocess(
        request(EMBEDDING_BIAS_WORDS=strings(["a", "ab"]), EMBEDDING_BIAS_WEIGHTS=np.array([[1.0, 0.5]], np.float32))
    )["EMBEDDING_BIAS"]
    assert bias.shape == (1, VOCAB_SIZE) and bias.dtype == np.float32
    assert (bias[0, a], bias[0, b], bias.sum()) == (1.5, 0.5, 2.0)


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"QUERY": strings([""])}, "the prompt .* is empty"),
        ({"QUERY": np.array([[b"ab\xff"]], np.object_)}, "the prompt .* is not valid UTF-8: .* at byte 2"),
        ({"BAD_WORDS_DICT": np.array([[b"\xe4\xb8"]], np.object_)}, "BAD_WORDS_DICT is not valid UTF-8"),
        ({"EMBEDDING_BIAS_WORDS": strings(["a"])}, "got 1 words and 0 weights"),
        ({"USE_DRAFT_LOGITS": np.array([[True]])}, "use_draft_logits is set"),
        ({"IMAGE_URL": strings(["http://host/cat.png"])}, "image_url_input is set"),
        (
            {"DECODER_QUERY": strings(["a"])},
            "decoder_text_input is set, but this version does not serve encoder-decoder",
        ),
        ({"DECODER_QUERY": np.array([[b"\xff"]], np.object_)}, "decoder_text_input is set"),
        ({"PROMPT_TABLE_EXTRA_ID": np.array([[9]], np.uint64)}, "prompt_table_extra_id is set"),
    ],
)
def test_bad_input_is_refused_by_name(preprocess, tensors, message):
    with pytest.raises(InflightError, match=message):
        preprocess(request(**tensors))


@pytest.mark.parametrize(
    "tensor, name",
    [
        ("STOP_WORDS_DICT", "stop_words"),
        ("BAD_WORDS_DICT", "bad_words"),
        ("EMBEDDING_BIAS_WORDS", "embedding_bias_words"),
    ],
)
def test_more_words_than_allowed_are_refused_before_they_are_tokenized(tokenizer, tensor, name):
    preprocess = Preprocessor(tokenizer, word_limits=WordLimits(max_words=3, max_words_length=8))

    def with_words(*words):
        weights = {"EMBEDDING_BIAS_WEIGHTS": np.ones((1, len(words)), np.float32)}
        return request(**{tensor: strings(words)}, **(weights if tensor.startswith("EMB") else {}))

    preprocess(with_words("a", "bc", "Ünï"))
    with pytest.raises(InflightError, match=f"^{name} has 4 words; at most 3 are taken: .* a larger max_words$"):
        preprocess(with_words("a", "b", "c", "d"))
    with pytest.raises(InflightError, match=f"the words of {name} have 9 bytes together; at most 8 .*max_words_length"):
        preprocess(with_words("abcdefghi"))


def test_what_is_not_served_may_be_sent_empty(preprocess):
    empty = {"DECODER_QUERY": strings([""]), "PROMPT_TABLE_EXTRA_ID": np.zeros((1, 1), np.uint64)}
    assert preprocess(request(**empty)).keys() == preprocess(request()).keys()


def test_special_tokens_are_added_unless_told_otherwise(tmp_path):
    from tokenizers.processors import TemplateProcessing

    fast = byte_level()
    bos = fast.token_to_id("<|im_start|>")
    fast.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)])
    tokenizer = Tokenizer(save(fast, tmp_path))
    assert Preprocessor(tokenizer)(request())["INPUT_ID"][0, 0] == bos
    assert Preprocessor(tokenizer, add_special_tokens=False)(request())["INPUT_ID"][0, 0] != bos
    stop = Preprocessor(tokenizer)(request(STOP_WORDS_DICT=strings(["dog"])))["STOP_WORDS_IDS"]
    assert bos not in stop, "words are tokenized without them"
