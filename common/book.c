/* book.c - one table says what a row's columns are, how each is written and read. */
#include "common/book.h"

#include "common/csv.h"
#include "common/score_column.h"

#include <ctype.h>
#include <math.h>
#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void book_fidelity(const struct fidelity *f, uint32_t zero_cost, char out[BOOK_FIDELITY_MAX])
{
    size_t n = (size_t)snprintf(out, BOOK_FIDELITY_MAX, "steps=%d inits=%d valid_images=%d", f->steps, f->inits, f->valid_images);
    for (int i = 0; i < f->n_checkpoints; i++)
        n += (size_t)snprintf(out + n, BOOK_FIDELITY_MAX - n, "%s%d", i ? "," : " checkpoints=", f->checkpoint[i]);
    for (int i = 0; i < f->n_lr_scales; i++)
        n += (size_t)snprintf(out + n, BOOK_FIDELITY_MAX - n, "%s%.17g", i ? "," : " lr_scales=", f->lr_scale[i]);
    const struct { const char *key; int value; } proxy[] = { /* the space's own skeleton has the key that it had before there were others */
        { "channels", f->proxy.channels }, { "cells", f->proxy.cells }, { "downsample", f->proxy.downsample > 1 ? f->proxy.downsample : 0 },
    };
    for (size_t i = 0; i < sizeof proxy / sizeof *proxy; i++)
        if (proxy[i].value)
            n += (size_t)snprintf(out + n, BOOK_FIDELITY_MAX - n, " %s=%d", proxy[i].key, proxy[i].value);
    if (f->first_init)
        n += (size_t)snprintf(out + n, BOOK_FIDELITY_MAX - n, " first_init=%d", f->first_init);
    for (int i = 0, k = 0; i < ZC_COUNT; i++)
        if (zero_cost >> i & 1)
            n += (size_t)snprintf(out + n, BOOK_FIDELITY_MAX - n, "%s%s", k++ ? "," : " zero_cost=", zero_cost_table[i].name);
}

void book_key(const struct book_row *b, char hex[BOOK_KEY_LEN + 1])
{
    unsigned char digest[BOOK_KEY_LEN / 2];
    char          text[BOOK_FIDELITY_MAX + 2 * sizeof(hash_str) + 2 * sizeof(name_str) + ARCH_HASH_LEN + 64];
    int n = snprintf(text, sizeof text, "%s\n%s\n%s\n%s\n%s\n%llu\n%s", b->space, b->arch_hash, b->dataset, b->curriculum, b->fidelity,
                     (unsigned long long)b->seed, b->engine);
    crypto_generichash(digest, sizeof digest, (const unsigned char *)text, (unsigned long long)n, NULL, 0);
    sodium_bin2hex(hex, BOOK_KEY_LEN + 1, digest, sizeof digest);
}

bool book_keeps(const struct trial_result *r)
{
    return r->state == TRIAL_SCORED || (r->state == TRIAL_FAILED && r->reason == FAIL_NAN);
}

static bool same_reals(const double *a, const double *b, int n) { return memcmp(a, b, (size_t)n * sizeof *a) == 0; }

bool book_same(const struct trial_result *a, const struct trial_result *b)
{
    return a->state == b->state && a->reason == b->reason && same_reals(&a->score, &b->score, 1) && same_reals(&a->score_se, &b->score_se, 1) &&
           a->n_inits == b->n_inits && same_reals(a->init_score, b->init_score, a->n_inits) && a->n_checkpoints == b->n_checkpoints &&
           memcmp(a->checkpoint, b->checkpoint, (size_t)a->n_checkpoints * sizeof *a->checkpoint) == 0 &&
           same_reals(a->checkpoint_score, b->checkpoint_score, a->n_checkpoints) && same_reals(&a->loss_sum, &b->loss_sum, 1) &&
           same_reals(&a->lr_scale, &b->lr_scale, 1) && a->params == b->params && a->macs == b->macs &&
           a->zero_cost.known == b->zero_cost.known && same_reals(a->zero_cost.value, b->zero_cost.value, ZC_COUNT);
}

/* ---- columns ---- */

enum form { TEXT, U64, REAL, STATE, REASON, INITS, STEPS, STEP_SCORES, ZERO_COST };
#define AT(f) offsetof(struct book_row, f)
#define R(f) offsetof(struct book_row, r.f)
#define MEMBER(f) sizeof(((struct book_row *)0)->f)

