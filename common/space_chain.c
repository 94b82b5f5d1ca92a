/* space_chain.c - stacks of small-image blocks: "bn relu | c16k5 max2 | s32k5x2 skip | avg2 b48k3 | gap".
 *
 *   chain := norm act "|" stem "|" stage { "|" stage } "|" head       1 to 4 stages; docs/spaces.md explains it
 *   norm  := bn | mbn (mean-only) | wn (weight norm + mean-only)       act  := relu | lrelu
 *   stem  := c WIDTH k KERNEL [pool]                                   pool := max2 | avg2 | str2, after the stem
 *   stage := [pool] (c | s | b) WIDTH k KERNEL [x2] [skip]             pool before the stage; str2: its first block strides
 *   head  := gap | flat | fc32 | fc64
 *
 * Canonical text. A stage is one or two blocks; what counts is the list of blocks. So the text is parsed into stages,
 * spread into blocks (where a skip around differing shapes disappears), and gathered again into the fewest stages,
 * greedily from the left: two texts of the same blocks end as the same text. Nothing in it depends on the image's size.
 *
 * Building. A pool or stride that would leave fewer than 2x2 places is left out; a flat head first averages down to
 * at most 7x7 places, a hidden layer to 4x4. */
#include "common/space.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STAGES 4
#define MAX_REPEAT 2
#define MAX_BLOCKS (MAX_STAGES * MAX_REPEAT)

/* What random and mutate propose costs at most this at 1x28x28 with 10 classes; a person may write larger ones. */
#define CAP_MACS   3000000u
#define CAP_PARAMS 150000u

enum pool { POOL_NONE, POOL_MAX, POOL_AVG, POOL_STRIDE, POOL_COUNT };
enum bop { BOP_CONV, BOP_SEP, BOP_NECK, BOP_COUNT };
enum norm { NORM_BN, NORM_MEAN, NORM_WEIGHT, NORM_COUNT };
enum head { HEAD_GAP, HEAD_FLAT, HEAD_FC32, HEAD_FC64, HEAD_COUNT };

static const char *const pool_names[POOL_COUNT] = { "", "max2", "avg2", "str2" };
static const char        bop_names[BOP_COUNT + 1] = "csb";
static const char *const norm_names[NORM_COUNT] = { "bn", "mbn", "wn" };
static const char *const act_names[2] = { "relu", "lrelu" };
static const char *const head_names[HEAD_COUNT] = { "gap", "flat", "fc32", "fc64" };
static const int         head_hidden[HEAD_COUNT] = { 0, 0, 32, 64 };
static const int         head_side[HEAD_COUNT] = { 0, 7, 4, 4 };
static const int         widths[] = { 8, 12, 16, 24, 32, 48, 64 };
static const int         kernels[] = { 3, 5 };
#define N_WIDTHS      ((int)(sizeof widths / sizeof *widths))
#define N_STEM_WIDTHS 4 /* the first of them */
#define N_KERNELS     2

struct stage { int op, width, kernel, repeat, pool, skip; }; /* width and kernel: index in their table; repeat: 0 is one block */
struct chain {
    int          norm, act, stem_width, stem_kernel, stem_pool, head, n;
    struct stage stage[MAX_STAGES];
};
struct block { int op, width, kernel, pool; bool fits, skip; }; /* fits: input and output have the same shape */

static int neck_width(int width) /* of a bottleneck's middle */
{
    return width / 4 > 4 ? width / 4 : 4;
}

/* ---- canonical form ---- */

static int spread(const struct chain *a, struct block *b)
{
    int n = 0, width = a->stem_width;
    for (int i = 0; i < a->n; i++) {
        const struct stage *s = &a->stage[i];
        for (int r = 0; r <= s->repeat; r++) {
            int  pool = r == 0 ? s->pool : POOL_NONE;
            bool fits = width == s->width && pool != POOL_STRIDE;
            b[n++] = (struct block){ s->op, s->width, s->kernel, pool, fits, fits && s->skip };
            width = s->width;
        }
    }
    return n;
}

