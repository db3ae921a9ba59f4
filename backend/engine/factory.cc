#include <new>

#include "common/error.h"
#include "engine/cpu/cpu_engine.h"
#include "engine/engine.h"
#include "engine/model_config.h"

namespace inflight {

std::unique_ptr<Engine> load_engine(const std::filesystem::path& directory, const EngineOptions& options) {
  const std::filesystem::path config_file = directory / "config.json";
  const EngineConfig config = load_engine_config(config_file);
  if (config.build.device == "cpu") {
    try {
      return std::make_unique<cpu::CpuEngine>(directory, config, options);
    } catch (const std::bad_alloc&) {
      throw_error(ErrorCode::kUnavailable, "not enough memory for the activations of ", directory.string(),
                  "; rebuild with a smaller --max-num-tokens, now ", config.build.max_num_tokens);
    }
  }
  throw_error(ErrorCode::kUnsupported, config_file.string(), ": build_config.device is \"", config.build.device,
              "\"; this version has \"cpu\"");
}

}  // namespace inflight
