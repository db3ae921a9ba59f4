"""Paths in any language, with spaces and with what means something to a shell: of a repository, of what its models
read, of the temporary directory, of Python, and of the package."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from python_models import ECHO, FAILS, TIMEOUT, write_model

import inflight
from inflight.errors import InflightError
from inflight.launcher.server import TritonServer

pytestmark = pytest.mark.skipif(find_spec("pytriton") is None, reason="nvidia-pytriton is not installed")

NAMES = 'josé 文件 it\'s $HOME;"x"'
READS = """
from pathlib import Path
BESIDE = Path(__file__).with_name("tökens.txt").read_text()
assert BESIDE == "é文", BESIDE
"""


@pytest.fixture
def directory(tmp_path) -> Path:
    (tmp_path / NAMES).mkdir()
    return tmp_path / NAMES


@pytest.fixture
def repository(directory) -> Path:
    write_model(directory / "répository", "works", READS + ECHO)
    (directory / "répository" / "works" / "1" / "tökens.txt").write_text("é文")
    return directory / "répository"


def test_server_of_any_path_with_any_locale(repository, directory):
    """Python and the package are found through such a path, and the locale knows only ASCII."""
    python = directory / "venv"
    python.symlink_to(sys.prefix)
    package = directory / "packages" / "inflight"
    package.parent.mkdir()
    package.symlink_to(Path(inflight.__path__[0]).absolute())
    program = (
        "import sys\n"
        "import http_client\n"
        "from inflight.launcher.server import TritonServer\n"
        "with TritonServer(sys.argv[1]) as server:\n"
        "    print(ascii(http_client.generate(server.http_port, {'text_input': 'é文'}, 'works')['text_output']))\n"
    )
    result = subprocess.run(
        [python / "bin" / "python", "-c", program, repository],
        env={
            **os.environ,
            "LC_ALL": "C",
            "TMPDIR": str(directory),
            "PYTHONPATH": os.pathsep.join([str(package.parent), str(Path(__file__).parents[1])]),
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (result.returncode, result.stdout) == (0, ascii("é文") + "\n"), result.stderr


def test_error_names_the_path_as_it_was_given(repository):
    write_model(repository, "fails", FAILS)
    (repository / "fails" / "config.pbtxt").unlink()
    (repository / "fails" / "config.pbtxt").write_text('backend: "nowhere"')
    with pytest.raises(InflightError) as raised, TritonServer(repository):
        pass
    assert "inflight-server-" not in str(raised.value)
    Path(str(raised.value).rsplit("full log: ", 1)[1]).unlink()
