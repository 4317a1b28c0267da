hata_test(budget_test LIBS hata_methods)
gtest_discover_tests(budget_test)

# Once per instruction set: a level that this CPU lacks is skipped with a line.
add_executable(decode_test decode_test.cpp)
target_link_libraries(decode_test PRIVATE hata_methods GTest::gtest_main)
foreach(level IN ITEMS scalar avx2 avx512vpopcnt)
  gtest_discover_tests(decode_test TEST_SUFFIX .${level} PROPERTIES ENVIRONMENT
                       "HATA_TEST_SIMD=${level}")
endforeach()
