/* export.c - one trial, or all of them, as a file that other programs read. Weights exist where real training kept them:
 * in verify jobs. A search trial's few steps on a curriculum leave none behind, and the message says what to do. */
#include "client/verbs.h"

#include "client/onnx.h"
#include "common/fsio.h"
#include "common/safetensors.h"
#include "common/space.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const format_names[EXPORT_COUNT] = { "onnx", "safetensors", "json", "csv" };

/* ---- which trial ---- */

/* trial < 0: the best, or with `weights` the best of those that have any; *doc owns it. */
static int find_trial(struct conn *conn, const char *job, int64_t trial, bool weights, json_t **doc, const json_t **out, struct errbuf *e)
{
    int rc;
    size_t i;
    json_t *row;
    if (trial < 0)
        rc = conn_query(conn, doc, e, "jobs/%s/results?top=%d", job, weights ? 100 : 1);
    else
        rc = conn_query(conn, doc, e, "jobs/%s/trials?sort=index&offset=%lld&limit=1", job, (long long)trial);
    if (rc < 0)
        return rc;
    const json_t *list = json_object_get(*doc, trial < 0 ? "best" : "trials");
    *out = json_array_get(list, 0);
    json_array_foreach(list, i, row)
        if (weights && blob_valid_hash(doc_str(row, "artifact"))) {
            *out = row;
            break;
        }
    if (*out && (trial < 0 || json_integer_value(json_object_get(*out, "trial")) == trial))
        return 0;
    json_decref(*doc);
    *doc = NULL;
    return trial < 0 ? err_set(e, ERR_NOTFOUND, "job %s has no scored trial yet", job)
                     : err_set(e, ERR_NOTFOUND, "job %s has no trial %lld", job, (long long)trial);
}

/* ---- networks ---- */

static int write_onnx(struct conn *conn, const struct st_file *f, const char *path, struct errbuf *e)
{
    const char *space_name = st_meta(f, "space"), *arch = st_meta(f, "arch"), *data = st_meta(f, "dataset");
    const struct space *space = space_name ? space_find(space_name) : NULL;
    struct proxy proxy = space_proxy_from(st_meta(f, "channels"), st_meta(f, "cells"));
    struct dataset_facts d;
    struct net net;
    if (!space || !arch || !data)
        return err_set(e, ERR_INPUT, "the weights do not say which architecture they belong to (space, arch, dataset)");
    int rc = dataset_facts(conn, data, &d, e);
    if (rc < 0 || (rc = space_build(space, arch, d.c, d.h, d.w, d.n_classes, &proxy, &net, e)) < 0)
        return rc;
    rc = onnx_write(&net, f, path, e);
    net_fini(&net);
    return rc;
}

/* The tensors as trained, with all that is known about them in the metadata. */
static int write_safetensors(const struct st_file *f, const json_t *trial, const char *job, const char *path, struct errbuf *e)
{
    enum { EXTRA = 10 };
    char score[32], valid[32], number[32];
    snprintf(score, sizeof score, "%.6f", doc_num(trial, "score"));
    snprintf(valid, sizeof valid, "%.6f", doc_num(trial, "valid_score"));
    snprintf(number, sizeof number, "%.0f", doc_num(trial, "trial"));
    const char *extra[2 * EXTRA] = { "job", job, "trial", number, "arch_hash", doc_str(trial, "arch_hash"), "test_accuracy", score,
                                     "validation_accuracy", valid, "input_range", "p / 127.5 - 1", "layout",
                                     "images [N,C,H,W]; weights [out, in/groups, k, k]", "producer", "didact " DIDACT_VERSION };
    const char **meta = calloc(2 * (size_t)f->n_meta + 2 * EXTRA, sizeof *meta);
    int n = 0;
    if (!meta)
        return err_set(e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < 2 * f->n_meta; i++)
        meta[n++] = f->meta[i];
    for (int i = 0; i < 2 * EXTRA && extra[i]; i += 2) {
        if (st_meta(f, extra[i]))
            continue;
        meta[n++] = extra[i];
        meta[n++] = extra[i + 1];
    }
    int rc = st_write(path, f->tensor, f->n, meta, n / 2, e);
    free(meta);
    return rc;
}

static int export_weights(struct conn *conn, const json_t *trial, const char *job, bool onnx, const char *path, struct errbuf *e)
{
    char dir[FS_PATH_MAX], temp[FS_PATH_MAX + 64];
    const char *artifact = doc_str(trial, "artifact");
    struct st_file f;
    if (!blob_valid_hash(artifact))
        return err_set(e, ERR_NOTFOUND, "trial %.0f of job %s has no trained weights: only real training (a verify job) keeps them. After a"
                       " search, run `didact verify --of JOB` and export from the new job", doc_num(trial, "trial"), job);
    fs_dir_of(path, dir);
    snprintf(temp, sizeof temp, "%s/.didact-weights-%ld", dir, (long)getpid());
    int rc = conn_get_file(conn, artifact, temp, e);
    if (rc < 0)
        return rc;
    rc = st_open(&f, temp, e);
    if (rc == 0) {
        rc = onnx ? write_onnx(conn, &f, path, e) : write_safetensors(&f, trial, job, path, e);
        st_close(&f);
    }
    unlink(temp);
    return rc;
}

