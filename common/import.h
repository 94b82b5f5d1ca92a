/* import.h - readers of foreign image sets. One format is one file and one row of the table in dataset.c.
 * A reader fills a zeroed struct raw_set, which the caller frees with raw_set_fini whatever the outcome. Errors name
 * the file and what is wrong with it. Thread: no state. */
#ifndef DIDACT_IMPORT_H
#define DIDACT_IMPORT_H

#include "common/err.h"

#include <stdint.h>

#define IMPORT_MAX_BYTES (8ull << 30) /* of pixels in one part */
#define IMPORT_MAX_SIDE  4096         /* of an image */
#define DATASET_MAX_CLASSES 65536

enum { PART_TRAIN, PART_TEST, PART_COUNT };

struct raw_part {
    uint32_t  n;
    uint8_t  *images; /* owned [n,C,H,W] */
    uint16_t *labels; /* owned [n] */
};

struct raw_set {
    int             c, h, w;
    int             n_classes;        /* 0: the largest label, plus one */
    struct raw_part part[PART_COUNT]; /* the test part may be empty */
    char          **class_name;       /* owned [n_classes], or NULL where the source has no names */
};

struct import_format {
    const char *name, *looks_like;      /* for the message when nothing fits */
    bool (*detect)(const char *source);
    int  (*read)(const char *source, struct raw_set *out, struct errbuf *e);
};
extern const struct import_format import_idx, import_cifar, import_folder, import_native;

/* Allocate room for n images of the set's C x H x W and their labels; refuses sizes beyond the bounds above. `file` opens the message. */
int  raw_part_alloc(struct raw_part *p, const struct raw_set *s, uint64_t n, const char *file, struct errbuf *e);
void raw_set_fini(struct raw_set *s);

/* Sorted names (bytewise) of the visible entries of a folder, for readers that look around. */
struct import_list { int n; char **name; };
int  import_list(const char *dir, struct import_list *out, struct errbuf *e);
void import_list_fini(struct import_list *l);

#endif
