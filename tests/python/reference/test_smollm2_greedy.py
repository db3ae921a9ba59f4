"""SmolLM2 in float32: greedy tokens equal transformers' on prompts of many kinds."""

import hf_reference
import pytest
from greedy import greedy_tokens

PROMPTS = {
    "one token": "The",
    "question": "What is machine learning?",
    "story": "Once upon a time, in a small village at the foot of a mountain, there lived",
    "chat": "<|im_start|>user\nName three colors.<|im_end|>\n<|im_start|>assistant\n",
    "code": "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "Chinese": "机器学习是人工智能的一个分支,它",
    "emoji": "🎉🎊 Happy birthday, 👩‍👩‍👧‍👦! ",
    "numbers": "1, 1, 2, 3, 5, 8, 13, 21,",
    "spaces": "   \n\n\t  indented   text",
    "long": " ".join(f"Fact {i}: the square of {i} is {i * i}." for i in range(60)),
}


@pytest.fixture(scope="module")
def prompts(smollm2_engine):
    from inflight.text import Tokenizer

    tokenizer = Tokenizer(smollm2_engine("float32") / "tokenizer")
    return [tokenizer.encode(text) for text in PROMPTS.values()]


@pytest.mark.parametrize(
    ("together", "options"),
    [
        (False, {}),
        (True, {}),
        (True, dict(max_batch_size=4, max_num_tokens=48, max_seq_len=2048, tokens_per_block=32)),
    ],
    ids=["alone", "mixed batch", "chunked context"],
)
def test_greedy_tokens_equal_those_of_transformers(together, options, prompts, smollm2_engine, smollm2_reference):
    engine = smollm2_engine("float32", **options)
    for prompt, tokens in zip(prompts, greedy_tokens(engine, prompts, max_tokens=32, together=together), strict=True):
        hf_reference.assert_greedy(smollm2_reference, prompt, tokens)
