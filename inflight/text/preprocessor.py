"""What the preprocessing model does to one request: strings to the id tensors that tensorrt_llm takes."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from inflight._native import near_miss
from inflight.errors import InflightError
from inflight.text.prompt_encoder import PromptEncoder, PromptLimits
from inflight.text.spellings import spellings
from inflight.text.tokenizer import Tokenizer
from inflight.text.word_limits import WordLimits

Tensors = Mapping[str, np.ndarray]

# Inputs for features to come: the ensembles' names for them, and the features.
_UNSERVED = {
    "DECODER_QUERY": ("decoder_text_input", "encoder-decoder models"),
    "PROMPT_TABLE_EXTRA_ID": ("prompt_table_extra_id", "prompt tuning"),
    "USE_DRAFT_LOGITS": ("use_draft_logits", "draft logits: a draft is kept when it is the token that is sampled"),
    "IMAGE": ("image_input", "images"),
    "IMAGE_BYTES": ("image_bytes_input", "images"),
    "IMAGE_URL": ("image_url_input", "images"),
    "VIDEO_BYTES": ("video_bytes_input", "videos"),
}


_NO_END_ID = -1


class Preprocessor:
    """Maps the input tensors of one preprocessing request to its output tensors; names and shapes are those of
    model_templates/preprocessing/config.pbtxt, with the batch dimension. STRING tensors hold bytes objects."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        add_special_tokens: bool = True,
        vocab_size: int | None = None,
        prompt_limits: PromptLimits | None = None,
        word_limits: WordLimits | None = None,
        end_id: int | None = None,
    ):
        """vocab_size: the engine's, the length of EMBEDDING_BIAS; the tokenizer's where it is not known. prompt_limits:
        by default, those of an engine of which nothing is known. end_id: likewise, the tokenizer's."""
        self._tokenizer = tokenizer
        self._prompts = PromptEncoder(tokenizer, prompt_limits or PromptLimits())
        self._add_special_tokens = add_special_tokens
        self._vocab_size = vocab_size or tokenizer.vocab_size
        self._pad_id = tokenizer.pad_id or 0
        self._end_id = tokenizer.eos_id if end_id is None else end_id
        self._word_limits = word_limits or WordLimits()

    def __call__(self, inputs: Tensors, parameters: Collection[str] = ()) -> dict[str, np.ndarray]:
        """parameters: the names of the request's parameters, as which a misspelled field arrives.

        Raises InflightError, naming the tensor, for input that cannot be tokenized.
        """
        _refuse_unserved(inputs)
        queries = _required(inputs, "QUERY", "text_input", parameters)
        output_lengths = _required(inputs, "REQUEST_OUTPUT_LEN", "max_tokens", parameters)
        batch_size = len(queries)
        end_ids = _given_or(inputs, "END_ID", batch_size, _NO_END_ID if self._end_id is None else self._end_id)
        pad_ids = _given_or(inputs, "PAD_ID", batch_size, self._pad_id)
        input_ids, input_lengths = self._encode_prompts(queries, pad_ids)
        return {
            "INPUT_ID": input_ids,
            "REQUEST_INPUT_LEN": input_lengths,
            "DECODER_INPUT_ID": pad_ids,
            "REQUEST_DECODER_INPUT_LEN": np.ones((batch_size, 1), np.int32),
            "REQUEST_OUTPUT_LEN": output_lengths,
            "BAD_WORDS_IDS": self._word_lists(inputs, "BAD_WORDS_DICT", "bad_words", batch_size),
            "STOP_WORDS_IDS": self._word_lists(inputs, "STOP_WORDS_DICT", "stop_words", batch_size),
            "EMBEDDING_BIAS": self._embedding_bias(inputs, batch_size),
            "OUT_END_ID": end_ids,
            "OUT_PAD_ID": pad_ids,
        }

    def _encode_prompts(self, texts: np.ndarray, pad_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids [batch, longest] padded at the end, and lengths [batch, 1]."""
        rows, name = [], "the prompt (text_input, QUERY)"
        for text in texts.reshape(-1):
            self._prompts.check_size(name, text if isinstance(text, bytes) else text.encode())
            ids = self._prompts.encode(name, _decode_utf8(text, name), self._add_special_tokens)
            if not ids:
                raise InflightError(f"{name} is empty; send at least one character")
            rows.append(ids)
        lengths = np.array([[len(ids)] for ids in rows], np.int32)
        padded = np.repeat(pad_ids.astype(np.int32).reshape(-1, 1), lengths.max(), axis=1)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = ids
        return padded, lengths

    def _word_lists(self, inputs: Tensors, tensor: str, name: str, batch_size: int) -> np.ndarray:
        """[batch, 2, n] as tensorrt_llm takes stop and bad words; n = 0 where none are given. Each word comes in its
        spellings; the empty string is no word."""
        if tensor not in inputs:
            return np.empty((batch_size, 2, 0), np.int32)
        rows = inputs[tensor].reshape(batch_size, -1)
        for words in rows:
            self._word_limits.check(name, words)
        lists = [
            [ids for word in words for ids in spellings(_decode_utf8(word, tensor), self._tokenizer)] for words in rows
        ]
        width = max(1, *(sum(map(len, words)) for words in lists))
        layout = np.zeros((batch_size, 2, width), np.int32)
        layout[:, 1] = -1
        for (ids, ends), words in zip(layout, lists, strict=True):
            flat = [token for word in words for token in word]
            ids[: len(flat)] = flat
            ends[: len(words)] = np.cumsum([len(word) for word in words])
        return layout

    def _embedding_bias(self, inputs: Tensors, batch_size: int) -> np.ndarray:
        """[batch, vocab_size]: each token of a word gets the word's weight, weights of shared tokens add up. Without
        words [batch, 0], as clients of TensorRT-LLM's preprocessing hand it on."""
        words = inputs.get("EMBEDDING_BIAS_WORDS")
        weights = inputs.get("EMBEDDING_BIAS_WEIGHTS")
        if words is None and weights is None:
            return np.empty((batch_size, 0), np.float32)
        if words is None or weights is None or words.size != weights.size:
            raise InflightError(
                "embedding_bias_words and embedding_bias_weights must have one weight a word; got "
                f"{_size(words)} words and {_size(weights)} weights"
            )
        bias = np.zeros((batch_size, self._vocab_size), np.float32)
        rows = zip(bias, words.reshape(batch_size, -1), weights.reshape(batch_size, -1), strict=True)
        for row, row_words, row_weights in rows:
            self._word_limits.check("embedding_bias_words", row_words)
            self._add_bias(row, row_words, row_weights)
        return bias

    def _add_bias(self, row: np.ndarray, words: Sequence[bytes], weights: Sequence[float]) -> None:
        for word, weight in zip(words, weights, strict=True):
            for token in self._tokenizer.encode(_decode_utf8(word, "embedding_bias_words"), False):
                if token < self._vocab_size:
                    row[token] += weight


def _given_or(inputs: Tensors, name: str, batch_size: int, otherwise: int) -> np.ndarray:
    """[batch, 1]"""
    given = inputs.get(name)
    return np.full((batch_size, 1), otherwise, np.int32) if given is None else given


def _required(inputs: Tensors, name: str, ensemble_name: str, parameters: Collection[str]) -> np.ndarray:
    if name in inputs:
        return inputs[name]
    missing = f"{ensemble_name} ({name}) is missing; every request needs it"
    for parameter in parameters:
        if parameter in (name, ensemble_name):
            raise InflightError(f"{missing}: it was sent as a request parameter, send it as an input")
        if near_miss(parameter, [ensemble_name, name]):
            raise InflightError(f'{missing}: "{parameter}" is unknown; did you mean {ensemble_name}?')
    raise InflightError(missing)


def _refuse_unserved(inputs: Tensors) -> None:
    for tensor, (name, feature) in _UNSERVED.items():
        if tensor in inputs and np.any(inputs[tensor].astype(bool)):
            raise InflightError(f"{name} is set, but this version does not serve {feature}; leave it out")


def _decode_utf8(text: bytes | str, name: str) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InflightError(f"{name} is not valid UTF-8: {error.reason} at byte {error.start}") from error


def _size(tensor: np.ndarray | None) -> int:
    return 0 if tensor is None else tensor.size
