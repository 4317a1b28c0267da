hata_test(budget_test LIBS hata_methods)
gtest_discover_tests(budget_test)

# Once per instruction set: a level that this CPU lacks is skipped with a line.
foreach(name IN ITEMS decode_test methods_test totals_test)
  hata_test(${name} LIBS hata_methods)
  foreach(level IN ITEMS scalar avx2 avx512vpopcnt)
    gtest_discover_tests(${name} TEST_SUFFIX .${level} PROPERTIES ENVIRONMENT
                         "HATA_TEST_SIMD=${level}")
  endforeach()
endforeach()

hata_test(methods_alloc_test LIBS hata_methods)
gtest_discover_tests(methods_alloc_test)