static void gather(const struct block *b, int n, struct chain *a)
{
    a->n = 0;
    for (int i = 0; i < n;) {
        struct stage s = { b[i].op, b[i].width, b[i].kernel, 0, b[i].pool, b[i].skip };
        bool decided = b[i].fits; /* a block whose shapes differ says nothing about skip */
        int  j = i + 1;
        while (j < n && j - i < MAX_REPEAT && b[j].op == s.op && b[j].width == s.width && b[j].kernel == s.kernel &&
               b[j].pool == POOL_NONE && (!decided || b[j].skip == s.skip)) {
            s.skip = b[j++].skip;
            decided = true;
        }
        s.repeat = j - i - 1;
        a->stage[a->n++] = s; /* the greedy cut needs the fewest stages, so never more than there were */
        i = j;
    }
}

static void canonical(struct chain *a)
{
    struct block b[MAX_BLOCKS];
    gather(b, spread(a, b), a);
}

static void print(const struct chain *a, char *text)
{
    size_t cap = ARCH_TEXT_MAX, n;
    n = (size_t)snprintf(text, cap, "%s %s | c%dk%d", norm_names[a->norm], act_names[a->act], widths[a->stem_width],
                         kernels[a->stem_kernel]);
    if (a->stem_pool)
        n += (size_t)snprintf(text + n, cap - n, " %s", pool_names[a->stem_pool]);
    for (int i = 0; i < a->n; i++) {
        const struct stage *s = &a->stage[i];
        n += (size_t)snprintf(text + n, cap - n, " | %s%s%c%dk%d%s%s", pool_names[s->pool], s->pool ? " " : "", bop_names[s->op],
                              widths[s->width], kernels[s->kernel], s->repeat ? "x2" : "", s->skip ? " skip" : "");
    }
    n += (size_t)snprintf(text + n, cap - n, " | %s", head_names[a->head]);
    assert(n < cap); /* four stages of at most 20 characters */
}

/* ---- reading what a person wrote ---- */

static int word_in(const char *w, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (*names[i] && strcmp(w, names[i]) == 0)
            return i;
    return -1;
}

static int index_of(long v, const int *table, int n)
{
    for (int i = 0; i < n; i++)
        if (table[i] == v)
            return i;
    return -1;
}

/* "s32k5x2"; the word is at most 15 characters. */
static int read_block(const char *w, struct stage *s, int n_widths, struct errbuf *e)
{
    char *p;
    const char *op = strchr(bop_names, w[0]);
    s->op = op ? (int)(op - bop_names) : -1;
    long width = strtol(w + 1, &p, 10);
    if (s->op < 0 || w[1] < '1' || w[1] > '9' || *p != 'k' || p[1] < '1' || p[1] > '9')
        return err_set(e, ERR_INPUT, "'%s' is not a block such as c16k3, s32k5x2 or b64k3", w);
    long kernel = strtol(p + 1, &p, 10), repeat = 1;
    if (*p == 'x' && p[1] >= '1' && p[1] <= '9')
        repeat = strtol(p + 1, &p, 10);
    if (*p)
        return err_set(e, ERR_INPUT, "'%s' has '%s' after the block", w, p);
    if ((s->width = index_of(width, widths, n_widths)) < 0)
        return err_set(e, ERR_INPUT, "'%s': the width must be 8, 12, 16, 24%s", w, n_widths > 4 ? ", 32, 48 or 64" : " in the stem");
    if ((s->kernel = index_of(kernel, kernels, N_KERNELS)) < 0)
        return err_set(e, ERR_INPUT, "'%s': the kernel must be 3 or 5", w);
    if (repeat > MAX_REPEAT)
        return err_set(e, ERR_INPUT, "'%s': a stage repeats at most x%d", w, MAX_REPEAT);
    s->repeat = (int)repeat - 1;
    return 0;
}

/* Cut the next word out of a section into w[16]; false at its end. */
static bool next_word(const char **p, char w[16])
{
    *p += strspn(*p, " \t\r\n");
    size_t n = strcspn(*p, " \t\r\n");
    snprintf(w, 16, "%.*s", (int)(n < 15 ? n : 15), *p);
    *p += n;
    return n > 0;
}

