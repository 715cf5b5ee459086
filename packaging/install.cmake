# Installs the library so that find_package(qlora) and pkg-config find it, wherever the tree is moved to.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(qlora_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/qlora)

install(TARGETS qlora EXPORT qlora-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES qlora.h cpp/qlora.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT qlora-targets NAMESPACE qlora:: DESTINATION ${qlora_cmake_dir})

set(QLORA_STATIC_NEEDS_CUDA OFF)
if(TARGET CUDA::cudart_static AND NOT BUILD_SHARED_LIBS)
  set(QLORA_STATIC_NEEDS_CUDA ON)
endif()
# Before 1.0 a minor version may change the interface.
configure_package_config_file(packaging/qlora-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/qlora-config.cmake INSTALL_DESTINATION ${qlora_cmake_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/qlora-config-version.cmake VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/qlora-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/qlora-config-version.cmake DESTINATION ${qlora_cmake_dir})

# What a static libqlora needs besides itself; a shared one has it linked in.
set(qlora_private_libs "-lstdc++ -lm ${CMAKE_THREAD_LIBS_INIT}")
if(APPLE)
  set(qlora_private_libs "-lc++")
endif()
foreach(library IN LISTS CMAKE_DL_LIBS)
  string(APPEND qlora_private_libs " -l${library}")
endforeach()
if(QLORA_STATIC_NEEDS_CUDA)
  get_target_property(cudart CUDA::cudart_static IMPORTED_LOCATION)
  get_filename_component(cudart "${cudart}" DIRECTORY)
  string(APPEND qlora_private_libs " -L${cudart} -lcudart_static -lrt")
endif()
set(qlora_cflags "")
if(BUILD_SHARED_LIBS)
  set(qlora_cflags " -DQLORA_SHARED")
endif()
file(RELATIVE_PATH qlora_prefix "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
configure_file(packaging/qlora.pc.in ${CMAKE_CURRENT_BINARY_DIR}/qlora.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/qlora.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
