# Other people's programs, unmodified, under `hata exec --verify`. scripts/setup says where they are.
# hata_program_test(NAME PYTHON [TEST...]): the tests named, or all of test_NAME.
function(hata_program_test name python)
  set(tests ${ARGN})
  if(NOT tests)
    set(tests test_${name})
  endif()
  add_test(NAME ${name} COMMAND ${python} -m unittest -v ${tests}
           WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/server)
  set_tests_properties(${name} PROPERTIES
    RESOURCE_LOCK model
    TIMEOUT 900
    ENVIRONMENT "HATA=$<TARGET_FILE:hata>;HATA_LLAMA_BIN=${HATA_LLAMA_BIN};\
HATA_MODEL=${PROJECT_SOURCE_DIR}/models/hata-tiny-25m-q8_0.gguf;\
HATA_WORDS=${PROJECT_SOURCE_DIR}/models/tiny/words.json;\
OMP_WAIT_POLICY=passive;PYTHONDONTWRITEBYTECODE=1")
endfunction()

if(EXISTS "${HATA_LLAMA_BIN}/llama-server")
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  hata_program_test(llama_server ${Python3_EXECUTABLE})
  # The way of a CUDA device, with the stand-in of tests/ggml.cmake.
  hata_program_test(llama_server_cuda ${Python3_EXECUTABLE}
    test_llama_server.UnifiedCache.test_parallel_requests_and_prompt_cache
    test_llama_server.UnifiedCache.test_chunks_reused_by_shifting
    test_llama_server.CachePerSlot.test_slot_save_restore_erase
    test_llama_server.QuantisedCache.test_parallel_requests_and_prompt_cache
    test_llama_server.QuantisedCache.test_chunks_reused_by_shifting)
  set_property(TEST llama_server_cuda APPEND PROPERTY ENVIRONMENT
    "HATA_CUDA_LIB=$<TARGET_FILE:hata_fake_cuda>" HATA_TEST_ON_DEVICE=1.0)
else()
  message(STATUS "HATA_LLAMA_BIN names no folder with llama-server: it is not tested")
endif()
if(HATA_PYTHON)
  hata_program_test(llama_cpp_python ${HATA_PYTHON})
else()
  message(STATUS "HATA_PYTHON names no Python with llama-cpp-python: it is not tested")
endif()
