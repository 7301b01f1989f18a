# Read by CMake after project(), without touching llama.cpp's tree.

# The same source gives the same bytes wherever it lies: no build path in __FILE__.
if(NOT MSVC)
  add_compile_options("-ffile-prefix-map=${CMAKE_SOURCE_DIR}=llama.cpp")
endif()
