/* book.h - the score book: what is known of scores, whoever paid for them. A score is a pure function of its key, so a row holds for ever,
 * on every machine with the same engine version; two rows of one key with other numbers are proof that one of them is wrong.
 * A book travels as CSV, a row a line, with the columns' names first; docs/scores.md describes it.
 * Thread: pure; a FILE is owned by one thread. */
#ifndef DIDACT_BOOK_H
#define DIDACT_BOOK_H

#include "common/err.h"
#include "common/job.h"

#include <stdio.h>

#define BOOK_FIDELITY_MAX 512
#define BOOK_KEY_LEN      32     /* hex characters: BLAKE2b-128 of the key's fields */
#define BOOK_LINE_MAX     16384  /* bytes of a row */
#define BOOK_MAX_COLUMNS  64

struct book_row {
    /* the key */
    name_str space;
    char     arch_hash[ARCH_HASH_LEN + 1];
    hash_str dataset, curriculum;        /* curriculum "": zero-cost scores alone, and no score */
    char     fidelity[BOOK_FIDELITY_MAX];
    uint64_t seed;                       /* of the trial: a function of the job's seed and the architecture */
    name_str engine;
    /* what it leads to */
    char     arch[ARCH_TEXT_MAX];
    struct trial_result r;               /* scored, or failed for a reason that comes again */
};

/* "steps=32 inits=2 valid_images=2000 checkpoints=8,16 lr_scales=1 channels=16 zero_cost=synflow": all that a score depends on beside the names; the
 * sizes of the network, and the first initialisation, only where they are not the space's own, and not the very first. */
void book_fidelity(const struct fidelity *f, uint32_t zero_cost, char out[BOOK_FIDELITY_MAX]);
bool book_fidelity_read(const char *text, struct fidelity *f, uint32_t *zero_cost); /* back; false for anything else */
void book_key(const struct book_row *b, char hex[BOOK_KEY_LEN + 1]);
bool book_keeps(const struct trial_result *r);                        /* scored or diverged: not what the environment decided */
bool book_same(const struct trial_result *a, const struct trial_result *b); /* bit for bit, in all but the measured part */

/* What was measured, as last columns: the time of the computation, a forward pass. */
enum { BOOK_SECONDS = 1, BOOK_LATENCY = 2 };
void book_write_header(FILE *f, unsigned measured);
void book_write_row(FILE *f, const struct book_row *b, unsigned measured);

/* Whether a row is one that a worker can have written, as far as its own numbers tell; f: its fidelity, read. -ERR_INPUT names the column. */
int  book_check(const struct book_row *b, struct fidelity *f, struct errbuf *e);

/* Which field is which column; from the first line, which is changed. -ERR_INPUT names the column that is missing or unknown. */
struct book_columns { int n, of[BOOK_MAX_COLUMNS]; };
int  book_read_header(char *line, struct book_columns *c, struct errbuf *e);
int  book_read_row(const struct book_columns *c, char *line, struct book_row *out, struct errbuf *e);

#endif
