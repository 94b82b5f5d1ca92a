/* book_check.c - whether a row can be what a worker says: its numbers follow from one another and from its fidelity. */
#include "common/book.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the fidelity's text, taken apart ---- */

#define F(member) offsetof(struct fidelity, member)
static const struct { const char *key; size_t at; } whole[] = {
    { "steps", F(steps) },           { "inits", F(inits) },       { "valid_images", F(valid_images) },   { "first_init", F(first_init) },
    { "channels", F(proxy.channels) }, { "cells", F(proxy.cells) }, { "downsample", F(proxy.downsample) },
};

static bool read_int(const char *s, size_t len, int *out)
{
    char *end;
    long v = strtol(s, &end, 10);
    *out = (int)v;
    return len > 0 && end == s + len && v >= 0 && v <= 1000000000;
}
static bool read_real(const char *s, size_t len, double *out)
{
    char *end;
    *out = strtod(s, &end);
    return len > 0 && end == s + len && isfinite(*out);
}
static bool read_zero_cost(const char *s, size_t len, uint32_t *known)
{
    for (int i = 0; i < ZC_COUNT; i++)
        if (strlen(zero_cost_table[i].name) == len && strncmp(s, zero_cost_table[i].name, len) == 0) {
            *known |= 1u << i;
            return true;
        }
    return false;
}

static bool read_member(struct fidelity *f, uint32_t *zero_cost, const char *key, size_t key_len, const char *s, size_t len)
{
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        if (strlen(whole[i].key) == key_len && strncmp(key, whole[i].key, key_len) == 0)
            return read_int(s, len, (int *)((char *)f + whole[i].at));
    for (size_t n; len > 0; s += n, len -= n) { /* a list */
        n = strcspn(s, ", ");
        n = n > len ? len : n;
        bool ok = key_len == 9 && strncmp(key, "zero_cost", 9) == 0 ? read_zero_cost(s, n, zero_cost)
                : key_len == 11 && strncmp(key, "checkpoints", 11) == 0 ? f->n_checkpoints < MAX_CHECKPOINTS && read_int(s, n, &f->checkpoint[f->n_checkpoints++])
                : key_len == 9 && strncmp(key, "lr_scales", 9) == 0 ? f->n_lr_scales < MAX_SCALES && read_real(s, n, &f->lr_scale[f->n_lr_scales++]) : false;
        if (!ok)
            return false;
        n += n < len; /* the comma */
    }
    return true;
}

bool book_fidelity_read(const char *text, struct fidelity *f, uint32_t *zero_cost)
{
    char again[BOOK_FIDELITY_MAX];
    memset(f, 0, sizeof *f);
    *zero_cost = 0;
    for (const char *p = text; *p;) {
        const size_t key = strcspn(p, "= "), end = strcspn(p, " ");
        if (p[key] != '=' || !read_member(f, zero_cost, p, key, p + key + 1, end - key - 1))
            return false;
        p += end + (p[end] == ' ');
    }
    book_fidelity(f, *zero_cost, again);
    return strcmp(again, text) == 0; /* one text for one fidelity: rows are found by it */
}

/* ---- the numbers ---- */

static bool is_engine(const char *s)
{
    const size_t digits = strspn(s, "0123456789"), rest = s[digits] == '/' ? strspn(s + digits + 1, "abcdefghijklmnopqrstuvwxyz0123456789-") : 0;
    return digits > 0 && (s[digits] == '\0' || (rest > 0 && s[digits + 1 + rest] == '\0'));
}

/* Of equal numbers, whatever order they were added in. */
static bool near(double a, double b) { return fabs(a - b) <= 1e-9 * fmax(1, fabs(b)); }

static int scored(const struct trial_result *r, const struct fidelity *f, struct errbuf *e)
{
    double mean = 0, var = 0;
    if (r->n_inits != f->inits)
        return err_set(e, ERR_INPUT, "init_scores: %d, but the fidelity has %d", r->n_inits, f->inits);
    for (int i = 0; i < r->n_inits; i++)
        mean += r->init_score[i] / r->n_inits;
    for (int i = 0; i < r->n_inits; i++) {
        var += (r->init_score[i] - mean) * (r->init_score[i] - mean);
        if (!(r->init_score[i] >= 0 && r->init_score[i] <= 1))
            return err_set(e, ERR_INPUT, "init_scores: %g is no accuracy", r->init_score[i]);
    }
    if (!near(r->score, mean))
        return err_set(e, ERR_INPUT, "score: %.17g, but the mean of init_scores is %.17g", r->score, mean);
    if (!near(r->score_se, r->n_inits > 1 ? sqrt(var / (r->n_inits - 1) / r->n_inits) : 0))
        return err_set(e, ERR_INPUT, "score_se: %.17g is not the standard error of init_scores", r->score_se);
    if (r->n_checkpoints != f->n_checkpoints || memcmp(r->checkpoint, f->checkpoint, (size_t)f->n_checkpoints * sizeof f->checkpoint[0]) != 0)
        return err_set(e, ERR_INPUT, "checkpoints: not those of the fidelity");
    for (int i = 0; i < r->n_checkpoints; i++)
        if (!(r->checkpoint_score[i] >= 0 && r->checkpoint_score[i] <= 1))
            return err_set(e, ERR_INPUT, "checkpoint_scores: %g is no accuracy", r->checkpoint_score[i]);
    if (!(r->loss_sum >= 0))
        return err_set(e, ERR_INPUT, "loss_sum: %g is below 0", r->loss_sum);
    bool one_of = f->n_lr_scales == 0 && r->lr_scale == 1;
    for (int i = 0; i < f->n_lr_scales; i++)
        one_of = one_of || r->lr_scale == f->lr_scale[i];
    return one_of ? 0 : err_set(e, ERR_INPUT, "lr_scale: %g is not in the fidelity", r->lr_scale);
}

int book_check(const struct book_row *b, struct fidelity *f, struct errbuf *e)
{
    const struct trial_result *r = &b->r;
    uint32_t zero_cost;
    if (!book_fidelity_read(b->fidelity, f, &zero_cost) || f->steps < 1 || f->inits < 1 || f->inits > MAX_INITS || f->first_init > MAX_INITS - f->inits)
        return err_set(e, ERR_INPUT, "fidelity: \"%.80s\" is none", b->fidelity);
    if (!is_engine(b->engine))
        return err_set(e, ERR_INPUT, "engine: \"%.40s\" is no version of one", b->engine);
    if (!book_keeps(r))
        return err_set(e, ERR_INPUT, "reason: what failed with %s is no fact about the architecture", fail_reason_name(r->reason));
    if (r->params < 1 || r->macs < 1)
        return err_set(e, ERR_INPUT, "%s: a network has some", r->params ? "macs" : "params");
    if (r->zero_cost.known & ~zero_cost)
        return err_set(e, ERR_INPUT, "zero-cost scores that the fidelity does not ask for");
    return r->state == TRIAL_SCORED ? scored(r, f, e) : 0;
}
