/* For compiling llama.cpp's AMX kernels with GCC 12.2 and its kin, by `-include` in CXXFLAGS. No source of llama.cpp changes.
 *
 * ldtilecfg reads 64 bytes. These GCCs declare the memory operand of _tile_loadconfig as one pointer, 8 bytes
 * (amxtileintrin.h: "m" (*((const void **)__config))), so the compiler takes stores to the other 56 for dead. llama.cpp
 * fills a local structure and loads it (ggml_tile_config_init in ggml/src/ggml-cpu/amx/mmq.cpp): at -O3 the rows and
 * columns of the tiles are never written, and the next tile instruction is illegal (SIGILL). Here the operand is what
 * the instruction reads.
 *
 * Without AMX, with other compilers and on other CPUs this file is empty.
 */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__AMX_TILE__)
#ifndef INTERNVL_AMX_TILE_CONFIG_H
#define INTERNVL_AMX_TILE_CONFIG_H

#include <immintrin.h>

static inline __attribute__((always_inline)) void internvl_tile_loadconfig(const void * config) {
    __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char (*)[64]) config));
}

#define _tile_loadconfig internvl_tile_loadconfig

#endif
#endif
