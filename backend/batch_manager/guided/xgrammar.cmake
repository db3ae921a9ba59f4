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

# The library's work can be ended: guide_budget.h. `sources` gets the copy of a file of xgrammar's where each of the
# lines that follow is followed by a call of inflight::`call`(). It stays as old as it is if nothing changed.
function(add_budget sources file call)
  set(copy ${CMAKE_CURRENT_BINARY_DIR}/xgrammar_${file})
  file(READ ${xgrammar_SOURCE_DIR}/cpp/${file} text)
  foreach(line ${ARGN})
    string(FIND "${text}" "${line}" found)
    if(found EQUAL -1)
      message(FATAL_ERROR "xgrammar's ${file} has no line \"${line}\": it is another version")
    endif()
    string(REPLACE "${line}" "${line}\ninflight::${call}();\n" text "${text}")
  endforeach()
  file(WRITE ${copy}.new "namespace inflight {\nvoid ${call}();\n}\n${text}")
  configure_file(${copy}.new ${copy} COPYONLY)
  set(${sources} ${${sources}} ${copy} PARENT_SCOPE)
endfunction()
add_budget(BUDGETED_SOURCES grammar_compiler.cc count_mask
           "auto add_adaptive_token_mask = [&](const ParserState& state, bool is_root_rule) {")
add_budget(BUDGETED_SOURCES earley_parser.cc count_parser_step "while (!tmp_process_state_queue_.empty()) {"
           "for (const auto& [ref_id, parent_state] : parent_states_map) {")

file(GLOB XGRAMMAR_SOURCES CONFIGURE_DEPENDS ${xgrammar_SOURCE_DIR}/cpp/*.cc ${xgrammar_SOURCE_DIR}/cpp/*/*.cc)
list(FILTER XGRAMMAR_SOURCES EXCLUDE REGEX "/cpp/tvm_ffi/[^/]*$")  # of the Python bindings
list(FILTER XGRAMMAR_SOURCES EXCLUDE REGEX "/cpp/(grammar_compiler|earley_parser).cc$")
list(APPEND XGRAMMAR_SOURCES ${BUDGETED_SOURCES} ${CMAKE_CURRENT_SOURCE_DIR}/xgrammar_logging.cc)
add_library(xgrammar STATIC ${XGRAMMAR_SOURCES})
# Public: json_schema_grammar.cc makes grammars with the parts that xgrammar's own reader of schemas is made of.
target_include_directories(xgrammar SYSTEM PUBLIC ${xgrammar_SOURCE_DIR}/include ${xgrammar_SOURCE_DIR}/cpp
                           ${xgrammar_SOURCE_DIR}/3rdparty/dlpack/include ${xgrammar_SOURCE_DIR}/3rdparty/picojson)
target_compile_definitions(xgrammar PUBLIC XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0
                           XGRAMMAR_LOG_CUSTOMIZE=1)
target_compile_options(xgrammar PRIVATE -w -O2)
target_link_libraries(xgrammar PUBLIC Threads::Threads)
