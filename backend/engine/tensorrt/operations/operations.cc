#include "engine/tensorrt/operations/operations.h"

#include "engine/tensorrt/operations/typed_operation.h"

namespace inflight::gpu {

std::unique_ptr<Operation> read_operation(std::string_view type, std::span<const std::byte> constants) {
  struct Reader {
    std::string_view type;
    std::unique_ptr<Operation> (*read)(std::span<const std::byte>);
  };
  static constexpr Reader kReaders[] = {
      {"gemm", read_gemm},           {"rms_norm", read_rms_norm},   {"activation", read_activation},
      {"embedding", read_embedding}, {"attention", read_attention}, {"sampling", read_sampling}};
  for (const Reader& reader : kReaders) {
    if (reader.type == type) return reader.read(constants);
  }
  throw_error(ErrorCode::kInvalidArgument, "the plan has a plugin of the type '", type,
              "', which this version of inflight does not have: build the engine again");
}

}  // namespace inflight::gpu
