/* space_file_int.h - what the parser (space_file_parse.c), the moves (space_file.c) and the builder (space_file_build.c) share. */
#ifndef DIDACT_SPACE_FILE_INT_H
#define DIDACT_SPACE_FILE_INT_H

#include "common/blob.h"
#include "common/space_file.h"

#define SF_MAX_SLOTS  32
#define SF_MAX_STAGES 8
#define SF_MAX_VALUES 12
#define SF_NAME_LEN   15
#define SF_MAX_VARS   (SF_MAX_SLOTS * SF_KEY_COUNT + SF_MAX_STAGES * SF_STAGE_COUNT + SF_TOP_COUNT)
#define SF_MAX_WHEN   4

/* Keys of a slot: name, least and most of numbers (0, 0: words), the value where the file has none ("": see the parser). */
#define SF_KEYS(X)                                    \
    X(SF_OP, "op", 0, 0, "")                          \
    X(SF_WIDTH, "width", 1, 1024, "")                 \
    X(SF_KERNEL, "kernel", 1, 11, "3")                \
    X(SF_STRIDE, "stride", 1, 4, "1")                 \
    X(SF_DEPTH, "depth", 1, 8, "1")                   \
    X(SF_GROUPS, "groups", 1, 64, "1")                \
    X(SF_DILATION, "dilation", 1, 8, "1")             \
    X(SF_PAD, "pad", 0, 0, "zero")                    \
    X(SF_ORDER, "order", 0, 0, "post")                \
    X(SF_OWN_NORM, "norm", 0, 0, "")                  \
    X(SF_OWN_ACT, "act", 0, 0, "")                    \
    X(SF_CONNECT, "connect", 0, 0, "none")            \
    X(SF_FROM, "from", 0, 0, "none")                  \
    X(SF_JOIN, "join", 0, 0, "add")
#define SF_ENUM(id, name, min, max, def) id,
enum sf_key { SF_KEYS(SF_ENUM) SF_KEY_COUNT };
#undef SF_ENUM
enum sf_stage_key { SF_REPEAT, SF_WIDEN, SF_STAGE_COUNT };
enum sf_top { SF_NORM, SF_ACT, SF_HEAD, SF_TOP_COUNT };

/* Operations of a slot and the keys that each reads; all but none read from and join. */
#define SF_B(key) (1u << (key))
#define SF_CONV_KEYS (SF_B(SF_KERNEL) | SF_B(SF_STRIDE) | SF_B(SF_DEPTH) | SF_B(SF_DILATION) | SF_B(SF_PAD) | SF_B(SF_ORDER) | SF_B(SF_OWN_NORM) | \
                      SF_B(SF_OWN_ACT) | SF_B(SF_CONNECT) | SF_B(SF_FROM) | SF_B(SF_JOIN))
#define SF_POOL_KEYS (SF_B(SF_KERNEL) | SF_B(SF_STRIDE) | SF_B(SF_DEPTH) | SF_B(SF_CONNECT) | SF_B(SF_FROM) | SF_B(SF_JOIN))
#define SF_OPS(X)                                                                     \
    X(SFOP_NONE, "none", 0)                                                           \
    X(SFOP_CONV, "conv", SF_CONV_KEYS | SF_B(SF_WIDTH) | SF_B(SF_GROUPS))             \
    X(SFOP_SEP, "sep", SF_CONV_KEYS | SF_B(SF_WIDTH))                                 \
    X(SFOP_NECK, "neck", SF_CONV_KEYS | SF_B(SF_WIDTH) | SF_B(SF_GROUPS))             \
    X(SFOP_DW, "dw", SF_CONV_KEYS)                                                    \
    X(SFOP_MAX, "max", SF_POOL_KEYS)                                                  \
    X(SFOP_AVG, "avg", SF_POOL_KEYS)                                                  \
    X(SFOP_UP, "up", SF_B(SF_DEPTH) | SF_B(SF_FROM) | SF_B(SF_JOIN))                  \
    X(SFOP_DENSE, "dense", SF_B(SF_WIDTH) | SF_B(SF_DEPTH) | SF_B(SF_OWN_NORM) | SF_B(SF_OWN_ACT) | SF_B(SF_CONNECT) | SF_B(SF_FROM) | SF_B(SF_JOIN))
