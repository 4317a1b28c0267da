# The llama.cpp host. Unit tests hold its parts themselves (and so hook ggml as a program); the
# others link or preload libhata-ggml.so as a user would.
set(HATA_MODEL ${PROJECT_SOURCE_DIR}/models/hata-tiny-25m-q8_0.gguf)

add_executable(ggml_unit_test ggml/options_test.cpp ggml/node_test.cpp ggml/gate_test.cpp
  ggml/host_test.cpp)
set_target_properties(ggml_unit_test PROPERTIES ENABLE_EXPORTS ON)
target_link_libraries(ggml_unit_test PRIVATE hata_ggml_host ggml::ggml ggml::ggml-base
  nlohmann_json::nlohmann_json
  GTest::gtest_main)
gtest_discover_tests(ggml_unit_test PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive TIMEOUT 60)

# Attention on a CUDA device, whose part a library plays that has the CPU do it.
add_library(hata_fake_cuda SHARED ggml/fake_cuda.cpp)
target_link_libraries(hata_fake_cuda PRIVATE hata_cpu)
add_executable(ggml_device_test ggml/device_test.cpp)
set_target_properties(ggml_device_test PROPERTIES ENABLE_EXPORTS ON)
target_link_libraries(ggml_device_test PRIVATE hata_ggml_host ggml::ggml ggml::ggml-base
  nlohmann_json::nlohmann_json ${CMAKE_DL_LIBS} GTest::gtest_main)
target_compile_definitions(ggml_device_test PRIVATE
  HATA_FAKE_CUDA="$<TARGET_FILE:hata_fake_cuda>")
add_dependencies(ggml_device_test hata_fake_cuda)
gtest_discover_tests(ggml_device_test PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive TIMEOUT 60)

add_executable(ggml_model_test ggml/model_test.cpp ggml/session.cpp)
target_compile_definitions(ggml_model_test PRIVATE HATA_MODEL="${HATA_MODEL}")
target_link_libraries(ggml_model_test PRIVATE hata_ggml llama ${CMAKE_DL_LIBS}
  nlohmann_json::nlohmann_json GTest::gtest_main)
gtest_discover_tests(ggml_model_test DISCOVERY_TIMEOUT 60 PROPERTIES
  ENVIRONMENT OMP_WAIT_POLICY=passive RESOURCE_LOCK model TIMEOUT 300)

add_executable(ggml_cuda_test ggml/cuda_test.cpp)
target_link_libraries(ggml_cuda_test PRIVATE hata_ggml ggml::ggml ggml::ggml-base
  nlohmann_json::nlohmann_json GTest::gtest_main)
gtest_discover_tests(ggml_cuda_test DISCOVERY_TIMEOUT 60 PROPERTIES
  ENVIRONMENT OMP_WAIT_POLICY=passive TIMEOUT 300)

# The way of a CUDA device: all that makes codes stale, under verify.
add_test(NAME ggml_model_cuda COMMAND ggml_model_test
  --gtest_filter=Model.*:-*Rivals*:*Evict*:*FullBudget*:*Prefill*:*Signal*)
add_dependencies(ggml_model_test hata_fake_cuda)
set_tests_properties(ggml_model_cuda PROPERTIES RESOURCE_LOCK model TIMEOUT 300
  ENVIRONMENT "OMP_WAIT_POLICY=passive;HATA_CUDA_LIB=$<TARGET_FILE:hata_fake_cuda>")

function(hata_ggml_script name)
  add_test(NAME ggml_${name} COMMAND sh ${CMAKE_CURRENT_SOURCE_DIR}/ggml/${name}.sh
    $<TARGET_FILE:hata_ggml> ${ARGN})
  set_tests_properties(ggml_${name} PROPERTIES TIMEOUT 300 RESOURCE_LOCK model
    ENVIRONMENT OMP_WAIT_POLICY=passive)
endfunction()
hata_ggml_script(exports ${PROJECT_SOURCE_DIR}/src/ggml/exports.map)
hata_ggml_script(inert)
if(EXISTS "${HATA_LLAMA_BIN}/llama-completion")
  hata_ggml_script(preload ${HATA_LLAMA_BIN} ${HATA_MODEL})
else()
  message(STATUS "HATA_LLAMA_BIN names no folder with llama-completion: preloading is not tested")
endif()
