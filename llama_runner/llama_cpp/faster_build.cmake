# Read by CMake in project(), for the pinned tree. What is here changes no byte of the programs and is not part of a
# build's key; what changes bytes is in project_include.cmake, which is.

# The web pages, 10 MB, are embedded as string literals instead of lists of numbers: see embed_as_literals.cpp.
function(llama_runner_embed_as_literals)
  if(NOT TARGET llama-ui OR NOT TARGET llama-ui-embed OR CMAKE_UNITY_BUILD STREQUAL "OFF")
    return()
  endif()
  get_target_property(type llama-ui-embed TYPE)
  if(NOT type STREQUAL "EXECUTABLE") # compiled by a command of its own, to cross-compile
    return()
  endif()
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_FLAGS "-fpermissive -w")
  check_cxx_source_compiles(
    "static const unsigned char data[2] = {\"ab\"}; int main() { return data[0]; }" HAVE_LITERALS_WITHOUT_NUL)
  if(HAVE_LITERALS_WITHOUT_NUL)
    set_target_properties(llama-ui-embed PROPERTIES SOURCES "${LLAMA_RUNNER_EMBED}")
    target_include_directories(llama-ui-embed PRIVATE "${CMAKE_SOURCE_DIR}/tools/ui")
    target_compile_options(llama-ui PRIVATE -fpermissive -w)
    target_compile_options(llama-ui-embed PRIVATE -O1) # it runs once
  endif()
endfunction()

set(LLAMA_RUNNER_EMBED "${CMAKE_CURRENT_LIST_DIR}/embed_as_literals.cpp")
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  cmake_language(DEFER CALL llama_runner_embed_as_literals)
endif()
