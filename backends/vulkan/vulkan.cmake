# Adds the Vulkan backend to target qlora when it is wanted and headers and a GLSL compiler are there.
if(NOT QLORA_VULKAN STREQUAL "OFF")
  find_path(QLORA_VULKAN_INCLUDE vulkan/vulkan.h)
  find_program(QLORA_GLSLANG NAMES glslangValidator glslang)
  if(QLORA_VULKAN_INCLUDE AND QLORA_GLSLANG)
    file(GLOB qlora_vulkan CONFIGURE_DEPENDS backends/vulkan/*.cpp)
    file(GLOB qlora_shaders CONFIGURE_DEPENDS backends/vulkan/*.comp)
    file(GLOB qlora_shader_includes CONFIGURE_DEPENDS backends/vulkan/*.glsl backends/codebooks/*.inc)
    # Each shader becomes a header with an array of SPIR-V words named as the file: matmul_vulkan[].
    set(qlora_spirv "${CMAKE_CURRENT_BINARY_DIR}/spirv")
    file(MAKE_DIRECTORY "${qlora_spirv}")
    set(qlora_spirv_headers "")
    foreach(shader IN LISTS qlora_shaders)
      get_filename_component(name "${shader}" NAME_WE)
      add_custom_command(OUTPUT "${qlora_spirv}/${name}.h"
        COMMAND "${QLORA_GLSLANG}" --quiet -V --target-env vulkan1.2 "-I${CMAKE_CURRENT_SOURCE_DIR}" --vn ${name} -o "${qlora_spirv}/${name}.h" "${shader}"
        DEPENDS "${shader}" ${qlora_shader_includes} "${CMAKE_CURRENT_SOURCE_DIR}/backends/numeric.inc"
        COMMENT "SPIR-V ${name}" VERBATIM)
      list(APPEND qlora_spirv_headers "${qlora_spirv}/${name}.h")
    endforeach()
    target_sources(qlora PRIVATE ${qlora_vulkan} ${qlora_spirv_headers})
    target_include_directories(qlora PRIVATE "${qlora_spirv}")
    target_include_directories(qlora SYSTEM PRIVATE "${QLORA_VULKAN_INCLUDE}")
    target_compile_definitions(qlora PRIVATE QLORA_WITH_VULKAN)
    message(STATUS "qlora: Vulkan backend, shaders by ${QLORA_GLSLANG}")
  elseif(QLORA_VULKAN STREQUAL "ON")
    message(FATAL_ERROR "qlora: QLORA_VULKAN is ON but vulkan/vulkan.h or glslangValidator was not found; install libvulkan-dev and glslang-tools")
  endif()
endif()
