/* submit.c - hand in a job: a file, or one written from flags. A row of `keys` says which flag is which key of the job file; the
 * coordinator checks the text, so that files and flags are judged by the same rules. */
#include "client/spaces.h"
#include "client/submit.h"

#include "common/fsio.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rows of one section stand together. */
const struct submit_key submit_keys[] = {
    { "", "name", "name", false },
    { "", "seed", "seed", false },
    { "", "dataset", "dataset", false },
    { "", "curriculum", "curriculum", false },
    { "", "space", "space", false },
    { "", "window", "window", false },
    { "", "parallel", "parallel", false },
    { "", "priority", "priority", false },
    { "searcher", "name", "searcher", false },
    { "searcher", "population", "population", false },
    { "searcher", "sample", "sample", false },
    { "fidelity", "steps", "fidelity-steps", false },
    { "fidelity", "inits", "inits", false },
    { "fidelity", "valid_images", "valid-images", false },
    { "fidelity", "channels", "proxy-channels", false },
    { "fidelity", "cells", "proxy-cells", false },
    { "constraints", "max_params", "max-params", false },
    { "constraints", "max_macs", "max-macs", false },
    { "budget", "trials", "trials", false },
    { "audit", "share", "audit", false },
    { "teach", "kind", "teacher", false },
    { "teach", "steps", "steps", false },
    { "teach", "batch", "teach-batch", false },
    { "teach", "meta_steps", "meta-steps", false },
    { "teach", "seconds", "seconds", false },
    { "teach", "learners", "learners", false },
    { "verify", "of", "of", false },
    { "verify", "top", "top", false },
    { "verify", "random", "random", false },
    { "verify", "arch", "arch", true },
    { "verify", "epochs", "epochs", false },
    { "verify", "batch", "batch", false },
    { "verify", "lr", "lr", false },
    { "verify", "seeds", "seeds", false },
    { "verify", "channels", "channels", false },
    { "verify", "cells", "cells", false },
    { NULL, NULL, NULL, false },
};

/* A word or number as it is; anything else in double quotes. */
static void put_value(FILE *f, const char *v)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-/";
    if (*v && v[strspn(v, plain)] == 0 && *v != '-') {
        fputs(v, f);
        return;
    }
    json_t *s = json_string(v);
    char *text = s ? json_dumps(s, JSON_ENCODE_ANY) : NULL;
    if (*v == '-' && v[1 + strspn(v + 1, "0123456789.")] == 0)
        fputs(v, f);
    else
        fputs(text ? text : "\"\"", f);
    free(text);
    json_decref(s);
}

static void put_key(struct cli *c, FILE *f, const struct submit_key *k)
{
    const char *indent = *k->section ? "  " : "";
    if (!k->list) {
        fprintf(f, "%s%s: ", indent, k->key);
        put_value(f, cli_str(c, k->flag, ""));
        fputc('\n', f);
        return;
    }
    fprintf(f, "%s%s:\n", indent, k->key);
    for (int i = 0; i < c->n_given; i++)
        if (strcmp(c->given[i].flag->name, k->flag) == 0) {
            fprintf(f, "%s  - ", indent);
            put_value(f, c->given[i].value);
            fputc('\n', f);
        }
}

int submit_compose(struct cli *c, const char *kind, char **out)
{
    size_t len = 0;
    const char *section = "";
    FILE *f = open_memstream(out, &len);
    if (!f)
        return err_set(c->e, ERR_NOMEM, "out of memory");
    fprintf(f, "kind: %s\n", kind);
    if (!cli_has(c, "name"))
        fprintf(f, "name: %s\n", kind);
    for (const struct submit_key *k = submit_keys; k->flag; k++) {
        if (!cli_has(c, k->flag))
            continue;
        if (strcmp(section, k->section) != 0)
            fprintf(f, "%s:\n", k->section);
        section = k->section;
        put_key(c, f, k);
    }
    return fclose(f) == 0 && *out ? 0 : err_set(c->e, ERR_NOMEM, "out of memory");
}

/* ---- handing in ---- */

static const json_t *job_of(const json_t *doc)
{
    const json_t *job = json_object_get(doc, "job");
    return json_is_object(job) ? job : doc;
}

