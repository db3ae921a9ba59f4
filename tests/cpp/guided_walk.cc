// Random texts that follow a guide, for tests/python/guided: what a model could write whose logits are noise.
//
//   guided_walk TOKENIZER_DIR VOCAB_SIZE END_ID < requests > answers
//
// A request is a line of JSON, {"type": 0 .. 4, "guide": "…", "walks": 8, "max_tokens": 2000, "seed": 0}; its answer is
// one as well: {"walks": [{"ids": [tokens], "ended": whether max_tokens were enough, "mask_us": …}, …]} or {"error":
// "…"}.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>

#include "batch_manager/guided/guided_decoder.h"
#include "common/error.h"

using namespace inflight;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

double microseconds(Clock::duration duration) { return std::chrono::duration<double, std::micro>(duration).count(); }

std::vector<int32_t> allowed_tokens(std::span<const uint32_t> mask, int32_t vocab_size) {
  std::vector<int32_t> tokens;
  for (int32_t token = 0; token < vocab_size; ++token) {
    if (mask[token / 32] >> token % 32 & 1) tokens.push_back(token);
  }
  return tokens;
}

// Half of the draws choose among all tokens, half among first characters and then among their tokens: a brace is one
// token, but blanks are hundreds.
class Draw {
 public:
  // starts: the first byte of each token.
  Draw(uint64_t seed, const std::vector<uint8_t>& starts) : random_(seed), starts_(starts) {}

  int32_t operator()(const std::vector<int32_t>& tokens) {
    if (random_() % 2 == 0) return tokens[random_() % tokens.size()];
    std::set<uint8_t> starts;
    for (const int32_t token : tokens) starts.insert(starts_[token]);
    const uint8_t start = *std::next(starts.begin(), random_() % starts.size());
    std::vector<int32_t> chosen;
    std::ranges::copy_if(tokens, std::back_inserter(chosen), [&](int32_t token) { return starts_[token] == start; });
    return chosen[random_() % chosen.size()];
  }

 private:
  std::mt19937_64 random_;
  const std::vector<uint8_t>& starts_;
};

class Walks {
 public:
  Walks(const std::string& tokenizer_dir, int32_t vocab_size, int32_t end_id)
      : vocab_size_(vocab_size),
        end_id_(end_id),
        decoder_(tokenizer_dir, vocab_size, {end_id}, 1),
        starts_(vocab_size) {
    std::ifstream file(tokenizer_dir + "/tokenizer.json");
    const json vocabulary = json::parse(file).at("model").at("vocab");
    for (const auto& [key, value] : vocabulary.items()) {
      const bool is_list = vocabulary.is_array();
      const std::string token = is_list ? value.at(0).get<std::string>() : key;
      if (!token.empty()) starts_.at(is_list ? std::stoul(key) : value.get<size_t>()) = static_cast<uint8_t>(token[0]);
    }
  }

  json answer(const json& request) {
    const GuidedDecoding guide{static_cast<GuidedDecoding::Type>(request.at("type").get<int>()), request.at("guide")};
    json answer;
    try {
      const auto start = Clock::now();
      const auto compiled = decoder_.compile(guide)->get();
      answer["compile_us"] = microseconds(Clock::now() - start);
      for (int walk = 0; walk < request.at("walks"); ++walk) {
        Draw draw(request.at("seed").get<uint64_t>() + walk, starts_);
        answer["walks"].push_back(this->walk(compiled, request.at("max_tokens"), draw));
      }
    } catch (const Error& e) {
      return {{"error", e.what()}, {"code", static_cast<int>(e.code())}};
    }
    return answer;
  }

 private:
  json walk(const std::shared_ptr<const CompiledGuide>& guide, int max_tokens, Draw& draw) {
    std::vector<int32_t> ids;
    bool ended = false;
    Clock::duration waiting{0};
    auto start = Clock::now();
    decoder_.start(0, guide, {});
    for (int i = 0; i < max_tokens && !ended; ++i) {
      const auto mask = decoder_.mask(0);
      waiting += Clock::now() - start;
      if (decoder_.is_terminated(0)) {
        ended = true;
        break;
      }
      const int32_t token = draw(allowed_tokens(mask, vocab_size_));
      ended = token == end_id_;
      if (!ended) ids.push_back(token);
      start = Clock::now();
      decoder_.accept(0, token);
    }
    decoder_.finish(0);
    return {{"ids", ids}, {"ended", ended}, {"mask_us", microseconds(waiting) / (ids.size() + 1)}};
  }

  int32_t vocab_size_;
  int32_t end_id_;
  GuidedDecoder decoder_;
  std::vector<uint8_t> starts_;  // of the tokens, as tokenizer.json spells them
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: guided_walk TOKENIZER_DIR VOCAB_SIZE END_ID" << std::endl;
    return 2;
  }
  Walks walks(argv[1], std::stoi(argv[2]), std::stoi(argv[3]));
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << walks.answer(json::parse(line)).dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
  }
}