static int read_stage(const char *text, bool stem, struct stage *s, struct errbuf *e)
{
    char w[16];
    bool block = false, pool = false;
    *s = (struct stage){ 0 };
    while (next_word(&text, w)) {
        int p = word_in(w, pool_names, POOL_COUNT), rc;
        if (p > 0) {
            if (pool)
                return err_set(e, ERR_INPUT, "'%s' is a second pooling", w);
            s->pool = p;
            pool = true;
        } else if (!stem && strcmp(w, "skip") == 0) {
            s->skip = 1;
        } else if (block) {
            return err_set(e, ERR_INPUT, "'%s' is neither %s", w, stem ? "max2, avg2 nor str2" : "max2, avg2, str2 nor skip");
        } else {
            struct stage b = { 0 };
            if ((rc = read_block(w, &b, stem ? N_STEM_WIDTHS : N_WIDTHS, e)) < 0)
                return rc;
            if (stem && (b.op != BOP_CONV || b.repeat))
                return err_set(e, ERR_INPUT, "'%s': the stem is one plain convolution such as c16k3", w);
            s->op = b.op, s->width = b.width, s->kernel = b.kernel, s->repeat = b.repeat;
            block = true;
        }
    }
    return block ? 0 : err_set(e, ERR_INPUT, "has no block such as c16k3");
}

/* Two words out of two lists, each once: "bn relu". */
static int read_first(const char *text, struct chain *a, struct errbuf *e)
{
    char w[16];
    a->norm = a->act = -1;
    while (next_word(&text, w)) {
        int norm = word_in(w, norm_names, NORM_COUNT), act = word_in(w, act_names, 2);
        if ((norm < 0 && act < 0) || (norm >= 0 && a->norm >= 0) || (act >= 0 && a->act >= 0))
            return err_set(e, ERR_INPUT, "'%s' is out of place: one of bn, mbn, wn and one of relu, lrelu", w);
        if (norm >= 0)
            a->norm = norm;
        else
            a->act = act;
    }
    return a->norm < 0 || a->act < 0 ? err_set(e, ERR_INPUT, "needs one of bn, mbn, wn and one of relu, lrelu") : 0;
}

static int read_head(const char *text, struct chain *a, struct errbuf *e)
{
    char w[16], more[16];
    a->head = next_word(&text, w) && !next_word(&text, more) ? word_in(w, head_names, HEAD_COUNT) : -1;
    return a->head < 0 ? err_set(e, ERR_INPUT, "the last section must be gap, flat, fc32 or fc64") : 0;
}

static int read_chain(const char *in, struct chain *a, struct errbuf *e)
{
    char  copy[ARCH_TEXT_MAX], *part[MAX_STAGES + 3];
    int   n = 0, rc = 0;
    size_t len = strlen(in);
    *a = (struct chain){ 0 };
    if (len >= sizeof copy)
        return err_set(e, ERR_INPUT, "an architecture has at most %zu characters", sizeof copy - 1);
    memcpy(copy, in, len + 1);
    for (char *p = copy; p; n++) {
        if (n == MAX_STAGES + 3)
            return err_set(e, ERR_INPUT, "there are at most %d stages between stem and head", MAX_STAGES);
        part[n] = p;
        if ((p = strchr(p, '|')))
            *p++ = 0;
    }
    if (n < 4)
        return err_set(e, ERR_INPUT, "needs at least four sections, such as 'bn relu | c16k3 max2 | s32k3 | gap'");
    for (int i = 0; i < n && rc == 0; i++) {
        struct stage s;
        if (i == 0) {
            rc = read_first(part[i], a, e);
        } else if (i == n - 1) {
            rc = read_head(part[i], a, e);
        } else if (i == 1) {
            if ((rc = read_stage(part[i], true, &s, e)) == 0)
                a->stem_width = s.width, a->stem_kernel = s.kernel, a->stem_pool = s.pool;
        } else {
            rc = read_stage(part[i], false, &a->stage[a->n++], e);
        }
        if (rc < 0)
            err_wrap(e, rc, "section %d", i + 1);
    }
    return rc;
}

static int canon(const struct space *s, const char *in, char *text, struct errbuf *e)
{
    (void)s;
    struct chain a;
    int rc = read_chain(in, &a, e);
    if (rc < 0)
        return rc;
    canonical(&a);
    print(&a, text);
    return 0;
}

/* ---- what it costs: the walk of build() in numbers, so that proposals allocate nothing (build asserts that both agree) ---- */