static void id_of(const json_t *doc, name_str id)
{
    double v = doc_num(job_of(doc), "id");
    if (isfinite(v))
        snprintf(id, sizeof(name_str), "%.0f", v);
    else
        snprintf(id, sizeof(name_str), "%s", doc_str(job_of(doc), "id"));
}

int submit_text(struct conn *conn, const char *yaml, const char *file, name_str id, struct errbuf *e)
{
    json_t *doc;
    int rc = conn_submit(conn, yaml, file, 0, NULL, false, &doc, e);
    if (rc < 0)
        return rc;
    id_of(doc, id);
    json_decref(doc);
    return *id ? 0 : err_set(e, ERR_INTERNAL, "the coordinator took the job and did not say its number");
}

static int follow(struct cli *c, struct conn *conn, const char *id)
{
    struct watch_cfg w = { .json = c->json, .f = stdout };
    json_t *job, *doc;
    int rc = watch_job(conn, id, &w, &job, c->e);
    if (rc < 0)
        return rc;
    int status = job_exit_status(job);
    json_decref(job);
    if (c->json)
        return status;
    if ((rc = ask_results(conn, id, &doc, c->e)) < 0)
        return rc;
    printf("\n");
    show_results(doc, stdout);
    json_decref(doc);
    return status;
}

static void show_largest(const json_t *doc)
{
    const json_t *largest = json_object_get(doc, "largest");
    const double need = doc_num(largest, "mem_bytes"), room = doc_num(doc, "largest_worker_bytes");
    short_str a, b, f;
    if (!largest)
        return;
    printf("the largest of %.0f drawn takes %s of memory and %s operations: %s\n", doc_num(doc, "sampled"), fmt_bytes(a, need),
           fmt_count(f, doc_num(largest, "flops")), doc_str(largest, "arch"));
    if (need > room)
        printf("that is more than the largest worker gives a trial (%s): such trials are recorded as failed (oom)\n", fmt_bytes(b, room));
}

/* What a job would do, before it exists. */
static void show_dry(const json_t *doc)
{
    static const struct table_col cols[] = { { "PARAMS", true, false }, { "MACS", true, false }, { "MEMORY", true, false }, { "FLOPS", true, false },
                                             { "ARCHITECTURE", false, true } };
    const json_t *sample = json_object_get(doc, "sample"), *estimate = json_object_get(doc, "estimate");
    short_str s;
    size_t i;
    json_t *v;
    printf("The job file is valid. With all defaults filled in:\n");
    print_tree(stdout, json_object_get(doc, "spec"), "");
    if (isfinite(doc_num(doc, "space_size")))
        printf("the space has about %.3g point%s\n", doc_num(doc, "space_size"), doc_num(doc, "space_size") == 1 ? "" : "s");
    if (json_array_size(sample)) {
        struct table t;
        table_init(&t, sizeof cols / sizeof cols[0], cols);
        json_array_foreach(sample, i, v) {
            table_cell(&t, "%s", fmt_count(s, doc_num(v, "params")));
            table_cell(&t, "%s", fmt_count(s, doc_num(v, "macs")));
            table_cell(&t, "%s", fmt_bytes(s, doc_num(v, "mem_bytes")));
            table_cell(&t, "%s", fmt_count(s, doc_num(v, "flops")));
            table_cell(&t, "%s", doc_str(v, "arch"));
        }
        printf("for example:\n");
        table_print(&t, stdout, print_width(stdout));
        table_fini(&t);
    }
    show_largest(doc);
    if (isfinite(doc_num(estimate, "macs_median")))
        printf("a typical candidate costs %s multiply-adds an image\n", fmt_count(s, doc_num(estimate, "macs_median")));
    if (isfinite(doc_num(estimate, "trials")))
        printf("trials: %.0f\n", doc_num(estimate, "trials"));
    if (isfinite(doc_num(doc, "warmup.candidates")))
        printf("warm-up: %.0f networks, each worth %.2g scorings; %.1f %% of the whole\n", doc_num(doc, "warmup.candidates"),
               doc_num(doc, "warmup.scorings_each"), 100 * doc_num(doc, "warmup.share"));
    if (isfinite(doc_num(doc, "audit.trainings")))
        printf("audit: %.0f trainings, each worth %.1f scorings; %.1f %% of the whole\n", doc_num(doc, "audit.trainings"),
               doc_num(doc, "audit.scorings_each"), 100 * doc_num(doc, "audit.share"));
    if (isfinite(doc_num(estimate, "seconds")) && doc_num(estimate, "seconds") > 0)
        printf("time, on the workers that are there: about %s\n", fmt_seconds(s, doc_num(estimate, "seconds")));
}

