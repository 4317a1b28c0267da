add_executable(learn_test learn/objective_test.cpp learn/files_test.cpp
  learn/quality_test.cpp)
target_link_libraries(learn_test PRIVATE hata_learn hata_weights GTest::gtest_main)
gtest_discover_tests(learn_test)
