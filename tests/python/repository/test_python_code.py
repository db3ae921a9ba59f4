"""Repositories with Python models that are not ours: what they lack is named before a server starts."""

import pytest

from inflight.errors import InflightError
from inflight.repository.check import check_repository
from inflight.repository.python_code import is_ours, missing_imports, replacement_hint

STOCK = """
import json
import no_such_package.parts
from another_missing_one import thing
import triton_python_backend_utils as pb_utils
from lib.decode import Decoder

class TritonPythonModel:
    def execute(self, requests):
        import only_when_called
"""


@pytest.fixture
def stock_repository(make_upstream_repository):
    repository = make_upstream_repository()
    (repository / "tensorrt_llm_bls" / "1" / "lib").mkdir(parents=True)
    (repository / "tensorrt_llm_bls" / "1" / "model.py").write_text(STOCK)
    (repository / "tensorrt_llm_bls" / "1" / "lib" / "decode.py").write_text("import numpy\nimport json\n")
    return repository


def test_missing_packages_and_what_to_do_are_named(stock_repository):
    with pytest.raises(InflightError) as error:
        check_repository(stock_repository)
    (line,) = str(error.value).splitlines()
    code = stock_repository / "tensorrt_llm_bls" / "1" / "model.py"
    assert line.startswith(f"{code} imports no_such_package, another_missing_one, which ")
    assert line.endswith(
        f"or put Inflight's in its place: `inflight repo ENGINE --from {stock_repository} --out NEW_REPOSITORY`"
    )


def test_packages_of_the_models_own_modules_count(stock_repository):
    model = stock_repository / "tensorrt_llm_bls"
    (model / "1" / "model.py").write_text("from lib import decode\n")
    assert not list(missing_imports(model))
    (model / "1" / "lib" / "decode.py").write_text("import no_such_package\n")
    assert "lib/decode.py imports no_such_package, which" in next(missing_imports(model))


def test_code_that_python_cannot_read_is_left_to_python(stock_repository):
    model = stock_repository / "tensorrt_llm_bls"
    (model / "1" / "model.py").write_text("import no_such_package\nthis is no Python\n")
    assert not list(missing_imports(model))


def test_a_model_of_ones_own_is_not_to_be_replaced(stock_repository):
    model = (stock_repository / "tensorrt_llm_bls").rename(stock_repository / "mine")
    assert "Inflight" not in next(missing_imports(model))


def test_upstreams_code_that_fails_in_another_way_has_the_same_remedy(stock_repository):
    """Some of it runs in Python 3.10 alone."""
    hint = replacement_hint(stock_repository, "model tensorrt_llm_bls: ValueError: mutable default")
    assert "tensorrt_llm_bls/1/model.py is not Inflight's: put" in hint and "inflight repo ENGINE --from" in hint
    assert not replacement_hint(stock_repository, "model preprocessing: parameter tokenizer_dir")
    (stock_repository / "tensorrt_llm_bls" / "1" / "model.py").write_text("from inflight.text import Tokenizer\n")
    assert is_ours(stock_repository / "tensorrt_llm_bls")
    assert not replacement_hint(stock_repository, "model tensorrt_llm_bls: ValueError: mutable default")
