# The command: its parts, then the built program as a user calls it.
set(HATA_MODEL ${PROJECT_SOURCE_DIR}/models/hata-tiny-25m-q8_0.gguf)
set(HATA_WEIGHTS ${PROJECT_SOURCE_DIR}/models/hata-hata-tiny-25m-kl-group.gguf)

# Programs that hata exec must tell apart.
foreach(kind IN ITEMS dynamic static own_ggml)
  add_executable(program_${kind} command/program.c)
endforeach()
target_link_options(program_static PRIVATE -static)
target_compile_definitions(program_own_ggml PRIVATE OWN_GGML)

add_executable(command_unit_test command/options_test.cpp command/program_test.cpp
  command/output_test.cpp)
target_link_libraries(command_unit_test PRIVATE hata_command GTest::gtest_main)

# Runs models: one at a time, and without spinning threads.
set(MODEL_TEST RESOURCE_LOCK model ENVIRONMENT OMP_WAIT_POLICY=passive TIMEOUT 600)
add_executable(command_test command/bad_input_test.cpp command/run_test.cpp command/exec_test.cpp
  command/bench_test.cpp command/eval_test.cpp command/import_test.cpp command/train_test.cpp
  command/shell.cpp)
target_link_libraries(command_test PRIVATE hata_command GTest::gtest_main)

# Every method on every step is slow under a sanitizer, and its parts are tested by themselves.
if(HATA_SANITIZE)
  list(APPEND MODEL_TEST_FILTER TEST_FILTER -Eval.EveryMethodOnAFewTasks)
endif()

foreach(test IN ITEMS command_unit_test command_test)
  target_compile_definitions(${test} PRIVATE
    HATA="$<TARGET_FILE:hata>" HATA_MODEL="${HATA_MODEL}"
    HATA_WEIGHTS="${HATA_WEIGHTS}" HATA_MAKE_PT="${HATA_MAKE_PT}"
    PROGRAM_DYNAMIC="$<TARGET_FILE:program_dynamic>"
    PROGRAM_STATIC="$<TARGET_FILE:program_static>"
    PROGRAM_OWN_GGML="$<TARGET_FILE:program_own_ggml>")
  add_dependencies(${test} hata program_dynamic program_static program_own_ggml)
  gtest_discover_tests(${test} ${MODEL_TEST_FILTER} DISCOVERY_TIMEOUT 60 PROPERTIES ${MODEL_TEST})
endforeach()
