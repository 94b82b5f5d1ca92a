/* space_file_int.h - what the parser (space_file_parse.c), the moves (space_file.c) and the builder (space_file_build.c) share. */
#ifndef DIDACT_SPACE_FILE_INT_H
#define DIDACT_SPACE_FILE_INT_H

#include "common/blob.h"
#include "common/space_file.h"

#define SF_MAX_SLOTS  16
#define SF_MAX_VALUES 12
#define SF_NAME_LEN   15
#define SF_MAX_VARS   (SF_MAX_SLOTS * SF_KEY_COUNT + SF_TOP_COUNT)
#define SF_MAX_WHEN   4

/* Keys of a slot: name, least and most of numbers (0, 0: words), the value where the file has none. */
#define SF_KEYS(X)                                    \
    X(SF_OP, "op", 0, 0, "")                          \
    X(SF_WIDTH, "width", 1, 1024, "0")                \
    X(SF_KERNEL, "kernel", 1, 11, "3")                \
    X(SF_STRIDE, "stride", 1, 4, "1")                 \
    X(SF_DEPTH, "depth", 1, 8, "1")                   \
    X(SF_CONNECT, "connect", 0, 0, "none")
#define SF_ENUM(id, name, min, max, def) id,
enum sf_key { SF_KEYS(SF_ENUM) SF_KEY_COUNT };
#undef SF_ENUM
enum sf_top { SF_NORM, SF_ACT, SF_HEAD, SF_TOP_COUNT };

/* Operations of a slot and the keys that each reads beside depth and connect. */
#define SF_OPS(X)                  \
    X(SFOP_NONE, "none", 0)        \
    X(SFOP_CONV, "conv", 1)        \
    X(SFOP_SEP, "sep", 1)          \
    X(SFOP_NECK, "neck", 1)        \
    X(SFOP_DW, "dw", 0)            \
    X(SFOP_MAX, "max", 0)          \
    X(SFOP_AVG, "avg", 0)
#define SF_ENUM(id, name, wide) id,
enum sf_op { SF_OPS(SF_ENUM) SFOP_COUNT };
#undef SF_ENUM
enum sf_norm { SFNORM_BN, SFNORM_MBN, SFNORM_WN, SFNORM_NONE, SFNORM_COUNT };
enum sf_act { SFACT_RELU, SFACT_LRELU, SFACT_TANH, SFACT_COUNT };
enum sf_head { SFHEAD_GAP, SFHEAD_FLAT, SFHEAD_COUNT };
enum sf_connect { SFCON_NONE, SFCON_ADD, SFCON_CONCAT, SFCON_COUNT };

struct sf_var {                   /* a key with one value or several */
    char name[2 * SF_NAME_LEN + 2];
    int  slot;                    /* -1: of the whole */
    int  key;                     /* enum sf_key, or enum sf_top where slot is -1 */
    int  n, value[SF_MAX_VALUES]; /* numbers, or places in the table of words */
};
struct sf_when { int var; unsigned allowed; }; /* bit i: the i-th value of the variable will do */
struct sf_slot {
    char           name[SF_NAME_LEN + 1];
    int            line, var[SF_KEY_COUNT], n_when;
    struct sf_when when[SF_MAX_WHEN];
};
struct sf {
    struct space   space;         /* ctx points at this struct */
    char           name[SPACE_FILE_NAME + 1], id[SPACE_FILE_NAME + SPACE_FILE_ID_HASH + 2], about[128];
    hash_str       hash;
    int            n_slots, n_vars, top[SF_TOP_COUNT];
    struct sf_slot slot[SF_MAX_SLOTS];
    struct sf_var  var[SF_MAX_VARS]; /* norm, act, each slot's in turn, head: a condition names earlier ones */
};
struct sf_arch { int pick[SF_MAX_VARS]; }; /* which of each variable's values; 0 for what is not live */

const char *sf_word(const struct sf_var *v, int value); /* NULL: v has numbers */
bool sf_wide(int op);                             /* does the operation read width? */
bool sf_slot_live(const struct sf *f, const struct sf_arch *a, int slot);
/* Is the variable read by the network of these picks? */
bool sf_live(const struct sf *f, const struct sf_arch *a, int var);
static inline int sf_get(const struct sf *f, const struct sf_arch *a, int var) { return f->var[var].value[a->pick[var]]; }

int  sf_read(const struct sf *f, const char *text, struct sf_arch *a, struct errbuf *e);
void sf_attach(struct sf *f);                     /* fill in `space` */
int  sf_build(const struct sf *f, const struct sf_arch *a, const struct arch_frame *frame, struct net *out, struct errbuf *e);
const char *const *sf_words(int slot, int key, int *n); /* the table of words of a key; NULL: numbers */

#endif
