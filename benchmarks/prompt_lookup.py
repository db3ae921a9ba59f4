#!/usr/bin/env python3
"""What prompt lookup gains at batch 1 on texts that repeat their prompt, and costs on one that does not.

prompt_lookup.py --engine DIR [--drafts 5] [--ngrams 3] [--repeats 5] [--json FILE]: each prompt is answered greedily
without and with drafts, in turn, and the answers are compared. The generation speed is that of the tokens after the
first response, until the last. The exit status is 0 if all answers are equal and the prompts that are repeated are
answered at least 1.6 times as fast, all together.
"""

import argparse
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from inflight._native import BatchManager

from inflight.bench.report import print_table, write_json
from inflight.text import Tokenizer

TARGET = 1.6
TIMEOUT = 300.0  # seconds for one answer

ARTICLE = """\
The harbor of Lindholm was built in 1874, after three winter storms had sunk most of the fishing fleet. Two stone \
piers, each four hundred meters long, reach out from the beach and almost meet. Between them lies a gate of oak and \
iron that eight men can close in ten minutes. When the wind turns to the north-west, the harbor master rings a bell, \
the boats come home, and the gate is closed behind the last of them. The engineer, Marta Ekholm, had studied bridges \
in Stockholm and had never built anything in the sea before. She made a model of the bay in a brewery, filled it with \
water, and moved a plank up and down to make waves. Her drawings show that the piers were curved after the first \
experiments, because straight ones sent the waves into the boats. The harbor cost twice as much as the town had \
expected, and the council refused to pay her for two years. Since 1874, no boat has been lost inside the gate, \
although storms have damaged the piers five times. Today the fishing fleet is small, but the gate still closes on \
about twenty days of every year, and visitors come to watch it."""

CODE = """\
def load_users(path):
    users = []
    with open(path) as file:
        for line in file:
            name, age, city = line.strip().split(",")
            users.append({"name": name, "age": int(age), "city": city})
    return users


def average_age(users):
    total = 0
    for user in users:
        total += user["age"]
    return total / len(users)


def users_in_city(users, city):
    result = []
    for user in users:
        if user["city"] == city:
            result.append(user)
    return result


def oldest_user(users):
    oldest = users[0]
    for user in users:
        if user["age"] > oldest["age"]:
            oldest = user
    return oldest"""

REPEATING = {
    "summary": f"Summarize this text.\n\n{ARTICLE}",
    "key sentences": f"Quote the three most important sentences of this text.\n\n{ARTICLE}",
    "correction": f"Correct the spelling of this text.\n\n{ARTICLE}",
    "renaming": f"Rename average_age to mean_age in this code and return all of it.\n\n```python\n{CODE}\n```",
    "docstrings": f"Add a docstring to each function of this code.\n\n```python\n{CODE}\n```",
}
OTHER = {"story": "Write a story about a cat that lives at the sea."}


