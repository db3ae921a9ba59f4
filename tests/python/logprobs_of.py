"""Short ways to read log-probabilities."""


def chosen_logprobs(output) -> list[float]:
    """Of the tokens of an inflight.llm.CompletionOutput."""
    return [entries[token].logprob for token, entries in zip(output.token_ids, output.logprobs, strict=True)]
