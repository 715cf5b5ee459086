# What users of the library do: link it, package it, bind it, embed it. Included by CMakeLists.txt of this folder.
find_package(Python3 COMPONENTS Interpreter QUIET)
set(qlora_bindings ${CMAKE_SOURCE_DIR}/examples/bindings)

# The interface: declarations of the bindings, layouts, and programs that were compiled long ago.
if(Python3_FOUND)
  qlora_add_test(abi.header ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/abi/header.py ${CMAKE_SOURCE_DIR})
endif()
qlora_add_test(abi.abidiff ${CMAKE_CURRENT_SOURCE_DIR}/abi/abidiff.sh ${CMAKE_SOURCE_DIR})
add_executable(client_0_1 abi/client_0_1.c)
target_link_libraries(client_0_1 PRIVATE qlora::qlora m)
target_compile_options(client_0_1 PRIVATE -pedantic -Wall -Wextra -Werror)
set_target_properties(client_0_1 PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF LINKER_LANGUAGE CXX)
qlora_add_test(abi.client_0_1 client_0_1)

# The bindings, each with the same tests. Their tools need not be here.
foreach(language python rust go csharp)
  if(NOT QLORA_SANITIZE)
    qlora_add_test(bindings.${language} ${CMAKE_CURRENT_SOURCE_DIR}/bindings.sh ${language} ${CMAKE_SOURCE_DIR} $<TARGET_FILE:qlora> ${CMAKE_CURRENT_BINARY_DIR})
  endif()
endforeach()

# Packaging. The kinds that compile the library once more are enough once.
if(NOT QLORA_SANITIZE)
  foreach(kind installed subdirectory one_line two_contexts amalgamation)
    qlora_add_test(package.${kind} ${CMAKE_CURRENT_SOURCE_DIR}/package.sh ${kind} ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR})
  endforeach()
endif()

# The engine that embeds the library, with its own memory, threads and order of work.
if(TARGET qlora-engine)
  qlora_add_test(example.engine qlora-engine)
endif()

# Inside ggml, whose sources come from PyPI unless they are given.
set(QLORA_GGML_SOURCE "" CACHE PATH "the folder ggml of llama.cpp, for the test of examples/ggml")
if(NOT QLORA_SANITIZE)
  qlora_add_test(example.ggml ${CMAKE_CURRENT_SOURCE_DIR}/ggml.sh ${CMAKE_SOURCE_DIR} $<TARGET_FILE:qlora> ${CMAKE_CURRENT_BINARY_DIR} ${QLORA_GGML_SOURCE})
endif()

# Hosts that lend their device and record the work: a Vulkan command buffer, a CUDA graph.
if("vulkan" IN_LIST QLORA_TEST_BACKENDS AND QLORA_VULKAN_INCLUDE AND QLORA_GLSLANG AND UNIX)
  add_executable(host_vulkan host_vulkan.cpp)
  target_link_libraries(host_vulkan PRIVATE qlora_test_support)
  target_include_directories(host_vulkan SYSTEM PRIVATE ${QLORA_VULKAN_INCLUDE})
  qlora_add_test(host.vulkan.recording host_vulkan)
endif()
if("cuda" IN_LIST QLORA_TEST_BACKENDS AND UNIX)
  add_executable(host_cuda host_cuda.cpp)
  target_link_libraries(host_cuda PRIVATE qlora_test_support)
  qlora_add_test(host.cuda.graph host_cuda)
endif()