@dataclass
class Answer:
    tokens: list[int]
    tokens_per_second: float  # after the first response
    draft_tokens: int
    accepted_draft_tokens: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True, help="engine directory of a chat model")
    parser.add_argument("--drafts", default="5", help="max_draft_tokens, separated by commas (default %(default)s)")
    parser.add_argument("--ngrams", default="3", help="max_ngram, separated by commas (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=256, help="of an answer at most (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs, after one to warm up (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="engine threads; 0: all CPUs it may use (the default)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()

    lookups = [(int(n), int(k)) for n in options.ngrams.split(",") for k in options.drafts.split(",")]
    rows = measure(options, lookups)
    for row in rows:
        row["speedup"] = row["tokens_per_s"] / row["tokens_per_s_without"]
    columns = ["prompt", "max_ngram", "max_draft_tokens", "tokens", "draft_tokens", "accepted_draft_tokens",
               "tokens_per_s_without", "tokens_per_s", "speedup", "is_equal"]  # fmt: skip
    print_table(columns, [[f"{row[column]:.2f}" if column == "speedup" else row[column] for column in columns]
                          for row in rows])  # fmt: skip
    totals = [total(rows, lookup) for lookup in lookups]
    for (max_ngram, max_drafts), speedup in zip(lookups, totals, strict=True):
        print(f"max_ngram {max_ngram}, max_draft_tokens {max_drafts}: prompts that are repeated, {speedup:.2f} x")
    if options.json:
        speedups = [
            {"max_ngram": max_ngram, "max_draft_tokens": max_drafts, "speedup": speedup}
            for (max_ngram, max_drafts), speedup in zip(lookups, totals, strict=True)
        ]
        write_json(options.json, options, {"speedup_of_repeating_prompts": speedups, "rows": rows})
    return int(min(totals) < TARGET or not all(row["is_equal"] for row in rows))


def measure(options: argparse.Namespace, lookups: list[tuple[int, int]]) -> list[dict]:
    """One row for each prompt and lookup; runs of all of them take turns, so that all see the same machine."""
    tokenizer = Tokenizer(options.engine / "tokenizer")
    rows = []
    with ExitStack() as stack:
        without, *managers = [
            stack.enter_context(
                BatchManager(
                    options.engine,
                    num_threads=options.threads,
                    max_tokens_in_kv_cache=4096,
                    prompt_lookup_max_draft_tokens=max_drafts,
                    prompt_lookup_max_ngram=max_ngram,
                )
            )
            for max_ngram, max_drafts in [(1, 0), *lookups]
        ]
        for name, text in (REPEATING | OTHER).items():
            prompt = tokenizer.encode(
                tokenizer.chat_prompt([{"role": "user", "content": text}]), add_special_tokens=False
            )
            runs = [
                [answer(manager, prompt, options.tokens) for manager in (without, *managers)]
                for _ in range(options.repeats + 1)
            ][1:]
            references, *others = zip(*runs, strict=True)
            for (max_ngram, max_drafts), answers in zip(lookups, others, strict=True):
                rows.append(
                    {
                        "prompt": name,
                        "prompt_tokens": len(prompt),
                        "max_ngram": max_ngram,
                        "max_draft_tokens": max_drafts,
                        "tokens": len(answers[0].tokens),
                        "draft_tokens": answers[0].draft_tokens,
                        "accepted_draft_tokens": answers[0].accepted_draft_tokens,
                        "tokens_per_s_without": median(run.tokens_per_second for run in references),
                        "tokens_per_s": median(run.tokens_per_second for run in answers),
                        "is_equal": all(run.tokens == references[0].tokens for run in (*references, *answers)),
                    }
                )
    return rows


def answer(manager: BatchManager, prompt: list[int], max_tokens: int) -> Answer:
    arrivals, ended = [], threading.Event()

    def take(request_id, response):
        arrivals.append((time.perf_counter(), response))
        if response.is_final:
            ended.set()

    before = manager.statistics()
    manager.submit(prompt, max_tokens, take, streaming=True)
    if not ended.wait(TIMEOUT):
        raise TimeoutError(f"no answer within {TIMEOUT:.0f} s")
    after = manager.statistics()
    (begin, first), (end, last) = arrivals[0], arrivals[-1]
    if last.error is not None:
        raise last.error
    tokens = [token for _, response in arrivals for token in response.tokens]
    return Answer(
        tokens,
        (len(tokens) - len(first.tokens)) / (end - begin),
        after["draft_tokens"] - before["draft_tokens"],
        after["accepted_draft_tokens"] - before["accepted_draft_tokens"],
    )


def total(rows: list[dict], lookup: tuple[int, int]) -> float:
    """How much faster the answers to all prompts that are repeated are generated, one after another."""
    chosen = [
        row for row in rows if row["prompt"] in REPEATING and (row["max_ngram"], row["max_draft_tokens"]) == lookup
    ]
    without = sum(row["tokens"] / row["tokens_per_s_without"] for row in chosen)
    return without / sum(row["tokens"] / row["tokens_per_s"] for row in chosen)


if __name__ == "__main__":
    sys.exit(main())
