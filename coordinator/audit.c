#include "coordinator/audit.h"

#include "common/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STOP_REASON "its audit: " /* how the reason of a job begins that it ended */

struct audit {
    struct audit_cfg cfg;
    uint64_t seed;
    uint64_t window;
    struct audit_item **early;  /* [window] candidate i at i % window: ended, and one before it has not. Owned */
    uint64_t cursor;            /* candidates below were looked at, in order */
    uint64_t place;             /* in the block of `cursor`: audited from here on */
    bool     settled;           /* that block has its item */
    struct audit_item *item;    /* [max] */
    int      n, decided;        /* decided: trainings of items below have ended and were counted in the verdict */
    enum audit_state state;
    struct estimate rho, stop_rho; /* of the last verdict; of the one that ends the search */
    int      rho_n, stop_n;
    uint64_t stop_at;
    struct { int n; double seconds; } took[2]; /* trainings that have ended, and controls */
    bool     summed;            /* `sum` is of what is known now */
    struct audit_summary sum;
};

const char *audit_state_name(enum audit_state s)
{
    static const char *const names[AUDIT_STATE_COUNT] = { "few", "fine", "low" };
    return s < AUDIT_STATE_COUNT ? names[s] : "?";
}

void audit_plan(struct audit_cfg *a, int trials, int window, double train_cost, double control_cost)
{
    /* n items cost n (train + control), the candidates `trials`: n is such that this is the share of the whole. */
    double n = a->share / (1 - a->share) * trials / (train_cost + control_cost), most = a->max < trials ? a->max : trials;
    n = n < a->min ? a->min : n;
    n = n > most ? most : n;
    a->every = n >= 1 ? (int)(trials / n) : trials;
    /* While a training lasts, up to `window` slots score: so far ahead they may run before anything has to wait. */
    double lag = window * (1 + ceil(train_cost));
    a->lag = lag < 1e8 ? (int)lag : 100000000;
}

int audit_open(struct audit **out, const struct job_spec *spec, struct errbuf *e)
{
    *out = NULL;
    if (spec->audit.share <= 0 || spec->audit.every < 1)
        return 0;
    struct audit *a = calloc(1, sizeof *a);
    if (a) {
        a->cfg = spec->audit;
        a->seed = spec->seed;
        a->window = spec->window > 0 ? (uint64_t)spec->window : 1;
        a->stop_at = UINT64_MAX;
        a->rho = (struct estimate){ NAN, NAN, NAN };
        a->early = calloc(a->window, sizeof *a->early);
        a->item = calloc((size_t)a->cfg.max, sizeof *a->item);
    }
    if (!a || !a->early || !a->item) {
        audit_close(a);
        return err_set(e, ERR_NOMEM, "audit");
    }
    *out = a;
    return 0;
}

void audit_close(struct audit *a)
{
    if (!a)
        return;
    for (uint64_t i = 0; a->early && i < a->window; i++)
        free(a->early[i]);
    free(a->early);
    free(a->item);
    free(a);
}

/* ---- choosing ---- */
static bool was_chosen(const struct audit *a, const char *hash)
{
    for (int i = 0; i < a->n; i++)
        if (strcmp(a->item[i].hash, hash) == 0)
            return true;
    return false;
}

/* Candidate `cursor` is known: is it the one? */
static void look(struct audit *a, const struct audit_item *c)
{
    uint64_t every = (uint64_t)a->cfg.every, block = a->cursor / every;
    if (a->cursor % every == 0) {
        struct rng r;
        rng_init(&r, a->seed, RNG_SAMPLE, 1 + block);
        a->place = block * every + rng_below(&r, (uint32_t)every);
        a->settled = false;
    }
    if (!a->settled && a->cursor >= a->place && isfinite(c->score) && a->n < a->cfg.max && !was_chosen(a, c->hash)) {
        a->item[a->n++] = *c;
        a->settled = true;
        a->summed = false;
    }
    a->cursor++;
}