struct cost { uint64_t macs, params; };

static void count(struct cost *k, const struct chain *a, int weights, int out, int side)
{
    k->macs += (uint64_t)weights * (uint64_t)side * (uint64_t)side;
    k->params += (uint64_t)weights + (uint64_t)out * (a->norm == NORM_MEAN ? 1 : 2);
}

static struct cost cost_at_28(const struct chain *a)
{
    struct cost  k = { 0, 0 };
    struct block b[MAX_BLOCKS];
    int n = spread(a, b), c = widths[a->stem_width], kk = kernels[a->stem_kernel], side = 28;
    count(&k, a, c * kk * kk, c, a->stem_pool == POOL_STRIDE ? 14 : 28);
    side = a->stem_pool ? 14 : 28;
    for (int i = 0; i < n; i++) {
        int w = widths[b[i].width], mid = neck_width(w), before;
        kk = kernels[b[i].kernel] * kernels[b[i].kernel];
        if (side >= 4 && (b[i].pool == POOL_MAX || b[i].pool == POOL_AVG))
            side /= 2;
        before = side;
        if (side >= 4 && b[i].pool == POOL_STRIDE)
            side = (side + 1) / 2;
        if (b[i].op == BOP_CONV) {
            count(&k, a, c * w * kk, w, side);
        } else if (b[i].op == BOP_SEP) {
            count(&k, a, c * kk, a->norm == NORM_WEIGHT ? c : 0, side);
            k.params -= a->norm == NORM_WEIGHT ? (uint64_t)c : 0; /* g alone: no norm of its own, hence no bias */
            count(&k, a, c * w, w, side);
        } else {
            count(&k, a, c * mid, mid, before);
            count(&k, a, mid * mid * kk, mid, side);
            count(&k, a, mid * w, w, side);
        }
        c = w;
    }
    int hidden = head_hidden[a->head];
    if (a->head != HEAD_GAP) {
        side /= (side + head_side[a->head] - 1) / head_side[a->head];
        c *= side * side;
    }
    if (hidden) {
        k.macs += (uint64_t)c * (uint64_t)hidden;
        k.params += (uint64_t)c * (uint64_t)hidden + (uint64_t)hidden * (a->norm == NORM_WEIGHT ? 2 : 1);
        c = hidden;
    }
    k.macs += (uint64_t)c * 10;
    k.params += (uint64_t)c * 10 + 10;
    return k;
}

/* ---- proposals ---- */

static int draw(struct rng *r, int n)
{
    return (int)rng_below(r, (uint32_t)n);
}

static struct stage draw_stage(struct rng *r)
{
    struct stage s;
    s.op = draw(r, BOP_COUNT);
    s.width = draw(r, N_WIDTHS);
    s.kernel = draw(r, N_KERNELS);
    s.repeat = draw(r, MAX_REPEAT);
    s.pool = draw(r, POOL_COUNT);
    s.skip = draw(r, 2);
    return s;
}

static void random_chain(const struct space *s, struct rng *r, char *text)
{
    (void)s;
    struct chain a;
    struct cost  k;
    do {
        a.norm = draw(r, NORM_COUNT);
        a.act = draw(r, 2);
        a.stem_width = draw(r, N_STEM_WIDTHS);
        a.stem_kernel = draw(r, N_KERNELS);
        a.stem_pool = 1 + draw(r, POOL_COUNT - 1); /* at full size every stage would cost four times as much */
        a.head = draw(r, HEAD_COUNT);
        a.n = 1 + draw(r, MAX_STAGES);
        for (int i = 0; i < a.n; i++)
            a.stage[i] = draw_stage(r);
        k = cost_at_28(&a);
    } while (k.macs > CAP_MACS || k.params > CAP_PARAMS);
    canonical(&a);
    print(&a, text);
}

/* One change: choice `field` of stage `at` (or of the whole, at < 0) takes `value`; or a stage goes, or a new one comes. */
enum change_kind { SET_WHOLE, SET_STAGE, REMOVE, INSERT };
struct change { enum change_kind kind; int at, field, value; }; /* INSERT: value is the stage's number, or INSERT_DRAWN */
#define INSERT_DRAWN (-1)
#define MAX_CHANGES 96

