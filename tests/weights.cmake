# Weights of the reference implementation. Files for the tests are written by a Python script.
set(HATA_MAKE_PT ${CMAKE_CURRENT_SOURCE_DIR}/weights/make_pt.py)
add_executable(pt_file_test weights/pt_file_test.cpp)
target_link_libraries(pt_file_test PRIVATE hata_import GTest::gtest_main)
target_compile_definitions(pt_file_test PRIVATE HATA_MAKE_PT="${HATA_MAKE_PT}")
gtest_discover_tests(pt_file_test)
