/* simulate.c - a searcher on recorded scores, before anyone pays for trials: a CSV table, or the scores of a search job. The
 * searchers are those of the coordinator (common/search). */
#include "client/spaces.h"

#include "common/search/simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SEEDS 200

struct sim {
    struct cli      *c;
    struct job_spec *spec;    /* owned */
    struct records   records;
    int64_t          seeds, threads;
    double           within;
};

/* ---- where the scores come from ---- */

static int take_trial(struct records *r, const json_t *t, struct errbuf *e)
{
    double params = doc_num(t, "params"), macs = doc_num(t, "macs"), score = doc_num(t, "score");
    const json_t *list = json_object_get(t, "init_scores");
    double init[MAX_INITS];
    struct record row = { .score = score, .truth = score, .cheap = NAN, .params = params > 0 ? (uint64_t)params : 0,
                          .macs = macs > 0 ? (uint64_t)macs : 0, .init = init };
    for (int k = 0; k < ZC_COUNT; k++)
        zero_cost_set(&row.zero_cost, k, doc_num(json_object_get(t, "zero_cost"), zero_cost_table[k].name));
    for (size_t i = 0; i < json_array_size(list) && i < MAX_INITS; i++)
        init[row.n_inits++] = json_number_value(json_array_get(list, i));
    return records_add(r, doc_str(t, "arch"), &row, e);
}

/* Space, searcher and its settings are the job's, until flags say otherwise. */
static int from_job(struct sim *m, const char *job)
{
    enum { PAGE = 500 };
    struct conn *conn;
    const struct space *space;
    json_t *doc, *t;
    size_t i, got = PAGE;
    int rc = cli_conn(m->c, &conn);
    if (rc < 0 || (rc = conn_query(conn, &doc, m->c->e, "jobs/%s", job)) < 0)
        return rc;
    if (strcmp(doc_str(doc, "kind"), "search") != 0)
        rc = err_set(m->c->e, ERR_INPUT, "job %s is no search", job);
    else
        rc = job_from_json(m->spec, json_object_get(doc, "spec"), m->c->e);
    json_decref(doc);
    if (rc == 0)
        rc = space_need(conn, m->spec->space, m->spec->space_hash, &space, m->c->e);
    if (rc < 0)
        return rc;
    records_init(&m->records, space);
    for (long long at = 0; rc == 0 && got == PAGE; at += PAGE) {
        if ((rc = conn_query(conn, &doc, m->c->e, "jobs/%s/trials?state=scored&offset=%lld&limit=%d", job, at, PAGE)) < 0)
            return rc;
        json_array_foreach(json_object_get(doc, "trials"), i, t)
            if (rc == 0)
                rc = take_trial(&m->records, t, m->c->e);
        got = json_array_size(json_object_get(doc, "trials"));
        json_decref(doc);
    }
    return rc;
}

/* A table without costs gets those of the space on images of this size; with 0 nothing could be constrained or traded. */
static int add_costs(struct sim *m)
{
    struct image_shape img;
    const char *input = cli_str(m->c, "input", NULL);
    int used = 0;
    if (!input)
        return 0;
    if (sscanf(input, "%d,%d,%d,%d%n", &img.c, &img.h, &img.w, &img.n_classes, &used) != 4 || input[used])
        return err_set(m->c->e, ERR_USAGE, "--input is channels,height,width,classes such as 3,32,32,10, not '%s'", input);
    for (size_t i = 0; i < m->records.n; i++) {
        struct record *r = &m->records.v[i];
        const struct constraints none = { 0 };
        int rc = search_fits(m->records.space, r->arch, &img, &m->spec->fidelity.proxy, &none, &r->params, &r->macs, m->c->e);
        if (rc == -ERR_SHAPE)
            r->params = r->macs = 0; /* listed, and yet nothing to build: a cell without a path */
        else if (rc < 0)
            return err_wrap(m->c->e, rc, "%s", r->arch);
    }
    return 0;
}

