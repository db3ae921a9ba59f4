#pragma once

namespace inflight::gpu_test {

class Report;

void test_elementwise(Report& report);
void test_attention(Report& report);
void test_decoder(Report& report);
void test_gemm(Report& report);
void test_sampling(Report& report);
void test_small_sampling(Report& report);  // as far as racecheck gets in a minute

}  // namespace inflight::gpu_test