/* The job is in, and has its spaces by content: their names are for later jobs. */
static void name_spaces(struct conn *conn, const struct spaces_taken *t)
{
    struct errbuf e = { 0 };
    if (spaces_name(conn, t, &e) < 0)
        fprintf(stderr, "the job is in, but its space has no name for other jobs: %s\n", e.text);
}

/* path: where the text lies, NULL: nowhere. */
static int hand_in(struct cli *c, const char *yaml, const char *file, const char *path)
{
    struct conn *conn;
    const char *set[CLI_MAX_GIVEN + 1];
    struct spaces_taken *taken = malloc(sizeof *taken);
    name_str id = "";
    json_t *doc;
    int n_set = 0, rc = cli_conn(c, &conn);
    bool dry = cli_has(c, "dry-run");
    for (int i = 0; i < c->n_given; i++)
        if (strcmp(c->given[i].flag->name, "set") == 0)
            set[n_set++] = c->given[i].value;
    if (rc == 0)
        rc = taken ? spaces_take(conn, yaml, path, n_set, set, taken, c->e) : err_set(c->e, ERR_NOMEM, "out of memory");
    for (int i = 0; rc == 0 && i < taken->n_set; i++)
        set[n_set++] = taken->set[i];
    if (rc == 0)
        rc = conn_submit(conn, yaml, file, n_set, set, dry, &doc, c->e);
    if (rc == 0 && !dry)
        name_spaces(conn, taken);
    free(taken);
    if (rc < 0)
        return rc;
    id_of(doc, id);
    if (c->json && !cli_has(c, "follow")) {
        print_json(stdout, doc);
    } else if (dry) {
        show_dry(doc);
    } else if (!c->json) {
        printf("job %s submitted\n", id);
        if (!cli_has(c, "follow"))
            fprintf(stderr, "didact watch %s follows it, didact results %s shows what came out\n", id, id);
    }
    json_decref(doc);
    fflush(stdout);
    return !dry && cli_has(c, "follow") ? follow(c, conn, id) : 0;
}

/* A file, or "-" for standard input. */
static int read_job(const char *path, char **out, struct errbuf *e)
{
    size_t n = 0;
    if (strcmp(path, "-") != 0)
        return fs_read_all(path, JOB_TEXT_MAX, out, NULL, e);
    *out = malloc(JOB_TEXT_MAX + 2);
    if (!*out)
        return err_set(e, ERR_NOMEM, "out of memory");
    n = fread(*out, 1, JOB_TEXT_MAX + 1, stdin);
    (*out)[n] = 0;
    if (n > JOB_TEXT_MAX) {
        free(*out);
        return err_set(e, ERR_INPUT, "standard input: more than %d bytes", JOB_TEXT_MAX);
    }
    return 0;
}

int verb_submit(struct cli *c)
{
    char *yaml = NULL;
    const char *path = c->arg[0], *slash = strrchr(path, '/');
    int rc = read_job(path, &yaml, c->e);
    if (rc < 0)
        return rc;
    bool from_stdin = strcmp(path, "-") == 0;
    rc = hand_in(c, yaml, from_stdin ? "stdin" : slash && slash[1] ? slash + 1 : path, from_stdin ? NULL : path);
    free(yaml);
    return rc;
}

static int from_flags(struct cli *c, const char *kind)
{
    char *yaml = NULL;
    int rc = submit_compose(c, kind, &yaml);
    if (rc == 0 && cli_has(c, "print")) {
        fputs(yaml, stdout);
    } else if (rc == 0) {
        char file[32];
        snprintf(file, sizeof file, "%s flags", kind);
        rc = hand_in(c, yaml, file, NULL);
    }
    free(yaml);
    return rc;
}

int verb_teach(struct cli *c)  { return from_flags(c, "teach"); }
int verb_search(struct cli *c) { return from_flags(c, "search"); }
int verb_verify(struct cli *c) { return from_flags(c, "verify"); }