#define SF_ENUM(id, name, keys) id,
enum sf_op { SF_OPS(SF_ENUM) SFOP_COUNT };
#undef SF_ENUM
enum sf_norm { SFNORM_BN, SFNORM_MBN, SFNORM_WN, SFNORM_NONE, SFNORM_COUNT };
enum sf_act { SFACT_RELU, SFACT_LRELU, SFACT_TANH, SFACT_NONE, SFACT_COUNT };
enum sf_head { SFHEAD_GAP, SFHEAD_FLAT, SFHEAD_COUNT };
enum sf_connect { SFCON_NONE, SFCON_ADD, SFCON_CONCAT, SFCON_COUNT };
enum sf_join { SFJOIN_ADD, SFJOIN_CONCAT, SFJOIN_COUNT };
enum sf_pad { SFPAD_ZERO, SFPAD_REFLECT, SFPAD_COUNT };
enum sf_order { SFORDER_POST, SFORDER_PRE, SFORDER_COUNT };
enum { SFFROM_NONE, SFFROM_INPUT, SFFROM_SLOT }; /* values of from; SFFROM_SLOT + i is slot i */
#define SF_INHERIT (-1)                          /* the value of a norm or act that the slot does not state */

enum sf_owner { SF_OF_SPACE, SF_OF_STAGE, SF_OF_SLOT };
struct sf_var {                   /* a key with one value or several */
    char name[2 * SF_NAME_LEN + 2];
    enum sf_owner of;
    int  owner;                   /* which stage or slot */
    int  key;                     /* enum sf_key, sf_stage_key or sf_top */
    bool referred;                /* by a condition: then it is live wherever its owner is there */
    int  n, value[SF_MAX_VALUES]; /* numbers, or places in the table of words */
};
struct sf_when { int var; unsigned allowed; }; /* bit i: the i-th value of the variable will do */
struct sf_cond { int n; struct sf_when v[SF_MAX_WHEN]; };
struct sf_stage {                 /* slots [first, end), repeated */
    char           name[SF_NAME_LEN + 1];
    int            line, var[SF_STAGE_COUNT], first, end;
    struct sf_cond when;
};
struct sf_slot {
    char           name[SF_NAME_LEN + 1];
    int            line, var[SF_KEY_COUNT], stage; /* stage -1: of its own */
    struct sf_cond when;
};
struct sf {
    struct space    space;        /* ctx points at this struct */
    char            name[SPACE_FILE_NAME + 1], id[SPACE_FILE_NAME + SPACE_FILE_ID_HASH + 2], about[128];
    hash_str        hash;
    int             n_slots, n_stages, n_vars, top[SF_TOP_COUNT];
    struct sf_slot  slot[SF_MAX_SLOTS];
    struct sf_stage stage[SF_MAX_STAGES];
    struct sf_var   var[SF_MAX_VARS]; /* norm, act, each stage's and slot's in turn, head: a condition names earlier ones */
};
struct sf_arch {
    short pick[SF_MAX_VARS];      /* which of each variable's values; 0 for what is not live */
    /* filled in by sf_settle */
    bool  live[SF_MAX_VARS];      /* is it read by the network of these picks? */
    bool  there[SF_MAX_SLOTS];    /* the slot is built: its conditions hold, and its operation is not none */
    short source[SF_MAX_SLOTS];   /* what joins its input: SFFROM_NONE … SFFROM_SLOT + i, a slot that is there */
};

const char *sf_word(const struct sf *f, const struct sf_var *v, int value); /* NULL: v has numbers */
/* The words that a variable may have, in the order of its values; their number, 0: numbers. */
#define SF_MAX_WORDS (SF_MAX_SLOTS + 2)
int  sf_words(const struct sf *f, const struct sf_var *v, const char *words[SF_MAX_WORDS]);
unsigned sf_reads(int op);        /* SF_B(key) of what the operation reads */
static inline int sf_get(const struct sf *f, const struct sf_arch *a, int var) { return f->var[var].value[a->pick[var]]; }
static inline int sf_key(const struct sf *f, const struct sf_arch *a, int slot, enum sf_key k) { return sf_get(f, a, f->slot[slot].var[k]); }
static inline int sf_repeat(const struct sf *f, const struct sf_arch *a, int slot)
{
    return f->slot[slot].stage < 0 ? 1 : sf_get(f, a, f->stage[f->slot[slot].stage].var[SF_REPEAT]);
}

/* What is live, and the canonical picks: equal networks, as far as that is known, have equal ones. */
void sf_settle(const struct sf *f, struct sf_arch *a);
int  sf_read(const struct sf *f, const char *text, struct sf_arch *a, struct errbuf *e);
void sf_attach(struct sf *f);     /* fill in `space` */
int  sf_build(const struct sf *f, const struct sf_arch *a, const struct arch_frame *frame, struct net *out, struct errbuf *e);

#endif
