#include "engine/tensorrt/gemm/gemm_shape.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/error.h"

namespace inflight::gpu {
namespace {

using Json = nlohmann::json;

constexpr const char* kTypes[] = {"bfloat16", "float16", "e4m3"};
constexpr const char* kEpilogues[] = {"store", "add residual", "swiglu"};
constexpr const char* kMethods[] = {"cublaslt", "skinny", "split"};

Json to_json(const GemmTactic& tactic) {
  return {{"rows", tactic.rows},
          {"method", kMethods[static_cast<int>(tactic.method)]},
          {"algorithm", tactic.algorithm},
          {"microseconds", tactic.microseconds}};
}

GemmTactic to_tactic(const Json& json) {
  const auto method = std::ranges::find(kMethods, json.at("method").get<std::string>());
  if (method == std::end(kMethods)) throw_error(ErrorCode::kInvalidArgument, "method is ", json.at("method").dump());
  return {.rows = json.at("rows"),
          .method = static_cast<GemmMethod>(method - std::begin(kMethods)),
          .algorithm = json.at("algorithm"),
          .microseconds = json.at("microseconds")};
}

}  // namespace

std::string to_string(const GemmShape& shape) {
  return std::string(kTypes[static_cast<int>(shape.input)]) + " to " + kTypes[static_cast<int>(shape.output)] + ", " +
         kEpilogues[static_cast<int>(shape.epilogue)] + ", " + std::to_string(shape.columns) + " x " +
         std::to_string(shape.depth);
}

const GemmTactic* find_tactic(const GemmTactics& tactics, int32_t rows) {
  if (tactics.empty()) return nullptr;
  const auto enough = std::ranges::lower_bound(tactics, rows, {}, &GemmTactic::rows);
  return enough == tactics.end() ? &tactics.back() : &*enough;
}

std::vector<int32_t> measured_rows(int32_t max_rows) {
  std::vector<int32_t> result{1};
  for (int32_t rows = 8; rows < max_rows; rows *= 2) result.push_back(rows);
  if (max_rows > 1) result.push_back(max_rows);
  return result;
}

TimingCache::TimingCache(std::string gpu, uint64_t cublaslt_version)
    : gpu_(std::move(gpu)), cublaslt_version_(cublaslt_version) {}

void TimingCache::read(const std::filesystem::path& file) {
  tactics_.clear();
  if (!std::filesystem::exists(file)) return;
  try {
    std::ifstream stream(file);
    const Json json = Json::parse(stream);
    if (json.at("gpu") != gpu_ || json.at("cublaslt_version") != cublaslt_version_) return;
    for (const auto& [shape, tactics] : json.at("tactics").items()) {
      for (const Json& tactic : tactics) tactics_[shape].push_back(to_tactic(tactic));
    }
  } catch (const std::exception& error) {
    throw_error(ErrorCode::kInvalidArgument, file.string(), ": no timing cache of inflight (", error.what(),
                "): remove it, and what it held is measured anew");
  }
}

void TimingCache::write(const std::filesystem::path& file) const {
  Json tactics = Json::object();
  for (const auto& [shape, measured] : tactics_) {
    for (const GemmTactic& tactic : measured) tactics[shape].push_back(to_json(tactic));
  }
  const Json json{{"gpu", gpu_}, {"cublaslt_version", cublaslt_version_}, {"tactics", tactics}};
  auto unfinished = file;
  unfinished += ".unfinished";
  std::ofstream stream(unfinished);
  stream << json.dump(1) << '\n';
  stream.close();
  if (!stream) throw_error(ErrorCode::kInternal, file.string(), ": the timing cache cannot be written");
  std::filesystem::rename(unfinished, file);
}

const GemmTactics* TimingCache::find(const GemmShape& shape) const {
  const auto found = tactics_.find(to_string(shape));
  return found == tactics_.end() ? nullptr : &found->second;
}

void TimingCache::insert(const GemmShape& shape, GemmTactics tactics) {
  std::ranges::sort(tactics, {}, &GemmTactic::rows);
  tactics_[to_string(shape)] = std::move(tactics);
}

}  // namespace inflight::gpu