int audit_saw(struct audit *a, const struct trial_row *row)
{
    if (row->idx < a->cursor || row->idx >= a->cursor + a->window || a->early[row->idx % a->window])
        return 0; /* seen before */
    struct audit_item *c = calloc(1, sizeof *c);
    if (!c)
        return -ERR_NOMEM;
    *c = (struct audit_item){ .idx = row->idx, .seed = row->seed, .params = row->r.params, .macs = row->r.macs, .real = NAN, .control = NAN,
                              .score = NAN };
    if (row->state == TRIAL_SCORED && !row->told_failed && row->rung == 0)
        c->score = row->r.score;
    memcpy(c->arch, row->arch, sizeof c->arch);
    memcpy(c->hash, row->arch_hash, sizeof c->hash);
    a->early[row->idx % a->window] = c;
    while ((c = a->early[a->cursor % a->window])) {
        a->early[a->cursor % a->window] = NULL;
        look(a, c);
        free(c);
    }
    return 0;
}

int audit_n(const struct audit *a) { return a->n; }
const struct audit_item *audit_at(const struct audit *a, int i) { return &a->item[i]; }

int audit_find(const struct audit *a, uint64_t trial)
{
    uint64_t idx = trial >= TRIAL_CONTROL ? trial - TRIAL_CONTROL : trial - TRIAL_AUDIT;
    for (int low = 0, high = a->n - 1; low <= high;) { /* chosen in order */
        int mid = (low + high) / 2;
        if (a->item[mid].idx == idx)
            return mid;
        if (a->item[mid].idx < idx)
            low = mid + 1;
        else
            high = mid - 1;
    }
    return -1;
}

void audit_row(const struct audit *a, int i, bool control, struct trial_row *out)
{
    const struct audit_item *c = &a->item[i];
    memset(out, 0, sizeof *out);
    out->idx = c->idx + (control ? TRIAL_CONTROL : TRIAL_AUDIT);
    out->state = TRIAL_WAITING;
    out->parent = (int64_t)c->idx;
    out->group = control ? GROUP_CONTROL : GROUP_AUDIT;
    out->proxy = c->score;
    out->seed = c->seed;
    out->r.params = c->params;
    out->r.macs = c->macs;
    memcpy(out->arch, c->arch, sizeof out->arch);
    memcpy(out->arch_hash, c->hash, sizeof out->arch_hash);
}

/* ---- judging ---- */
enum column { COL_SCORE, COL_PARAMS, COL_CONTROL };

/* One column against real accuracy over the first `items`; *n: networks that have both. */
static int correlate(const struct audit *a, int items, enum column col, struct estimate *out, int *n)
{
    double *x = calloc(2 * (size_t)items + 1, sizeof *x), *y = x + items;
    *n = 0;
    if (!x)
        return -ERR_NOMEM;
    for (int i = 0; i < items; i++) {
        const struct audit_item *c = &a->item[i];
        double v = col == COL_SCORE ? c->score : col == COL_PARAMS ? (double)c->params : c->control;
        if (isfinite(c->real) && isfinite(v)) {
            x[*n] = v;
            y[(*n)++] = c->real;
        }
    }
    int rc = rank_interval(RANK_SPEARMAN, x, y, *n, a->seed, out);
    free(x);
    return rc;
}

static enum audit_state judge(const struct audit *a, const struct estimate *rho, int n)
{
    return n < a->cfg.min || !isfinite(rho->high) ? AUDIT_FEW : rho->high < a->cfg.floor ? AUDIT_LOW : AUDIT_FINE;
}

/* The trainings that have ended, in order: a verdict after each. */
static bool decide(struct audit *a)
{
    enum audit_state before = a->state;
    while (a->decided < a->n && a->item[a->decided].trained) {
        struct estimate rho;
        int n;
        if (correlate(a, a->decided + 1, COL_SCORE, &rho, &n) < 0)
            break; /* the next training tries again */
        a->decided++;
        a->rho = rho;
        a->rho_n = n;
        a->state = judge(a, &rho, n);
        if (a->state == AUDIT_LOW && a->cfg.action == AUDIT_STOP && a->stop_at == UINT64_MAX) {
            a->stop_at = a->item[a->decided - 1].idx + (uint64_t)a->cfg.lag;
            a->stop_rho = rho;
            a->stop_n = n;
        }
    }
    return (before == AUDIT_LOW) != (a->state == AUDIT_LOW);
}

static void note_result(struct audit *a, const struct trial_row *row)
{
    int i = audit_find(a, row->idx);
    double v = row->state == TRIAL_SCORED ? row->r.score : NAN;
    bool control = row->idx >= TRIAL_CONTROL;
    if (i < 0)
        return;
    if (isfinite(row->r.seconds)) {
        a->took[control].n++;
        a->took[control].seconds += row->r.seconds;
    }
    if (control) {
        a->item[i].controlled = true;
        a->item[i].control = v;
    } else {
        a->item[i].trained = true;
        a->item[i].real = v;
    }
    a->summed = false;
}