static int load(struct sim *m)
{
    struct cli *c = m->c;
    const char *from = c->arg[0], *space = cli_str(c, "space", "nasbench201");
    const struct record_columns cols = { cli_str(c, "arch", NULL), cli_str(c, "score", NULL), cli_str(c, "truth", NULL),
                                         cli_str(c, "params", NULL), cli_str(c, "macs", NULL), cli_str(c, "cheap", NULL),
                                         cli_str(c, "init-scores", NULL) };
    int rc;
    job_defaults(m->spec, JOB_SEARCH);
    if (access(from, F_OK) == 0) {
        const struct space *s;
        if ((rc = space_named(c, space, &s)) < 0)
            return rc;
        snprintf(m->spec->space, sizeof m->spec->space, "%s", s->name);
        snprintf(m->spec->searcher.name, sizeof m->spec->searcher.name, "evolution");
        m->spec->window = 1;
        m->spec->trials = 300;
        records_init(&m->records, s);
        rc = records_read(&m->records, from, &cols, c->e);
    } else {
        rc = from_job(m, from);
    }
    if (rc == 0)
        rc = records_finish(&m->records, c->e);
    return rc == 0 ? add_costs(m) : rc;
}

static int read_flags(struct sim *m)
{
    struct cli *c = m->c;
    int64_t trials = m->spec->trials, window = m->spec->window, seed = (int64_t)m->spec->seed;
    long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int rc;
    m->seeds = DEFAULT_SEEDS;
    m->threads = n_cpus > 0 ? n_cpus : 1;
    if ((rc = cli_int(c, "trials", 1, 10000000, &trials)) < 0 || (rc = cli_int(c, "window", 1, 4096, &window)) < 0 ||
        (rc = cli_int(c, "seeds", 1, SIM_MAX_SEEDS, &m->seeds)) < 0 || (rc = cli_int(c, "seed", 0, INT64_MAX, &seed)) < 0 ||
        (rc = cli_int(c, "threads", 1, 64, &m->threads)) < 0 || (rc = cli_num(c, "within", 0, 1e300, &m->within)) < 0)
        return rc;
    m->spec->trials = (int)trials;
    m->spec->window = (int)window;
    m->spec->seed = (uint64_t)seed;
    char *set[CLI_MAX_GIVEN];
    int   n = 0;
    for (int i = 0; i < c->n_given; i++)
        if (strcmp(c->given[i].flag->name, "set") == 0)
            set[n++] = (char *)(uintptr_t)c->given[i].value;
    if (cli_str(c, "searcher", NULL)) /* what follows is to go with that one, not with the job's */
        snprintf(m->spec->searcher.name, sizeof m->spec->searcher.name, "%s", cli_str(c, "searcher", NULL));
    rc = jobfile_set_all(m->spec, set, n, c->e);
    if (rc == 0 && job_latency_batch(m->spec))
        rc = err_set(c->e, ERR_INPUT, "latency is measured, and cannot be simulated: --set 'objectives=[{metric: score}, {metric: params}]' --set latency.measure=false");
    return rc;
}

/* ---- what came out ---- */

