#pragma once

namespace inflight::gpu_test {

class Report;

void test_elementwise(Report& report);
void test_attention(Report& report);
void test_sampling(Report& report);

}  // namespace inflight::gpu_test
