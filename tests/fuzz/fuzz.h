/* fuzz.h - what every fuzz target shares. A target is one file fuzz_NAME.c with the function that libFuzzer calls:
 *
 *     int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);   returns 0, whatever the input was
 *
 * It feeds the bytes to a reader as a peer, a user or a broken disk would, and checks with FUZZ_CHECK what must hold of
 * whatever was accepted. corpus/NAME/ has seeds, and every input that once broke something. */
#ifndef DIDACT_TESTS_FUZZ_H
#define DIDACT_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(ok)                                                              \
    do {                                                                            \
        if (!(ok)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #ok); \
            abort();                                                                \
        }                                                                           \
    } while (0)

/* A file with these bytes, for readers that want a path; no disk is touched. Slots 0 to 3 are files of their own; the
 * path is valid until the slot's next use. */
const char *fuzz_file(int slot, const void *data, size_t size);
/* The bytes with a 0 behind them; malloc'ed. */
char *fuzz_text(const uint8_t *data, size_t size);

#endif