static json_t *real(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *spread_doc(const struct sim_spread *s)
{
    return json_pack("{s:o,s:o,s:o}", "q25", real(s->q25), "median", real(s->median), "q75", real(s->q75));
}

static json_t *run_doc(const struct sim *m, const struct sim_result *r, double seconds)
{
    json_t *points = json_array();
    for (int i = 0; i < r->n_points; i++) {
        const struct sim_point *p = &r->point[i];
        json_array_append_new(points, json_pack("{s:I,s:o,s:o,s:o,s:o}", "evaluations", (json_int_t)p->evaluations, "mean", real(p->mean),
                              "ci_low", real(p->low), "ci_high", real(p->high), "regret", spread_doc(&p->spread)));
    }
    json_t *reached = json_pack("{s:i,s:o,s:o,s:o,s:o}", "seeds", r->n_reached, "evaluations", spread_doc(&r->reached), "median_ci_low",
                                real(r->reached_low), "median_ci_high", real(r->reached_high), "mean", real(r->reached_mean));
    json_t *spec = job_to_json(m->spec);
    json_t *d = json_pack("{s:s,s:O*,s:i,s:I,s:i,s:o,s:o,s:f}", "searcher", m->spec->searcher.name, "settings",
                          json_object_get(spec, "searcher"), "window", m->spec->window, "seeds", (json_int_t)m->seeds, "trials",
                          m->spec->trials, "points", points, "reached", reached, "trials_per_s", (double)r->evaluations / seconds);
    json_decref(spec);
    return d;
}

static const char *show_count(short_str buf, double v)
{
    isfinite(v) ? snprintf(buf, sizeof(short_str), "%.0f", v) : snprintf(buf, sizeof(short_str), "never");
    return buf;
}

static void show_run(const struct sim *m, const struct sim_result *r, double seconds)
{
    static const struct table_col cols[] = { { "EVALUATIONS", true, false }, { "MEAN REGRET", true, false }, { "95 % INTERVAL", false, false },
        { "LOWER QUARTILE", true, false }, { "MEDIAN", true, false }, { "UPPER QUARTILE", true, false } };
    struct table t;
    short_str a, b, x, y, z;
    printf("%s, window %d: %lld seeds of %d evaluations\n", m->spec->searcher.name, m->spec->window, (long long)m->seeds, m->spec->trials);
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (int i = 0; i < r->n_points; i++) {
        const struct sim_point *p = &r->point[i];
        table_cell(&t, "%llu", (unsigned long long)p->evaluations);
        table_cell(&t, "%.4g", p->mean);
        isfinite(p->low) ? table_cell(&t, "%.4g to %.4g", p->low, p->high) : table_cell(&t, "%s", "");
        table_cell(&t, "%.4g", p->spread.q25);
        table_cell(&t, "%.4g", p->spread.median);
        table_cell(&t, "%.4g", p->spread.q75);
    }
    table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
    printf("Within %g of the best (%.6g): %d of %lld seeds got there", m->within, m->records.best_truth, r->n_reached, (long long)m->seeds);
    if (isfinite(r->reached.median))
        printf(", after %s evaluations in the median of all (95 %% interval %s to %s; quartiles %s and %s)", show_count(a, r->reached.median),
               show_count(b, r->reached_low), show_count(x, r->reached_high), show_count(y, r->reached.q25), show_count(z, r->reached.q75));
    puts(".");
    fprintf(stderr, "%llu trials in %s: %.0f a second\n", (unsigned long long)r->evaluations, fmt_seconds(a, seconds),
            (double)r->evaluations / seconds);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run(struct sim *m, json_t *runs)
{
    struct sim_result *r = malloc(sizeof *r);
    const struct sim_cfg cfg = { &m->records, m->spec, (int)m->seeds, (int)m->threads, cli_has(m->c, "cheap"), m->within };
    double t0 = now_s();
    int rc = r ? sim_run(&cfg, r, m->c->e) : err_set(m->c->e, ERR_NOMEM, "out of memory");
    double seconds = now_s() - t0 + 1e-9;
    if (rc == 0)
        json_array_append_new(runs, run_doc(m, r, seconds));
    if (rc == 0 && !m->c->json)
        show_run(m, r, seconds);
    free(r);
    return rc;
}

static int run_each(struct sim *m, json_t *runs)
{
    struct cli *c = m->c;
    int rc = 0, named = 0;
    for (int i = 0; i < c->n_given && rc == 0; i++) {
        if (strcmp(c->given[i].flag->name, "searcher") != 0)
            continue;
        char assignment[128];
        snprintf(assignment, sizeof assignment, "searcher.name=%.100s", c->given[i].value);
        if (named++ && !c->json)
            printf("\n");
        if ((rc = jobfile_set(m->spec, assignment, c->e)) == 0)
            rc = run(m, runs);
    }
    return rc < 0 || named ? rc : run(m, runs);
}

int verb_simulate(struct cli *c)
{
    struct sim m = { .c = c, .spec = malloc(sizeof *m.spec) };
    json_t *runs = json_array();
    int rc = m.spec && runs ? load(&m) : err_set(c->e, ERR_NOMEM, "out of memory");
    if (rc == 0)
        rc = read_flags(&m);
    if (rc == 0 && !c->json)
        printf("%zu architectures of space %s from %llu rows%s\n", m.records.n, m.records.space->name, (unsigned long long)m.records.n_rows,
               m.records.n_rows > m.records.n ? " (equal networks are one, with the mean of their scores)" : "");
    if (rc == 0)
        rc = run_each(&m, runs);
    if (rc == 0 && c->json) {
        json_t *doc = json_pack("{s:{s:s,s:I,s:I,s:I,s:f},s:f,s:O}", "records", "space", m.records.space->name, "architectures",
                                (json_int_t)m.records.n, "rows", (json_int_t)m.records.n_rows, "skipped", (json_int_t)m.records.n_skipped,
                                "best", m.records.best_truth, "within", m.within, "runs", runs);
        print_json(stdout, doc);
        json_decref(doc);
    }
    records_fini(&m.records);
    json_decref(runs);
    free(m.spec);
    return rc;
}
