# convolith_cuda.so: the kernels of src/cuda and the C functions that Python loads. The runtime is
# linked statically and finds the driver when it is first used, so that the library loads without.
set(CMAKE_CUDA_ARCHITECTURES OFF)  # named below: CMake 3.20 knows no sm_90a
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.4)
  message(FATAL_ERROR "CONVOLITH_CUDA needs nvcc 12.4 or later; ${CMAKE_CUDA_COMPILER} is "
                      "${CMAKE_CUDA_COMPILER_VERSION}")
endif()
if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # by CMake of before this nvcc
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()

file(GLOB CONVOLITH_CUDA_SOURCES CONFIGURE_DEPENDS src/cuda/*.cpp src/cuda/*.cu src/cuda/algorithms/*.cu)
# What of the core it needs is compiled once more: the core itself brings OpenMP and every ISA.
add_library(convolith_cuda MODULE ${CONVOLITH_CUDA_SOURCES} src/phases.cpp src/problem.cpp
            src/selection.cpp src/window.cpp)
target_include_directories(convolith_cuda PRIVATE
                           include src ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
set_target_properties(convolith_cuda PROPERTIES
  PREFIX "" SUFFIX ".so" CUDA_STANDARD 20 CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden
  LINK_OPTIONS "-Wl,--exclude-libs,ALL")
target_compile_options(convolith_cuda PRIVATE
  # sm_80 with PTX for what comes after it, and Hopper with its own instructions.
  $<$<COMPILE_LANGUAGE:CUDA>:
    -gencode=arch=compute_80,code=[sm_80,compute_80]
    -gencode=arch=compute_90a,code=sm_90a
    --expt-relaxed-constexpr  # index arithmetic is constexpr, for the host and the device alike
    -Xcompiler=-Wall,-Wextra,-Wno-unknown-pragmas>
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
if(CONVOLITH_WERROR)
  target_compile_options(convolith_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings> $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(SKBUILD)
  install(TARGETS convolith_cuda LIBRARY DESTINATION convolith)
endif()