static int *whole_field(struct chain *a, int f)
{
    int *const field[] = { &a->norm, &a->act, &a->stem_width, &a->stem_kernel, &a->stem_pool, &a->head };
    return field[f];
}

static int *stage_field(struct stage *s, int f)
{
    int *const field[] = { &s->op, &s->width, &s->kernel, &s->repeat, &s->pool, &s->skip };
    return field[f];
}

static int list_changes(struct chain *a, struct change *c)
{
    static const int whole[] = { NORM_COUNT, 2, N_STEM_WIDTHS, N_KERNELS, POOL_COUNT, HEAD_COUNT };
    static const int stage[] = { BOP_COUNT, N_WIDTHS, N_KERNELS, MAX_REPEAT, POOL_COUNT, 2 };
    int n = 0;
    for (int f = 0; f < 6; f++)
        for (int v = f == 4; v < whole[f]; v++) /* field 4, the stem's pooling, is never proposed away */
            if (v != *whole_field(a, f))
                c[n++] = (struct change){ SET_WHOLE, -1, f, v };
    for (int i = 0; i < a->n; i++)
        for (int f = 0; f < 6; f++)
            for (int v = 0; v < stage[f]; v++)
                if (v != *stage_field(&a->stage[i], f))
                    c[n++] = (struct change){ SET_STAGE, i, f, v };
    for (int i = 0; i < a->n && a->n > 1; i++)
        c[n++] = (struct change){ REMOVE, i, 0, 0 };
    for (int i = 0; i <= a->n && a->n < MAX_STAGES; i++)
        c[n++] = (struct change){ INSERT, i, 0, INSERT_DRAWN };
    assert(n <= MAX_CHANGES);
    return n;
}

#define N_STAGES (BOP_COUNT * N_WIDTHS * N_KERNELS * MAX_REPEAT * POOL_COUNT * 2) /* different ones */

static struct stage stage_number(int i)
{
    struct stage s;
    s.op = i % BOP_COUNT, i /= BOP_COUNT;
    s.width = i % N_WIDTHS, i /= N_WIDTHS;
    s.kernel = i % N_KERNELS, i /= N_KERNELS;
    s.repeat = i % MAX_REPEAT, i /= MAX_REPEAT;
    s.pool = i % POOL_COUNT, i /= POOL_COUNT;
    s.skip = i;
    return s;
}

static void apply(struct chain *a, const struct change *c, struct rng *r)
{
    size_t tail;
    switch (c->kind) {
    case SET_WHOLE:
        *whole_field(a, c->field) = c->value;
        break;
    case SET_STAGE:
        *stage_field(&a->stage[c->at], c->field) = c->value;
        break;
    case REMOVE:
        tail = (size_t)(a->n - c->at - 1) * sizeof *a->stage;
        memmove(&a->stage[c->at], &a->stage[c->at + 1], tail);
        a->n--;
        break;
    case INSERT:
        tail = (size_t)(a->n - c->at) * sizeof *a->stage;
        memmove(&a->stage[c->at + 1], &a->stage[c->at], tail);
        a->stage[c->at] = c->value == INSERT_DRAWN ? draw_stage(r) : stage_number(c->value);
        a->n++;
        break;
    }
}

/* A canonical parent, its text again and its cost. */
static struct cost read_parent(const char *parent, struct chain *a, char *text)
{
    int rc = read_chain(parent, a, NULL);
    assert(rc == 0); /* the contract: a parent is canonical */
    canonical(a);
    print(a, text);
    return cost_at_28(a);
}

/* Is a child of this cost proposed? A parent beyond the caps may have children up to its own size. */
static bool affordable(const struct cost *k, const struct cost *own)
{
    return (k->macs <= CAP_MACS || k->macs <= own->macs) && (k->params <= CAP_PARAMS || k->params <= own->params);
}

/* Apply the change; false where it gives the parent again, or too large a network. */
static bool child_of(const struct chain *a, const char *from, const struct cost *own, const struct change *c, struct rng *r, char *text)
{
    struct chain b = *a;
    apply(&b, c, r);
    struct cost k = cost_at_28(&b);
    canonical(&b);
    print(&b, text);
    return strcmp(from, text) != 0 && affordable(&k, own);
}

