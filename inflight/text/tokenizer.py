"""One tokenizer directory: text to ids, ids to text, chat messages to a prompt."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from inflight import _native
from inflight.errors import InflightError, cause
from inflight.json_object import JsonObject
from inflight.text.chat_template import ChatTemplate
from inflight.text.detokenizer import Detokenizer
from inflight.text.special_tokens import named_special_tokens
from inflight.text.tokenizer_file import FILE_NAME, is_panic, library_errors, load_tokenizer

_PROBE = "Two words, 12 é\n"  # what a post-processor without its tokens already fails on


class Tokenizer:
    """Reads tokenizer.json and, where they are there, tokenizer_config.json, special_tokens_map.json and
    chat_template.jinja. Raises InflightError when the directory has no tokenizer.json or it cannot be used."""

    def __init__(self, tokenizer_dir: str | Path):
        self.directory = Path(tokenizer_dir)
        path = self.directory / FILE_NAME
        if not path.is_file():
            raise InflightError(
                f"{path} does not exist. A directory that has only a slow tokenizer (tokenizer.model, vocab.txt) "
                "gets its tokenizer.json from `inflight convert`."
            )
        self._tokenizer = load_tokenizer(path)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        with library_errors(f"{path} is damaged: it encodes no text"):
            self._tokenizer.encode(_PROBE)
        self._texts = _native.TokenTexts(self.directory)
        self._config = JsonObject.load_optional(self.directory / "tokenizer_config.json")
        self._detokenizers = {skips: self._make_detokenizer(skips) for skips in (False, True)}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`. add_special_tokens: as the tokenizer's post-processor does it (a BOS, say)."""
        try:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except BaseException as error:  # bare Exception, or a panic
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise InflightError(f"{self.directory / FILE_NAME} does not encode this text: {cause(error)}") from error

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of a whole sequence. Ids outside the vocabulary are no text, as in the tokenizers library."""
        return self._detokenizers[skip_special_tokens].decode(ids)

    def detokenizer(self, skip_special_tokens: bool = True) -> Detokenizer:
        return self._detokenizers[skip_special_tokens]

    def chat_prompt(
        self,
        messages: Sequence[Mapping],
        tools: Sequence[Mapping] | None = None,
        add_generation_prompt: bool = True,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """The chat template's text for these messages, to be encoded with add_special_tokens=False: the template
        writes the special tokens itself. messages: [{"role": "user", "content": "…"}, …]. chat_template: in place of
        the model's own. variables: more that the template may use, such as enable_thinking."""
        if chat_template is None:
            template = self.chat_template
        else:
            template = ChatTemplate(chat_template, self.special_tokens, "chat_template")
        return template.render(messages, tools, add_generation_prompt, **variables)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        path = self.directory / "chat_template.jinja"
        source = _read_text(path) if path.is_file() else self._configured_chat_template()
        if source is None:
            raise InflightError(
                f"{self.directory} has no chat template: neither chat_template.jinja nor a chat_template in "
                "tokenizer_config.json. Send a plain prompt instead."
            )
        return ChatTemplate(source, self.special_tokens, str(self.directory))

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token, … with their texts, those that the tokenizer has."""
        return named_special_tokens(self._config, JsonObject.load_optional(self.directory / "special_tokens_map.json"))

    @property
    def eos_id(self) -> int | None:
        return self._special_id("eos_token")

    @property
    def pad_id(self) -> int | None:
        """The padding token, or the end token where there is none."""
        pad_id = self._special_id("pad_token")
        return self.eos_id if pad_id is None else pad_id

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id: what an engine's vocabulary has to hold."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def longest_token_bytes(self) -> int:
        """The most bytes of text that one token stands for."""
        return self._texts.longest

    def _special_id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return None if text is None else self._tokenizer.token_to_id(text)

    def _make_detokenizer(self, skip_special_tokens: bool) -> Detokenizer:
        return Detokenizer(
            token_bytes=lambda token: self._texts.text(token, skip_special_tokens),
            first_token_bytes=lambda token: self._texts.first_text(token, skip_special_tokens),
        )

    def _configured_chat_template(self) -> str | None:
        if not isinstance(self._config.values.get("chat_template"), list):
            return self._config.text("chat_template", default=None)
        for entry in self._config.objects("chat_template"):  # [{"name": "default", "template": "…"}, …]
            if entry.text("name") == "default":
                return entry.text("template")
        return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InflightError(f"cannot read {path}: {cause(error)}") from error
