#pragma once

#include <string>
#include <vector>

namespace inflight {

// Collects the warnings that xgrammar writes on this thread while it lives: what it leaves out of a guide.
class XgrammarWarnings {
 public:
  XgrammarWarnings();
  ~XgrammarWarnings();
  XgrammarWarnings(const XgrammarWarnings&) = delete;
  XgrammarWarnings& operator=(const XgrammarWarnings&) = delete;

  const std::vector<std::string>& messages() const { return messages_; }

 private:
  std::vector<std::string> messages_;
};

}  // namespace inflight