bool audit_ended(struct audit *a, const struct trial_row *row)
{
    note_result(a, row);
    return decide(a);
}

bool audit_lets(const struct audit *a, uint64_t next)
{
    if (a->cfg.action != AUDIT_STOP)
        return true;
    return a->decided == a->n || a->item[a->decided].idx + (uint64_t)a->cfg.lag > next;
}

uint64_t audit_stop_at(const struct audit *a) { return a->stop_at; }

void audit_stop_text(const struct audit *a, char *out, size_t cap)
{
    snprintf(out, cap, STOP_REASON "Spearman %.2f (95 %% %.2f to %.2f) over %d networks is below the floor of %g", a->stop_rho.value,
             a->stop_rho.low, a->stop_rho.high, a->stop_n, a->cfg.floor);
}

bool audit_stopped(const struct job_row *row)
{
    return row->state == JOB_FAILED && strncmp(row->reason, STOP_REASON, strlen(STOP_REASON)) == 0;
}

bool audit_complete(const struct audit *a)
{
    for (int i = 0; i < a->n; i++)
        if (!a->item[i].trained || (a->cfg.control && !a->item[i].controlled))
            return false;
    return true;
}

double audit_seconds_left(const struct audit *a, uint64_t total)
{
    uint64_t blocks = total > a->cursor ? (total - a->cursor) / (uint64_t)a->cfg.every : 0, room = (uint64_t)(a->cfg.max - a->n);
    double to_choose = (double)(blocks < room ? blocks : room), sum = 0;
    for (int control = 0; control <= a->cfg.control; control++) {
        double left = to_choose;
        for (int i = 0; i < a->n; i++)
            left += control ? !a->item[i].controlled : !a->item[i].trained;
        if (left > 0)
            sum += a->took[control].n ? left * a->took[control].seconds / a->took[control].n : NAN;
    }
    return sum;
}

enum audit_state audit_verdict(const struct audit *a, struct estimate *rho, int *n)
{
    *rho = a->rho;
    *n = a->rho_n;
    return a->state;
}

int audit_summarise(struct audit *a, struct audit_summary *out)
{
    int n_params;
    if (a->summed) {
        *out = a->sum;
        return 0;
    }
    memset(out, 0, sizeof *out);
    out->chosen = a->n;
    for (int i = 0; i < a->n; i++) {
        out->trained += a->item[i].trained;
        out->failed += a->item[i].trained && !isfinite(a->item[i].real);
    }
    int rc = correlate(a, a->n, COL_SCORE, &out->score, &out->n);
    rc = rc < 0 ? rc : correlate(a, a->n, COL_PARAMS, &out->params, &n_params);
    rc = rc < 0 ? rc : correlate(a, a->n, COL_CONTROL, &out->control, &out->n_control);
    out->state = judge(a, &out->score, out->n);
    a->summed = rc == 0;
    a->sum = *out;
    return rc;
}

static bool on_row(void *arg, const struct trial_row *t)
{
    struct audit *a = arg;
    if (t->group == GROUP_AUDIT && a->n < a->cfg.max && t->parent >= 0) {
        struct audit_item *c = &a->item[a->n++];
        *c = (struct audit_item){ .idx = (uint64_t)t->parent, .seed = t->seed, .params = t->r.params, .macs = t->r.macs, .score = t->proxy,
                                  .real = NAN, .control = NAN };
        memcpy(c->arch, t->arch, sizeof c->arch);
        memcpy(c->hash, t->arch_hash, sizeof c->hash);
    }
    if (t->state == TRIAL_SCORED || t->state == TRIAL_FAILED)
        note_result(a, t);
    return true;
}

int audit_from_rows(struct audit **out, const struct job_spec *spec, struct reader *r, uint64_t job, struct errbuf *e)
{
    int rc = audit_open(out, spec, e);
    if (rc < 0 || !*out)
        return rc;
    if (reader_trials(r, job, -1, SORT_AUDIT, 0, 0, on_row, *out) < 0) {
        audit_close(*out);
        *out = NULL;
        return err_set(e, ERR_IO, "the store cannot be read");
    }
    return 0;
}
