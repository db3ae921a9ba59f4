"""The forms that a prompt may have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from inflight.errors import InflightError
from inflight.llm.argument_types import is_integer, is_list, require_unicode
from inflight.text import Tokenizer

# A text, token ids, or vLLM's {"prompt": text} and {"prompt_token_ids": ids}.
PromptLike = str | Sequence[int] | Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Prompt:
    text: str | None  # None when it was token ids
    token_ids: list[int]


def list_prompts(prompts: PromptLike | Sequence[PromptLike]) -> list[PromptLike]:
    """One prompt, or a list of them, as a list."""
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if not is_list(prompts):
        raise InflightError(f"prompts is {prompts!r}; it must be a text, a list of token ids, or a list of these")
    is_one = len(prompts) > 0 and is_integer(prompts[0])
    return [cast(PromptLike, prompts)] if is_one else list(cast(Sequence[PromptLike], prompts))


def list_conversations(messages: Messages | Sequence[Messages]) -> list[Messages]:
    """One conversation, or a list of them, as a list."""
    conversations: Any = [messages] if is_conversation(messages) else messages
    if not is_list(conversations) or not all(map(is_conversation, conversations)):
        raise InflightError(
            f'messages is {messages!r}; it must be a list of {{"role": …, "content": …}}, or a list of such lists'
        )
    return list(conversations)


def is_conversation(messages: Any) -> bool:
    return is_list(messages) and len(messages) > 0 and all(isinstance(message, Mapping) for message in messages)


def encode_prompt(prompt: PromptLike, tokenizer: Tokenizer, vocab_size: int, add_special_tokens: bool) -> Prompt:
    """Raises InflightError for what is no prompt, and for token ids that the model does not have."""
    if isinstance(prompt, Mapping):
        prompt = _unwrap(prompt)
    if isinstance(prompt, str):
        require_unicode("prompt", prompt)
        return Prompt(prompt, tokenizer.encode(prompt, add_special_tokens))
    if not is_list(prompt):
        raise InflightError(f"prompt is {prompt!r}; it must be a text or a list of token ids")
    for position, token in enumerate(prompt):
        if not is_integer(token) or not 0 <= token < vocab_size:
            raise InflightError(
                f"prompt holds {token!r} at position {position}; token ids of this model are 0 to {vocab_size - 1}"
            )
    return Prompt(None, [int(token) for token in prompt])


def _unwrap(prompt: Mapping[str, Any]) -> str | Sequence[int]:
    if set(prompt) == {"prompt"} and isinstance(prompt["prompt"], str):
        return prompt["prompt"]
    if set(prompt) == {"prompt_token_ids"}:
        return prompt["prompt_token_ids"]
    raise InflightError(f'prompt is {prompt!r}; a dict must be {{"prompt": text}} or {{"prompt_token_ids": [ids]}}')
