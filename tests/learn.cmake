add_executable(learn_test learn/objective_test.cpp)
target_link_libraries(learn_test PRIVATE hata_learn GTest::gtest_main)
gtest_discover_tests(learn_test)
