# add_isa_unit(NAME FLAG...): compiles src/kernels/units/ with the flags of one ISA into the namespace
# convolith::NAME, and fails the build if an object defines a weak symbol: the linker could keep
# that copy for every ISA. Sanitizers and coverage add weak symbols of their own.
option(CONVOLITH_CHECK_ISA_SYMBOLS "Fail on weak symbols in ISA units" ON)
if(CONVOLITH_SANITIZE OR CONVOLITH_COVERAGE)
  set(CONVOLITH_KERNEL_OPTIMIZATION -O1)  # checks or counters in unrolled kernels take -O3 an hour
else()
  set(CONVOLITH_KERNEL_OPTIMIZATION -O3)
endif()

function(add_isa_unit name)
  if(CONVOLITH_ISAS AND NOT name IN_LIST CONVOLITH_ISAS)
    return()
  endif()
  set(target convolith_isa_${name})
  file(GLOB units CONFIGURE_DEPENDS src/kernels/units/*.cpp)
  add_library(${target} OBJECT ${units})
  target_link_libraries(${target} PRIVATE convolith_options)
  target_compile_definitions(${target} PRIVATE CONVOLITH_ISA_NAMESPACE=${name}
                                               CONVOLITH_ISA_STRING="${name}")
  target_compile_options(${target} PRIVATE ${CONVOLITH_KERNEL_OPTIMIZATION} -ffp-contract=fast
                                           ${ARGN})
  set(objects ${CONVOLITH_ISA_OBJECTS} $<TARGET_OBJECTS:${target}>)
  if(CONVOLITH_CHECK_ISA_SYMBOLS AND CMAKE_NM)
    set(stamp ${CMAKE_CURRENT_BINARY_DIR}/${target}.symbols)
    add_custom_command(
      OUTPUT ${stamp}
      COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} "-DOBJECTS=$<JOIN:$<TARGET_OBJECTS:${target}>,|>"
              -DSTAMP=${stamp} -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/CheckIsaSymbols.cmake
      DEPENDS $<TARGET_OBJECTS:${target}> ${CMAKE_CURRENT_SOURCE_DIR}/cmake/CheckIsaSymbols.cmake
      COMMENT "Checking ISA unit ${name} for weak symbols"
      VERBATIM)
    # As a source of the core, the stamp stands between the object and the link.
    list(APPEND objects ${stamp})
  endif()
  set(CONVOLITH_ISA_OBJECTS ${objects} PARENT_SCOPE)
  set(CONVOLITH_ISA_DEFINITIONS ${CONVOLITH_ISA_DEFINITIONS} CONVOLITH_HAS_${name} PARENT_SCOPE)
endfunction()