/* ---- tables ---- */

static const char *const csv_fields[] = { "trial", "state", "reason", "score", "score_se", "loss_sum", "lr_scale", "valid_score", "params",
    "macs", "seconds", "mem_bytes", "attempt", "worker", "parent", "seed", "space", "arch_hash", "arch" };

static void csv_value(FILE *f, const json_t *v)
{
    const char *s = json_string_value(v);
    if (json_is_integer(v))
        fprintf(f, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        fprintf(f, "%.17g", json_real_value(v));
    else if (s && strpbrk(s, ",\"\n")) {
        fputc('"', f);
        for (; *s; s++)
            *s == '"' ? fputs("\"\"", f) : fputc(*s, f);
        fputc('"', f);
    } else if (s) {
        fputs(s, f);
    }
}

static int write_csv(struct conn *conn, const char *job, FILE *f, struct errbuf *e)
{
    enum { PAGE = 500, N = sizeof csv_fields / sizeof csv_fields[0] };
    for (size_t k = 0; k < N; k++)
        fprintf(f, "%s%s", k ? "," : "", csv_fields[k]);
    fputc('\n', f);
    for (long long offset = 0;; offset += PAGE) {
        json_t *doc, *t;
        size_t i;
        int rc = conn_query(conn, &doc, e, "jobs/%s/trials?sort=index&offset=%lld&limit=%d", job, offset, PAGE);
        if (rc < 0)
            return rc;
        json_array_foreach(json_object_get(doc, "trials"), i, t)
            for (size_t k = 0; k < N; k++) {
                if (k)
                    fputc(',', f);
                csv_value(f, json_object_get(t, csv_fields[k]));
                if (k + 1 == N)
                    fputc('\n', f);
            }
        size_t got = json_array_size(json_object_get(doc, "trials"));
        json_decref(doc);
        if (got < PAGE)
            return 0;
    }
}

/* Written in memory first: a file is complete or it is not there. */
static int export_text(struct conn *conn, const json_t *trial, const char *job, bool csv, const char *path, struct errbuf *e)
{
    char  *text = NULL;
    size_t len = 0;
    FILE  *f = open_memstream(&text, &len);
    int rc = 0;
    if (!f)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (csv)
        rc = write_csv(conn, job, f, e);
    else
        print_json(f, trial);
    if (fclose(f) != 0 && rc == 0)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (rc == 0 && strcmp(path, "-") == 0)
        fwrite(text, 1, len, stdout);
    else if (rc == 0)
        rc = fs_write_atomic(path, text, len, e);
    free(text);
    return rc;
}

int export_trial(struct conn *conn, const char *job, int64_t trial, enum export_format format, const char *path, struct errbuf *e)
{
    json_t *doc = NULL;
    const json_t *row = NULL;
    int rc = 0;
    if (format != EXPORT_CSV)
        rc = find_trial(conn, job, trial, format == EXPORT_ONNX || format == EXPORT_SAFETENSORS, &doc, &row, e);
    if (rc < 0)
        return rc;
    if (format == EXPORT_ONNX || format == EXPORT_SAFETENSORS)
        rc = export_weights(conn, row, job, format == EXPORT_ONNX, path, e);
    else
        rc = export_text(conn, row, job, format == EXPORT_CSV, path, e);
    json_decref(doc);
    return rc;
}

/* --format, else the ending of the output's name. */
static int choose_format(struct cli *c, const char *path, enum export_format *out)
{
    const char *name = cli_str(c, "format", NULL), *dot = strrchr(path, '.');
    if (!name)
        name = dot ? dot + 1 : "";
    for (int i = 0; i < EXPORT_COUNT; i++)
        if (strcmp(name, format_names[i]) == 0) {
            *out = (enum export_format)i;
            return 0;
        }
    return err_set(c->e, ERR_USAGE, "--format is onnx, safetensors, json or csv (or the ending of -o FILE)");
}

int verb_export(struct cli *c)
{
    struct conn *conn;
    enum export_format format = EXPORT_ONNX;
    int64_t trial = -1;
    const char *path = cli_str(c, "output", NULL);
    if (!path)
        return err_set(c->e, ERR_USAGE, "export needs -o FILE");
    int rc = choose_format(c, path, &format);
    if (rc == 0 && strcmp(path, "-") == 0 && format < EXPORT_JSON)
        rc = err_set(c->e, ERR_USAGE, "%s is no text: give -o FILE", format_names[format]);
    if (rc < 0 || (rc = cli_int(c, "trial", 0, INT64_MAX, &trial)) < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    if ((rc = export_trial(conn, c->arg[0], trial, format, path, c->e)) < 0 || strcmp(path, "-") == 0)
        return rc;
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:s,s:s}", "job", c->arg[0], "format", format_names[format], "file", path);
        print_json(stdout, doc);
        json_decref(doc);
    } else {
        printf("%s\n", path);
    }
    return 0;
}
