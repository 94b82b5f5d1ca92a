/* dataset.h - real images and labels, imported once, named by the hash of their content.
 * A dataset is one safetensors file (blob): train.images U8 [N,C,H,W], train.labels U8 [N] (or U16 where classes > 256),
 * test.images, test.labels; metadata: format, classes (how many), class_names (a JSON list, where the source has
 * them). Its hash is BLAKE2b-256 of the file: the same images and labels give the same hash, whatever they are called.
 * Splits: an official test set stays the test split (none given: a tenth drawn by the hash is set aside);
 * validation is min(5000, a tenth) of the rest, a permutation drawn from the content hash: deterministic.
 * Pixels enter networks as p / 127.5 - 1. The test split is for `verify` alone.
 * Thread: read-only after open; share freely. */
#ifndef DIDACT_DATASET_H
#define DIDACT_DATASET_H

#include "common/err.h"
#include "common/job.h"

#include <stdint.h>

enum split { SPLIT_TRAIN, SPLIT_VALID, SPLIT_TEST, SPLIT_COUNT };

struct dataset {
    hash_str hash;
    int      c, h, w, n_classes;
    uint32_t n[SPLIT_COUNT];
    uint32_t *index[SPLIT_COUNT];   /* owned: rows of the file's train or test part */
    const uint8_t *images[2];       /* borrowed from the mapping: train part, test part; [rows, C, H, W] */
    const uint8_t *labels8[2];      /* one of labels8 / labels16 */
    const uint16_t *labels16[2];
    void    *map;                   /* owned */
    size_t   map_len;
};

/* Open an imported file (checks header, sizes, label range). */
int  dataset_open(struct dataset *d, const char *path, struct errbuf *e);
void dataset_close(struct dataset *d);

const uint8_t *dataset_image(const struct dataset *d, enum split s, uint32_t i); /* [C,H,W] bytes */
int            dataset_label(const struct dataset *d, enum split s, uint32_t i);

/* Importers: write a dataset file at `out_path` and give its hash. `source` is guessed from what is there:
 * a folder with *-images-idx3-ubyte[.gz], with data_batch_*.bin, or with train/CLASS/X.png|jpg (and maybe test/CLASS/X); or a
 * dataset file, which comes out as it went in.
 * Truncated or inconsistent sources are refused naming the file and what is wrong. */
int dataset_import(const char *source, const char *out_path, hash_str hash, struct errbuf *e);

#endif
