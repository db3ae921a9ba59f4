"""A process that was forked has none of its parent's threads."""

import subprocess
import sys

# Its child asks the parent's LLM, makes one of its own, and ends as any Python process does.
PROGRAM = """
import os, sys
from inflight.errors import InflightError
from inflight.llm import LLM, SamplingParams

def tokens(llm):
    return llm.generate("a", SamplingParams(temperature=0, max_tokens=5, ignore_eos=True))[0].outputs[0].token_ids

llm = LLM(sys.argv[1], num_threads=2)
expected = tokens(llm)
child = os.fork()
if child == 0:
    try:
        tokens(llm)
        sys.exit("the parent's LLM answered")
    except InflightError as error:
        assert f"belongs to process {os.getppid()}" in str(error), error
        assert error.code == "unavailable"
    llm.close()
    with LLM(sys.argv[1], num_threads=2) as own:
        assert tokens(own) == expected
    sys.exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert tokens(llm) == expected
llm.close()
sys.exit(status)
"""


def test_the_llm_of_the_parent_raises_and_the_child_ends(engine_dir):
    done = subprocess.run([sys.executable, "-c", PROGRAM, engine_dir], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