/* Changes are drawn without replacement until one gives another network within the caps. One always does: the other
 * activation costs the same. */
static void mutate(const struct space *s, struct rng *r, const char *parent, char *text)
{
    (void)s;
    struct chain  a;
    struct change c[MAX_CHANGES];
    char          from[ARCH_TEXT_MAX];
    struct cost   own = read_parent(parent, &a, from);
    for (int n = list_changes(&a, c); n > 0; n--) {
        int i = draw(r, n);
        if (child_of(&a, from, &own, &c[i], r, text))
            return;
        c[i] = c[n - 1];
    }
    assert(false && "a chain without a neighbour");
}

static int neighbours(const struct space *s, const char *parent, struct arch_list *out, struct errbuf *e)
{
    (void)s;
    struct chain  a;
    struct change c[MAX_CHANGES];
    char          from[ARCH_TEXT_MAX], text[ARCH_TEXT_MAX];
    struct cost   own = read_parent(parent, &a, from);
    int           rc = 0;
    for (int i = list_changes(&a, c) - 1; i >= 0 && rc == 0; i--)
        for (int v = c[i].kind == INSERT ? N_STAGES - 1 : 0; v >= 0 && rc == 0; v--) {
            c[i].value = c[i].kind == INSERT ? v : c[i].value;
            if (child_of(&a, from, &own, &c[i], NULL, text))
                rc = arch_list_add(out, text, e);
        }
    arch_list_sort(out);
    return rc;
}

/* The number of stages is a choice too; a stage that only one parent has comes from that one. All of one parent is among the
 * combinations, so the loop ends. */
static void crossover(const struct space *s, struct rng *r, const char *one, const char *other, char *text)
{
    (void)s;
    struct chain p[2], child;
    struct cost  own[2], k;
    for (int i = 0; i < 2; i++)
        own[i] = read_parent(i ? other : one, &p[i], text);
    struct cost most = { own[own[1].macs > own[0].macs].macs, own[own[1].params > own[0].params].params };
    do {
        for (int f = 0; f < 6; f++)
            *whole_field(&child, f) = *whole_field(&p[draw(r, 2)], f);
        child.n = p[draw(r, 2)].n;
        for (int i = 0; i < child.n; i++)
            child.stage[i] = p[i >= p[0].n ? 1 : i >= p[1].n ? 0 : draw(r, 2)].stage[i];
        k = cost_at_28(&child);
    } while (!affordable(&k, &most));
    canonical(&child);
    print(&child, text);
}

/* ---- building ---- */

struct builder {
    struct net         *n;
    const struct chain *a;
    struct errbuf      *e;
    char                path[48]; /* of the block at work */
};

static const char *sub(const struct builder *b, char *buf, size_t cap, const char *what)
{
    snprintf(buf, cap, "%s.%s", b->path, what);
    return buf;
}

static int add_conv(struct builder *b, int x, int out, int k, int stride, int groups, const char *what)
{
    char path[56];
    return net_add(b->n, NET_CONV, &x, 1,
                   &(struct net_attr){ .out = out, .k = k, .stride = stride, .pad = k / 2, .groups = groups,
                                       .wn = b->a->norm == NORM_WEIGHT },
                   sub(b, path, sizeof path, what), b->e);
}

static int add_norm(struct builder *b, int x, const char *what)
{
    char path[56];
    return net_bn(b->n, x, b->a->norm != NORM_BN, sub(b, path, sizeof path, what), b->e);
}

static int add_act(struct builder *b, int x, const char *what)
{
    char path[56];
    return net_lrelu(b->n, x, b->a->act ? 0.1 : 0, sub(b, path, sizeof path, what), b->e);
}

/* Is there room to halve? */
static bool roomy(const struct builder *b, int x)
{
    return x >= 0 && b->n->node[x].shape.h >= 4 && b->n->node[x].shape.w >= 4;
}

static int add_pool(struct builder *b, int x, int pool)
{
    char path[56];
    if ((pool != POOL_MAX && pool != POOL_AVG) || !roomy(b, x))
        return x;
    return net_pool(b->n, pool == POOL_MAX ? NET_MAXPOOL : NET_AVGPOOL, x, 2, 2, 0, sub(b, path, sizeof path, "pool"), b->e);
}

