# The tasks, the evaluator and the file reader.
add_executable(weights_test eval/gguf_test.cpp eval/model_shape_test.cpp)
target_link_libraries(weights_test PRIVATE hata_weights GTest::gtest_main)
target_compile_definitions(weights_test PRIVATE
  HATA_MODEL="${PROJECT_SOURCE_DIR}/models/hata-tiny-25m-q8_0.gguf")
gtest_discover_tests(weights_test PROPERTIES TIMEOUT 60)

add_executable(eval_test
  eval/tasks_test.cpp eval/ruler_test.cpp eval/jsonl_test.cpp eval/text_test.cpp
  eval/sources_test.cpp eval/scoring_test.cpp eval/evaluate_test.cpp)
target_link_libraries(eval_test PRIVATE hata_eval GTest::gtest_main)
target_compile_definitions(eval_test PRIVATE
  HATA_MODEL="${PROJECT_SOURCE_DIR}/models/hata-tiny-25m-q8_0.gguf")
gtest_discover_tests(eval_test DISCOVERY_TIMEOUT 60 PROPERTIES
  RESOURCE_LOCK model ENVIRONMENT OMP_WAIT_POLICY=passive TIMEOUT 300)
