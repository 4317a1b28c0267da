# CUDA: built wherever nvcc is; without a device every test is skipped with a line.
if(NOT HATA_CUDA)
  return()
endif()

foreach(name IN ITEMS step_test rivals_test)
  add_executable(cuda_${name} cuda/${name}.cpp)
  target_link_libraries(cuda_${name} PRIVATE hata_cpu hata_cuda_bench GTest::gtest_main)
  add_test(NAME cuda_${name} COMMAND cuda_${name})
  set_tests_properties(cuda_${name} PROPERTIES SKIP_REGULAR_EXPRESSION "no GPU: " LABELS cuda)
endforeach()

add_test(NAME cuda_example COMMAND example_cuda_decode)
set_tests_properties(cuda_example PROPERTIES SKIP_RETURN_CODE 77 LABELS cuda)
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME cuda_tables
         COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/test_tables.py)

if(TARGET rival-ggml)
  # A ggml with CUDA does not start without a driver.
  add_test(NAME cuda_rival_ggml COMMAND rival-ggml --cpu
    1:4:4:256 2:8:2:512 3:8:1:256 1:8:2:1024:bf16)
  set_tests_properties(cuda_rival_ggml PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive
    FAIL_REGULAR_EXPRESSION "# (WRONG|failed|time limit|does not fit)" LABELS cuda
    SKIP_REGULAR_EXPRESSION "libcuda.so.1: cannot open")
endif()
