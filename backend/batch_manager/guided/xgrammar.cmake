# xgrammar, which guides decoding (https://github.com/mlc-ai/xgrammar, Apache-2.0): its source distribution on PyPI,
# compiled here: the libxgrammar.a of its wheels is LTO code of GCC 14 alone, gone since 0.2.6, and they require torch.
#
# Without a network: -DFETCHCONTENT_SOURCE_DIR_XGRAMMAR=a folder with the unpacked source distribution.
include(FetchContent)
if(POLICY CMP0135)
  cmake_policy(SET CMP0135 NEW)  # files are as old as their extraction
endif()
set(XGRAMMAR xgrammar-0.2.8)
set(XGRAMMAR_ARCHIVE ${CMAKE_CURRENT_BINARY_DIR}/${XGRAMMAR}.tar.gz)
if(NOT FETCHCONTENT_SOURCE_DIR_XGRAMMAR AND NOT EXISTS ${XGRAMMAR_ARCHIVE})
  string(REPLACE - == XGRAMMAR_REQUIREMENT ${XGRAMMAR})
  # pip knows the index that this machine uses, and how to reach it.
  execute_process(
    COMMAND ${Python_EXECUTABLE} -m pip download --quiet --no-deps --no-binary xgrammar ${XGRAMMAR_REQUIREMENT}
            --dest ${CMAKE_CURRENT_BINARY_DIR}
    COMMAND_ERROR_IS_FATAL ANY)
endif()
FetchContent_Declare(xgrammar
  URL ${XGRAMMAR_ARCHIVE}
  URL_HASH SHA256=8305646fd2b319d6c3003f51a1665e54cbbe9cba1fb636bc41d0b46434ccbb80
  SOURCE_SUBDIR none)  # its CMakeLists.txt builds Python bindings, with warnings as errors
FetchContent_MakeAvailable(xgrammar)

# A compile can be ended between two token masks: compile_budget.h.
set(XGRAMMAR_COMPILER ${CMAKE_CURRENT_BINARY_DIR}/xgrammar_grammar_compiler.cc)
set(BEFORE_MASK "auto add_adaptive_token_mask = [&](const ParserState& state, bool is_root_rule) {")
set(INCLUDES "#include \"support/thread_pool.h\"")
file(READ ${xgrammar_SOURCE_DIR}/cpp/grammar_compiler.cc COMPILER_SOURCE)
foreach(TEXT "${BEFORE_MASK}" "${INCLUDES}")
  string(FIND "${COMPILER_SOURCE}" "${TEXT}" FOUND)
  if(FOUND EQUAL -1)
    message(FATAL_ERROR "xgrammar's grammar_compiler.cc has no line \"${TEXT}\": it is another version")
  endif()
endforeach()
string(REPLACE "${INCLUDES}" "${INCLUDES}\nnamespace inflight {\nvoid continue_compile();\n}" COMPILER_SOURCE "${COMPILER_SOURCE}")
string(REPLACE "${BEFORE_MASK}" "${BEFORE_MASK}\n    inflight::continue_compile();" COMPILER_SOURCE "${COMPILER_SOURCE}")
file(WRITE ${XGRAMMAR_COMPILER}.new "${COMPILER_SOURCE}")
configure_file(${XGRAMMAR_COMPILER}.new ${XGRAMMAR_COMPILER} COPYONLY)  # which stays as old as it is where nothing changed

file(GLOB XGRAMMAR_SOURCES CONFIGURE_DEPENDS ${xgrammar_SOURCE_DIR}/cpp/*.cc ${xgrammar_SOURCE_DIR}/cpp/*/*.cc)
list(FILTER XGRAMMAR_SOURCES EXCLUDE REGEX "/cpp/tvm_ffi/[^/]*$")  # of the Python bindings
list(FILTER XGRAMMAR_SOURCES EXCLUDE REGEX "/cpp/grammar_compiler.cc$")
list(APPEND XGRAMMAR_SOURCES ${XGRAMMAR_COMPILER} ${CMAKE_CURRENT_SOURCE_DIR}/xgrammar_logging.cc)
add_library(xgrammar STATIC ${XGRAMMAR_SOURCES})
target_include_directories(xgrammar SYSTEM PUBLIC ${xgrammar_SOURCE_DIR}/include
                           ${xgrammar_SOURCE_DIR}/3rdparty/dlpack/include
                           PRIVATE ${xgrammar_SOURCE_DIR}/3rdparty/picojson ${xgrammar_SOURCE_DIR}/cpp)
target_compile_definitions(xgrammar PRIVATE XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0
                           XGRAMMAR_LOG_CUSTOMIZE=1)
target_compile_options(xgrammar PRIVATE -w -O2)
target_link_libraries(xgrammar PUBLIC Threads::Threads)
