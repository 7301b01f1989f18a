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

# Most of the compile time is headers, read again for each of three hundred small files; eight at a time share them.
# The files below define names that others of their unit define too, so each stays a unit of its own.
set(CMAKE_UNITY_BUILD ON)
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)

function(llama_runner_alone target)
  if(TARGET ${target})
    foreach(source IN LISTS ARGN)
      set_source_files_properties(
        "${CMAKE_SOURCE_DIR}/${source}" TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endforeach()
  endif()
endfunction()

function(llama_runner_keep_apart)
  llama_runner_alone(llama src/models/gemma4.cpp)
  llama_runner_alone(llama-common common/chat.cpp common/json.cpp)
  if(TARGET mtmd) # its files define the same logging macros, each in its own way
    set_target_properties(mtmd PROPERTIES UNITY_BUILD OFF)
  endif()

  # ggml-cpu, or one of it for each kind of processor. One of those is made for AMX, see above.
  get_property(targets DIRECTORY "${CMAKE_SOURCE_DIR}/ggml/src" PROPERTY BUILDSYSTEM_TARGETS)
  list(FILTER targets INCLUDE REGEX "^ggml-cpu")
  foreach(target IN LISTS targets)
    llama_runner_alone(${target} ggml/src/ggml-cpu/arch/x86/repack.cpp)
    foreach(property COMPILE_OPTIONS COMPILE_DEFINITIONS)
      get_target_property(values ${target} ${property})
      if(values)
        list(FILTER values EXCLUDE REGEX "^-mamx|AMX")
        set_target_properties(${target} PROPERTIES ${property} "${values}")
      endif()
    endforeach()
  endforeach()

  # The other backends have few files each, which define the same names.
  get_property(directories DIRECTORY "${CMAKE_SOURCE_DIR}/ggml/src" PROPERTY SUBDIRECTORIES)
  foreach(directory IN LISTS directories)
    get_property(targets DIRECTORY "${directory}" PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS targets)
      get_target_property(type ${target} TYPE)
      if(type MATCHES "_LIBRARY$")
        set_target_properties(${target} PROPERTIES UNITY_BUILD OFF)
      endif()
    endforeach()
  endforeach()
endfunction()

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR AND IS_DIRECTORY "${CMAKE_SOURCE_DIR}/ggml/src")
  cmake_language(DEFER CALL llama_runner_keep_apart)
endif()