/* room: of a text, with its end. Columns are forever: add at the end. */
static const struct { const char *name; enum form form; size_t at, room; } fixed[] = {
    { "space", TEXT, AT(space), MEMBER(space) },
    { "arch", TEXT, AT(arch), MEMBER(arch) },
    { "arch_hash", TEXT, AT(arch_hash), MEMBER(arch_hash) },
    { "dataset", TEXT, AT(dataset), MEMBER(dataset) },
    { "curriculum", TEXT, AT(curriculum), MEMBER(curriculum) },
    { "fidelity", TEXT, AT(fidelity), MEMBER(fidelity) },
    { "seed", U64, AT(seed), 0 },
    { "engine", TEXT, AT(engine), MEMBER(engine) },
    { "state", STATE, 0, 0 },
    { "reason", REASON, 0, 0 },
    { "detail", TEXT, R(detail), MEMBER(r.detail) },
    { "score", REAL, R(score), 0 },
    { "score_se", REAL, R(score_se), 0 },
    { "init_scores", INITS, 0, 0 },
    { "checkpoints", STEPS, 0, 0 },
    { "checkpoint_scores", STEP_SCORES, 0, 0 },
    { "loss_sum", REAL, R(loss_sum), 0 },
    { "lr_scale", REAL, R(lr_scale), 0 },
    { "params", U64, R(params), 0 },
    { "macs", U64, R(macs), 0 },
};
enum { N_FIXED = sizeof fixed / sizeof fixed[0], SECONDS = N_FIXED + ZC_COUNT, LATENCY, N_COLUMNS };
_Static_assert(N_COLUMNS <= BOOK_MAX_COLUMNS, "a row has room for every column");

static const char *column_name(int i)
{
    return i < N_FIXED ? fixed[i].name : i < SECONDS ? zero_cost_table[i - N_FIXED].name : i == SECONDS ? "seconds" : "latency_ms";
}

void book_write_header(FILE *f, unsigned measured)
{
    for (int i = 0; i < N_COLUMNS; i++)
        if (i < SECONDS || measured & (i == SECONDS ? BOOK_SECONDS : BOOK_LATENCY))
            fprintf(f, "%s%s", i ? "," : "", column_name(i));
    fputc('\n', f);
}

static void write_reals(FILE *f, const double *v, int n)
{
    for (int i = 0; i < n; i++)
        fprintf(f, "%s%.17g", i ? " " : "", v[i]);
}

static void write_fixed(FILE *f, const struct book_row *b, int i)
{
    const void *at = (const char *)b + fixed[i].at;
    const struct trial_result *r = &b->r;
    switch (fixed[i].form) {
    case TEXT:  csv_put(f, at); break;
    case U64:   fprintf(f, "%llu", (unsigned long long)*(const uint64_t *)at); break;
    case STATE: fputs(trial_state_name(r->state), f); break;
    case REASON:
        if (r->reason != FAIL_NONE)
            fputs(fail_reason_name(r->reason), f);
        break;
    case REAL:
        if (r->state == TRIAL_SCORED && b->curriculum[0])
            fprintf(f, "%.17g", *(const double *)at);
        break;
    case INITS: write_reals(f, r->init_score, r->n_inits); break;
    case STEPS:
        for (int k = 0; k < r->n_checkpoints; k++)
            fprintf(f, "%s%d", k ? " " : "", r->checkpoint[k]);
        break;
    default: write_reals(f, r->checkpoint_score, r->n_checkpoints); break;
    }
}

void book_write_row(FILE *f, const struct book_row *b, unsigned measured)
{
    for (int i = 0; i < N_FIXED; i++) {
        if (i)
            fputc(',', f);
        write_fixed(f, b, i);
    }
    for (int i = 0; i < ZC_COUNT; i++)
        b->r.zero_cost.known >> i & 1 ? fprintf(f, ",%.17g", b->r.zero_cost.value[i]) : fputc(',', f);
    if (measured & BOOK_SECONDS)
        fprintf(f, ",%.6g", b->r.seconds);
    if (measured & BOOK_LATENCY)
        b->r.latency_ms > 0 ? fprintf(f, ",%.6g", b->r.latency_ms) : fputc(',', f);
    fputc('\n', f);
}

/* ---- reading ---- */

int book_read_header(char *line, struct book_columns *c, struct errbuf *e)
{
    char *field[BOOK_MAX_COLUMNS];
    bool  seen[N_COLUMNS] = { false };
    c->n = csv_split(line, field, BOOK_MAX_COLUMNS);
    if (c->n < 1 || c->n > BOOK_MAX_COLUMNS)
        return err_set(e, ERR_INPUT, "the first line is not a list of columns");
    for (int k = 0; k < c->n; k++) {
        int i = 0;
        while (i < N_COLUMNS && strcmp(column_name(i), field[k]) != 0)
            i++;
        if (i == N_COLUMNS || seen[i])
            return err_set(e, ERR_INPUT, "column \"%.40s\" is %s", field[k], i < N_COLUMNS ? "there twice" : "not known");
        c->of[k] = i;
        seen[i] = true;
    }
    for (int i = 0; i < N_FIXED; i++)
        if (!seen[i])
            return err_set(e, ERR_INPUT, "column \"%s\" is missing", column_name(i));
    return 0;
}

