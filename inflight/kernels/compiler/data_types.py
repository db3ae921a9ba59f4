"""The element types that kernels take, by Triton's names."""

# Triton's name → the enumerator of DataType (launch/kernel_launch.h), in its order.
ENUMERATORS = {
    "bf16": "kBFloat16",
    "fp16": "kFloat16",
    "fp32": "kFloat32",
    "fp8e4nv": "kFloat8E4M3",
    "i8": "kInt8",
    "u8": "kUInt8",
    "i32": "kInt32",
    "i64": "kInt64",
}

# Those that an argument may have without a type variable.
CPP_TYPES = {
    "fp32": "float",
    "i8": "int8_t",
    "u8": "uint8_t",
    "i32": "int32_t",
    "u32": "uint32_t",
    "i64": "int64_t",
}


def enumerator_index(name: str) -> int:
    return list(ENUMERATORS).index(name)
