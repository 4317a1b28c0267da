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
