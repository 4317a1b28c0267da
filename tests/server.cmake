# Other people's programs, unmodified, under `hata exec --verify`. scripts/setup says where they are.
function(hata_program_test name python)
  add_test(NAME ${name} COMMAND ${python} -m unittest -v test_${name}
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
else()
  message(STATUS "HATA_LLAMA_BIN names no folder with llama-server: it is not tested")
endif()
if(HATA_PYTHON)
  hata_program_test(llama_cpp_python ${HATA_PYTHON})
else()
  message(STATUS "HATA_PYTHON names no Python with llama-cpp-python: it is not tested")
endif()
