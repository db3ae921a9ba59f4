import pytest
from small_tokenizers import KINDS, save


@pytest.fixture(scope="session")
def tokenizer_dirs(tmp_path_factory):
    """Directory of each kind of KINDS."""
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: save(make(), root / name) for name, make in KINDS.items()}
