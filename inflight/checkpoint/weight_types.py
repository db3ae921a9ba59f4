"""Which type each matrix gets, from what it is and what the user asked for."""

from inflight.checkpoint.config import WEIGHT_DTYPES
from inflight.checkpoint.matrix import MatrixType
from inflight.errors import InflightError

DTYPES = ("auto", *WEIGHT_DTYPES)
DEFAULT_GROUP_SIZE = 32
_EMBEDDING_GROUP_SIZE = 32


def check_dtype(dtype: str, group_size: int = DEFAULT_GROUP_SIZE) -> None:
    """Raises InflightError for a dtype or a group size that no matrix could have."""
    if dtype not in DTYPES:
        raise InflightError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if group_size < 2 or group_size % 2:
        raise InflightError(f"group size is {group_size}; expected an even number of columns")


def linear_type(
    name: str, source: MatrixType, columns: int, dtype: str, group_size: int = DEFAULT_GROUP_SIZE
) -> MatrixType:
    """The type of a decoder layer's matrix.

    "auto", or a dtype that `source` already has, keeps it as it is. "int8" is per channel from floating
    point; from int4 it keeps the groups. "int4" has groups of `group_size` columns with a minimum each.
    Raises InflightError when the groups do not divide the columns.
    """
    if dtype in ("auto", source.dtype):
        return source
    if dtype == "int8":
        return MatrixType("int8", source.group_size or columns)
    if dtype == "int4":
        if columns % group_size:
            raise InflightError(
                f"{name} has {columns} columns, which int4 groups of {group_size} do not divide: "
                "choose another --group-size or --dtype int8"
            )
        return MatrixType("int4", group_size, has_minimum=True)
    return MatrixType(dtype)


def embedding_type(name: str, source: MatrixType, columns: int, dtype: str) -> MatrixType:
    """The type of the embedding or the lm_head: as linear_type, but "int4" means int8 in groups of 32.

    Their rows are single tokens, where 4 bits cost most; what the source holds in int4 or int8 stays.
    """
    if dtype != "int4":
        return linear_type(name, source, columns, dtype)
    if source.is_quantized:
        return source
    return MatrixType("int8", columns if columns % _EMBEDDING_GROUP_SIZE else _EMBEDDING_GROUP_SIZE)
