# hata eval: its parts, and its report in a browser.
add_executable(evaluation_test eval/statistics_test.cpp eval/results_test.cpp
  eval/inspect_test.cpp eval/summary_test.cpp eval/states_test.cpp)
target_link_libraries(evaluation_test PRIVATE hata_eval_run GTest::gtest_main)
target_compile_definitions(evaluation_test PRIVATE
  HATA_MODEL="${PROJECT_SOURCE_DIR}/models/hata-tiny-25m-q8_0.gguf")
gtest_discover_tests(evaluation_test DISCOVERY_TIMEOUT 60 PROPERTIES
  RESOURCE_LOCK model ENVIRONMENT OMP_WAIT_POLICY=passive TIMEOUT 300)

if(HATA_SANITIZE)
  return()  # a page is a page
endif()
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME report COMMAND ${Python3_EXECUTABLE} test_report.py -v
         WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/report)
set_tests_properties(report PROPERTIES RESOURCE_LOCK model SKIP_RETURN_CODE 77 TIMEOUT 600
  ENVIRONMENT "HATA=$<TARGET_FILE:hata>;OMP_WAIT_POLICY=passive;PYTHONDONTWRITEBYTECODE=1")
