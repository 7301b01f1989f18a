# Read by CMake after project(), without touching llama.cpp's tree.

# The same source gives the same bytes wherever it lies: no path of this machine in __FILE__ and in debug information,
# also where a compiler cache has made paths relative to the build; no commit of a repository around the tree.
if(NOT MSVC)
  file(RELATIVE_PATH LLAMA_RUNNER_TREE "${CMAKE_BINARY_DIR}" "${CMAKE_SOURCE_DIR}")
  add_compile_options(
    "-ffile-prefix-map=${CMAKE_BINARY_DIR}=build"
    "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=llama.cpp"
    "-ffile-prefix-map=${LLAMA_RUNNER_TREE}=llama.cpp")
endif()
set(GIT_EXE OFF CACHE STRING "") # ggml asks it for a commit, whatever the build was told

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
if(NOT DEFINED CMAKE_UNITY_BUILD)
  set(CMAKE_UNITY_BUILD ON)
endif()
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
  if(TARGET llama) # a hundred graphs of models, all of one make
    set_target_properties(llama PROPERTIES UNITY_BUILD_BATCH_SIZE 16)
  endif()
  llama_runner_alone(llama-common common/chat.cpp common/json.cpp)
  if(TARGET mtmd) # but for its models, its files define the same logging macros, each in its own way
    get_target_property(sources mtmd SOURCES)
    list(FILTER sources EXCLUDE REGEX "^models/")
    list(TRANSFORM sources PREPEND tools/mtmd/)
    llama_runner_alone(mtmd ${sources})
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

# HTTP, JSON and templates take a sixth less to compile by -O2, and nobody waits for them: what computes keeps -O3.
function(llama_runner_soften)
  if(NOT MSVC AND NOT CMAKE_CXX_FLAGS MATCHES "-O")
    foreach(target cpp-httplib llama-common server-context llama-server-impl llama-bench-impl)
      if(TARGET ${target})
        target_compile_options(${target} PRIVATE "$<$<CONFIG:Release>:-O2>")
      endif()
    endforeach()
  endif()
endfunction()

# A compiler cache shortens vendor/nlohmann/.. to vendor, which __FILE__ shows in a header: the same without a cache.
function(llama_runner_shorten directory)
  get_property(targets DIRECTORY "${directory}" PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    foreach(property INCLUDE_DIRECTORIES INTERFACE_INCLUDE_DIRECTORIES)
      get_target_property(values ${target} ${property})
      if(values)
        string(REGEX REPLACE "/[^/;<>.]+/[.][.](/|;|>|$)" "\\1" values "${values}")
        set_target_properties(${target} PROPERTIES ${property} "${values}")
      endif()
    endforeach()
  endforeach()
  get_property(directories DIRECTORY "${directory}" PROPERTY SUBDIRECTORIES)
  foreach(below IN LISTS directories)
    llama_runner_shorten("${below}")
  endforeach()
endfunction()

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  cmake_language(DEFER CALL llama_runner_shorten "${CMAKE_SOURCE_DIR}")
  if(IS_DIRECTORY "${CMAKE_SOURCE_DIR}/ggml/src")
    cmake_language(DEFER CALL llama_runner_keep_apart)
    cmake_language(DEFER CALL llama_runner_soften)
  endif()
endif()
