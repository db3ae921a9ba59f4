#include "common/error.h"
#include "engine/cpu/cpu_engine.h"
#include "engine/engine.h"
#include "engine/model_config.h"

namespace inflight {

std::unique_ptr<Engine> load_engine(const std::filesystem::path& directory, const EngineOptions& options) {
  const std::filesystem::path config_file = directory / "config.json";
  const EngineConfig config = load_engine_config(config_file);
  if (config.build.device == "cpu") return std::make_unique<cpu::CpuEngine>(directory, config, options);
  throw_error(ErrorCode::kUnsupported, config_file.string(), ": build_config.device is \"", config.build.device,
              "\"; this version has \"cpu\"");
}

}  // namespace inflight
