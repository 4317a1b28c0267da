# The stages against the scalar reference: every program once per instruction set.
function(hata_kernel_test name)
  hata_test(${name} LIBS hata_cpu)
  foreach(level IN ITEMS scalar avx2 avx512vpopcnt)
    add_test(NAME ${name}.${level} COMMAND ${name})
    set_tests_properties(${name}.${level} PROPERTIES
      ENVIRONMENT HATA_SIMD=${level}
      SKIP_REGULAR_EXPRESSION "skipped: this CPU or build has no"
      LABELS unit)
  endforeach()
endfunction()

hata_kernel_test(kernel_encode_test)
hata_kernel_test(kernel_score_test)
hata_kernel_test(kernel_select_test)
hata_kernel_test(kernel_attend_test)
hata_kernel_test(kernel_q4_test)
hata_kernel_test(kernel_alloc_test)
hata_kernel_test(prefill_test)
foreach(name IN ITEMS kernel_alloc_test prefill_test)
  target_link_libraries(${name} PRIVATE hata_methods)
endforeach()

foreach(name IN ITEMS kernel_simd_test kernel_reference_test team_test)
  hata_test(${name} LIBS hata_cpu)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS unit)
endforeach()
set_tests_properties(team_test prefill_test.avx2 PROPERTIES LABELS "unit;threads")

# No inline function of a shared header may be compiled with an instruction set's flags: the linker
# could take that copy for generic code. Sanitizers add symbols of their own.
if(NOT HATA_SANITIZE)
  add_test(NAME kernel_isolation
    COMMAND ${CMAKE_COMMAND} -D NM=${CMAKE_NM} -D ARCHIVE=$<TARGET_FILE:hata_cpu>
            -P ${CMAKE_CURRENT_LIST_DIR}/kernel_isolation.cmake)
  set_tests_properties(kernel_isolation PROPERTIES LABELS unit)
endif()
