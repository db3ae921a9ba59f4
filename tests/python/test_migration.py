"""docs/migration.md has the tables that the code says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_those_of_the_code():
    command = [sys.executable, ROOT / "tools" / "migration_tables.py", "--check", ROOT / "docs" / "migration.md"]
    advice = "run tools/migration_tables.py docs/migration.md"
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (advice, done.stderr)
    assert (
        "| tensorrt_llm | `medusa_choices` | refused, unless it is empty |"
        in (ROOT / "docs" / "migration.md").read_text()
    )