static int add_block(struct builder *b, int x, const struct block *k)
{
    char path[56];
    int  w = widths[k->width], mid = neck_width(w), kk = kernels[k->kernel];
    x = add_pool(b, x, k->pool);
    int in = x, stride = k->pool == POOL_STRIDE && roomy(b, x) ? 2 : 1;
    if (k->op == BOP_SEP) {
        int c = x >= 0 ? b->n->node[x].shape.c : 1;
        x = add_conv(b, add_conv(b, x, c, kk, stride, c, "dw"), w, 1, 1, 1, "pw");
    } else if (k->op == BOP_NECK) {
        x = add_act(b, add_norm(b, add_conv(b, x, mid, 1, 1, 1, "reduce"), "bn1"), "act1");
        x = add_act(b, add_norm(b, add_conv(b, x, mid, kk, stride, 1, "conv"), "bn2"), "act2");
        x = add_conv(b, x, w, 1, 1, 1, "expand");
    } else {
        x = add_conv(b, x, w, kk, stride, 1, "conv");
    }
    x = add_norm(b, x, "bn");
    if (k->skip)
        x = net_add2(b->n, in, x, sub(b, path, sizeof path, "add"), b->e);
    return add_act(b, x, "act");
}

static int add_head(struct builder *b, int x, int n_classes)
{
    int head = b->a->head;
    if (x < 0)
        return x;
    if (head == HEAD_GAP) {
        x = net_unary(b->n, NET_GAP, x, "head.gap", b->e);
    } else {
        const struct net_shape *s = &b->n->node[x].shape;
        int side = s->h > s->w ? s->h : s->w, k = (side + head_side[head] - 1) / head_side[head];
        k = k > s->h ? s->h : k > s->w ? s->w : k;
        if (k > 1)
            x = net_pool(b->n, NET_AVGPOOL, x, k, k, 0, "head.pool", b->e);
        x = net_unary(b->n, NET_FLATTEN, x, "head.flatten", b->e);
    }
    if (head_hidden[head]) {
        x = net_add(b->n, NET_LINEAR, &x, 1,
                    &(struct net_attr){ .out = head_hidden[head], .bias = true, .wn = b->a->norm == NORM_WEIGHT }, "head.fc", b->e);
        x = net_lrelu(b->n, x, b->a->act ? 0.1 : 0, "head.act", b->e);
    }
    return net_linear(b->n, x, n_classes, "head.linear", b->e);
}

static int build(const struct space *s, const char *text, const struct arch_frame *f, struct net *out, struct errbuf *e)
{
    (void)s;
    struct chain a;
    struct block blocks[MAX_BLOCKS];
    int in = read_chain(text, &a, e);
    if (in < 0)
        return in;
    in = space_input(out, f, e);
    canonical(&a);
    struct builder b = { out, &a, e, "stem" };
    int n = spread(&a, blocks);
    int x = add_conv(&b, in, widths[a.stem_width], kernels[a.stem_kernel], a.stem_pool == POOL_STRIDE && roomy(&b, in) ? 2 : 1, 1, "conv");
    x = add_pool(&b, add_act(&b, add_norm(&b, x, "bn"), "act"), a.stem_pool);
    for (int i = 0; i < n; i++) {
        snprintf(b.path, sizeof b.path, "block%d", i + 1);
        x = add_block(&b, x, &blocks[i]);
    }
    if ((x = add_head(&b, x, f->n_classes)) < 0) {
        net_fini(out);
        return x;
    }
    if (f->c == 1 && f->h == 28 && f->w == 28 && f->n_classes == 10 && in == 0) {
        struct cost k = cost_at_28(&a);
        assert(k.macs == net_macs(out) && k.params == out->param_count);
    }
    return 0;
}

const struct space space_chain = {
    .name = "chain",
    .about = "stacks of convolution blocks for small images",
    .size = 6.0 * 24 * 4 * (672.0 + 672.0 * 672 + 672.0 * 672 * 672 + 672.0 * 672 * 672 * 672),
    .random = random_chain,
    .mutate = mutate,
    .crossover = crossover,
    .neighbours = neighbours,
    .canon = canon,
    .build = build,
};