static bool read_real(const char *s, double *out)
{
    char *end;
    *out = strtod(s, &end);
    return end != s && !*end && isfinite(*out);
}

static bool read_u64(const char *s, uint64_t *out)
{
    char *end;
    *out = strtoull(s, &end, 10);
    return isdigit((unsigned char)*s) && !*end;
}

/* Finite numbers with one blank between them; how many, or -1. */
static int read_reals(const char *s, double *v, int cap)
{
    int n = 0;
    while (*s) {
        char *end;
        if (n == cap)
            return -1;
        v[n] = strtod(s, &end);
        if (end == s || !isfinite(v[n++]) || (*end && *end++ != ' '))
            return -1;
        s = end;
    }
    return n;
}

static bool read_steps(const char *s, struct trial_result *r)
{
    double v[MAX_CHECKPOINTS];
    int n = read_reals(s, v, MAX_CHECKPOINTS);
    for (int i = 0; i < n; i++) {
        if (!(v[i] >= 0 && v[i] <= 1e6))
            return false;
        r->checkpoint[i] = (int)v[i];
    }
    r->n_checkpoints = n;
    return n >= 0;
}

static bool read_fixed(struct book_row *b, int i, const char *s, int *n_scores, bool *empty)
{
    void *at = (char *)b + fixed[i].at;
    int word;
    switch (fixed[i].form) {
    case TEXT:
        if (strlen(s) >= fixed[i].room)
            return false;
        memcpy(at, s, strlen(s) + 1);
        return true;
    case U64: return read_u64(s, at);
    case REAL: *empty |= !*s; return !*s || read_real(s, at);
    case STATE:
        word = trial_state_from(s);
        b->r.state = (enum trial_state)word;
        return word == TRIAL_SCORED || word == TRIAL_FAILED;
    case REASON:
        word = *s ? fail_reason_from(s) : FAIL_NONE;
        b->r.reason = (enum fail_reason)word;
        return word >= 0;
    case INITS: return (b->r.n_inits = read_reals(s, b->r.init_score, MAX_INITS)) >= 0;
    case STEPS: return read_steps(s, &b->r);
    default:    return (*n_scores = read_reals(s, b->r.checkpoint_score, MAX_CHECKPOINTS)) >= 0;
    }
}

static bool read_zero_cost(struct zero_cost_scores *z, int i, const char *s)
{
    if (!*s)
        return true;
    z->known |= 1u << i;
    return read_real(s, &z->value[i]);
}

int book_read_row(const struct book_columns *c, char *line, struct book_row *out, struct errbuf *e)
{
    char *field[BOOK_MAX_COLUMNS];
    int n = csv_split(line, field, BOOK_MAX_COLUMNS), n_scores = 0;
    bool empty = false;
    memset(out, 0, sizeof *out);
    if (n != c->n)
        return err_set(e, ERR_INPUT, n < 0 ? "a quote does not close" : "%d columns, the first line has %d", n, c->n);
    for (int k = 0; k < n; k++) {
        const int i = c->of[k];
        bool ok = i < N_FIXED ? read_fixed(out, i, field[k], &n_scores, &empty)
                : i < SECONDS ? read_zero_cost(&out->r.zero_cost, i - N_FIXED, field[k])
                : i == SECONDS ? read_real(field[k], &out->r.seconds)
                : !*field[k] || (read_real(field[k], &out->r.latency_ms) && out->r.latency_ms >= 0);
        if (!ok)
            return err_set(e, ERR_INPUT, "%s: \"%.60s\" is not valid", column_name(i), field[k]);
    }
    if (n_scores != out->r.n_checkpoints)
        return err_set(e, ERR_INPUT, "%d checkpoints but %d scores of them", out->r.n_checkpoints, n_scores);
    if (empty && out->r.state == TRIAL_SCORED && out->curriculum[0])
        return err_set(e, ERR_INPUT, "a row that is scored lacks score, score_se, loss_sum or lr_scale");
    if ((out->r.state == TRIAL_FAILED) != (out->r.reason != FAIL_NONE))
        return err_set(e, ERR_INPUT, "reason \"%s\" does not go with state %s", fail_reason_name(out->r.reason), trial_state_name(out->r.state));
    return 0;
}
