# Read by CMake after project(), without touching llama.cpp's tree.

if(NOT MSVC)
  # The same source gives the same bytes wherever it lies: no build path in __FILE__.
  add_compile_options("-ffile-prefix-map=${CMAKE_SOURCE_DIR}=llama.cpp")
endif()

# A native build on a processor with AMX crashes on every quantized model (llama.cpp#20824). Seen with GCC 12.2: the
# tile configuration is a local that only the intrinsic reads, and the compiler drops its stores (llama.cpp#26954,
# open). AVX-512 serves these models well.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  include(CheckCCompilerFlag)
  check_c_compiler_flag(-mno-amx-tile HAVE_MNO_AMX_TILE)
  if(HAVE_MNO_AMX_TILE)
    add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
  endif()
endif()
