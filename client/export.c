/* export.c - one trial, or all of them, as a file that other programs read, or drawn. A row of `formats` is a format. Weights exist where real training kept them:
 * in verify jobs. A search trial's few steps on a curriculum leave none behind, and the message says what to do. */
#include "client/spaces.h"
#include "client/graph.h"
#include "client/onnx.h"
#include "client/torch.h"
#include "client/verbs.h"

#include "common/fsio.h"
#include "common/safetensors.h"
#include "common/zero_cost.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static void trial_title(const char *job, const json_t *trial, char *out, size_t cap)
{
    short_str score;
    double v = doc_num(trial, "score");
    size_t n = (size_t)snprintf(out, cap, "job %s, trial %.0f: %s", job, doc_num(trial, "trial"), doc_str(trial, "state"));
    if (isfinite(v) && n < cap)
        snprintf(out + n, cap - n, " %s", fmt_score(score, v, doc_num(trial, "score_se")));
}

/* ---- networks ---- */

/* The network of a trial: its architecture on the images of its job's dataset, in the size that the job says. */
int trial_net(struct conn *conn, const char *job, const json_t *trial, struct net *out, struct errbuf *e)
{
    const char *arch = doc_str(trial, "arch");
    const struct space *space;
    struct job_spec *spec;
    struct dataset_facts d;
    json_t *doc;
    if (!*arch)
        return err_set(e, ERR_INPUT, "trial %.0f of job %s is no network (a teach job trains a teacher)", doc_num(trial, "trial"), job);
    int rc = conn_query(conn, &doc, e, "jobs/%s", job);
    if (rc < 0)
        return rc;
    spec = malloc(sizeof *spec);
    rc = space_need(conn, doc_str(trial, "space"), doc_str(doc, "space_hash"), &space, e);
    if (rc == 0)
        rc = spec ? job_from_json(spec, json_object_get(doc, "spec"), e) : err_set(e, ERR_NOMEM, "out of memory");
    if (rc == 0 && (rc = dataset_facts(conn, doc_str(doc, "dataset_hash"), &d, e)) == 0)
        rc = space_build(space, arch, d.c, d.h, d.w, d.n_classes, job_proxy(spec), out, e);
    free(spec);
    json_decref(doc);
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

/* ---- what an export is made of ---- */

struct taken {
    struct conn   *conn;
    const char    *job, *path;
    const json_t  *trial;   /* NULL: all trials */
    struct net     net;     /* of formats with NEED_NET */
    struct graph   graph;   /* of formats with NEED_GRAPH */
    struct st_file weights; /* of formats with NEED_WEIGHTS, or NEED_ANY where there are some */
    bool           have_weights;
    char           title[256];
};

/* Before anything is asked: what is fetched goes through a file beside it, whose name nobody gave. */
static int check_folder(const char *path, struct errbuf *e)
{
    char dir[FS_PATH_MAX];
    if (strcmp(path, "-") == 0)
        return 0;
    fs_dir_of(path, dir);
    if (!fs_is_dir(dir))
        return fs_error(e, ENOENT, "no folder for", path);
    return access(dir, W_OK | X_OK) == 0 ? 0 : fs_error(e, errno, "cannot create", path);
}

static int fetch_weights(struct taken *t, struct errbuf *e)
{
    char dir[FS_PATH_MAX], temp[FS_PATH_MAX + 64];
    const char *artifact = doc_str(t->trial, "artifact");
    if (!blob_valid_hash(artifact))
        return err_set(e, ERR_NOTFOUND, "trial %.0f of job %s has no trained weights: only real training (a verify job) keeps them. After a"
                       " search, run `didact verify --of JOB` and export from the new job", doc_num(t->trial, "trial"), t->job);
    fs_dir_of(t->path, dir);
    snprintf(temp, sizeof temp, "%s/.didact-weights-%ld", dir, (long)getpid());
    int rc = conn_get_file(t->conn, artifact, temp, e);
    if (rc < 0)
        return rc;
    rc = st_open(&t->weights, temp, e);
    t->have_weights = rc == 0;
    unlink(temp); /* what is open stays readable */
    return rc;
}

/* ---- tables ---- */

static const char *const csv_fields[] = { "trial", "state", "reason", "score", "score_se", "loss_sum", "lr_scale", "valid_score", "params",
    "macs", "latency_ms", "seconds", "mem_bytes", "attempt", "worker", "parent", "seed", "space", "arch_hash", "arch" };
static const char *const csv_more[] = { "rung", "init_scores", "from_book" };
#define N_CSV_FIELDS (sizeof csv_fields / sizeof csv_fields[0])
#define N_CSV_MORE   (sizeof csv_more / sizeof csv_more[0])

static void csv_value(FILE *f, const json_t *v)
{
    const char *s = json_string_value(v);
    if (json_is_integer(v))
        fprintf(f, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        fprintf(f, "%.17g", json_real_value(v));
    else if (json_is_boolean(v))
        fputs(json_is_true(v) ? "true" : "false", f);
    else if (json_is_array(v)) /* numbers, as the score book writes them */
        for (size_t i = 0; i < json_array_size(v); i++)
            fprintf(f, "%s%.17g", i ? " " : "", json_number_value(json_array_get(v, i)));
    else if (s && strpbrk(s, ",\"\n")) {
        fputc('"', f);
        for (; *s; s++)
            *s == '"' ? fputs("\"\"", f) : fputc(*s, f);
        fputc('"', f);
    } else if (s) {
        fputs(s, f);
    }
}

static int on_csv_trial(void *arg, const json_t *trial)
{
    FILE *f = arg;
    for (size_t k = 0; k < N_CSV_FIELDS; k++) {
        if (k)
            fputc(',', f);
        csv_value(f, json_object_get(trial, csv_fields[k]));
    }
    for (int k = 0; k < ZC_COUNT; k++) {
        fputc(',', f);
        csv_value(f, json_object_get(json_object_get(trial, "zero_cost"), zero_cost_table[k].name));
    }
    for (size_t k = 0; k < N_CSV_MORE; k++) {
        fputc(',', f);
        csv_value(f, json_object_get(trial, csv_more[k]));
    }
    fputc('\n', f);
    return 0;
}

static int write_csv(struct conn *conn, const char *job, FILE *f, struct errbuf *e)
{
    for (size_t k = 0; k < N_CSV_FIELDS; k++)
        fprintf(f, "%s%s", k ? "," : "", csv_fields[k]);
    for (int k = 0; k < ZC_COUNT; k++) /* the newest columns last: scripts count */
        fprintf(f, ",%s", zero_cost_table[k].name);
    for (size_t k = 0; k < N_CSV_MORE; k++)
        fprintf(f, ",%s", csv_more[k]);
    fputc('\n', f);
    return each_trial(conn, job, "index", on_csv_trial, f, e);
}

/* ---- formats ---- */

static int put_onnx(struct taken *t, FILE *f, struct errbuf *e)
{
    (void)f;
    return onnx_write(&t->net, &t->weights, t->path, e);
}

static int put_safetensors(struct taken *t, FILE *f, struct errbuf *e)
{
    (void)f;
    return write_safetensors(&t->weights, t->trial, t->job, t->path, e);
}

static json_t *box_doc(const struct box *x)
{
    json_t *in = json_array(), *shape = json_pack("[i]", x->shape.c);
    for (int k = 0; k < x->n_in; k++)
        json_array_append_new(in, json_integer(x->in[k]));
    if (!x->shape.flat) {
        json_array_append_new(shape, json_integer(x->shape.h));
        json_array_append_new(shape, json_integer(x->shape.w));
    }
    return json_pack("{s:s,s:o,s:o,s:I,s:I}", "layer", x->label, "inputs", in, "shape", shape, "params", (json_int_t)x->params, "macs",
                     (json_int_t)x->macs);
}

/* The trial's document, and its network box by box. */
static int put_json(struct taken *t, FILE *f, struct errbuf *e)
{
    json_t *doc = json_copy((json_t *)t->trial), *list = json_array();
    (void)e;
    for (int b = 0; b < t->graph.n; b++)
        json_array_append_new(list, box_doc(&t->graph.box[b]));
    json_object_set_new(doc, "network", list);
    print_json(f, doc);
    json_decref(doc);
    return 0;
}

static int put_csv(struct taken *t, FILE *f, struct errbuf *e) { return write_csv(t->conn, t->job, f, e); }

static int put_dot(struct taken *t, FILE *f, struct errbuf *e)
{
    (void)e;
    graph_dot(&t->graph, t->title, f);
    return 0;
}

static int put_svg(struct taken *t, FILE *f, struct errbuf *e) { return graph_svg(&t->graph, t->title, f, e); }

/* best.py, and beside it best.safetensors where there are weights. */
static int put_torch(struct taken *t, FILE *f, struct errbuf *e)
{
    char beside[FS_PATH_MAX];
    const char *slash = strrchr(t->path, '/'), *dot = strrchr(slash ? slash : t->path, '.');
    int stem = (int)(dot ? (size_t)(dot - t->path) : strlen(t->path));
    if (snprintf(beside, sizeof beside, "%.*s.safetensors", stem, t->path) >= (int)sizeof beside)
        return err_set(e, ERR_INPUT, "the name of the file is too long");
    const char *name = strrchr(beside, '/');
    struct torch_about about = { doc_str(t->trial, "arch"), t->title, t->have_weights ? name ? name + 1 : beside : NULL };
    int rc = t->have_weights ? write_safetensors(&t->weights, t->trial, t->job, beside, e) : 0;
    return rc < 0 ? rc : torch_write(&t->net, &about, f, e);
}

enum { NEED_TRIAL = 1, NEED_NET = 2, NEED_GRAPH = 4, NEED_WEIGHTS = 8, NEED_ANY = 16, IS_TEXT = 32 };
static const struct format {
    const char *name, *ending;
    unsigned    needs;
    int       (*put)(struct taken *t, FILE *f, struct errbuf *e); /* f: of text formats */
} formats[EXPORT_COUNT] = {
    [EXPORT_ONNX] = { "onnx", "onnx", NEED_TRIAL | NEED_NET | NEED_WEIGHTS, put_onnx },
    [EXPORT_SAFETENSORS] = { "safetensors", "safetensors", NEED_TRIAL | NEED_WEIGHTS, put_safetensors },
    [EXPORT_TORCH] = { "torch", "py", NEED_TRIAL | NEED_NET | NEED_ANY | IS_TEXT, put_torch },
    [EXPORT_DOT] = { "dot", "dot", NEED_TRIAL | NEED_NET | NEED_GRAPH | IS_TEXT, put_dot },
    [EXPORT_SVG] = { "svg", "svg", NEED_TRIAL | NEED_NET | NEED_GRAPH | IS_TEXT, put_svg },
    [EXPORT_JSON] = { "json", "json", NEED_TRIAL | IS_TEXT, put_json },
    [EXPORT_CSV] = { "csv", "csv", IS_TEXT, put_csv },
};

/* Written in memory first: a file is complete or it is not there. */
static int put_text(struct taken *t, const struct format *k, struct errbuf *e)
{
    char  *text = NULL;
    size_t len = 0;
    FILE  *f = open_memstream(&text, &len);
    if (!f)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = k->put(t, f, e);
    if (fclose(f) != 0 && rc == 0)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    if (rc == 0 && strcmp(t->path, "-") == 0)
        fwrite(text, 1, len, stdout);
    else if (rc == 0)
        rc = fs_write_atomic(t->path, text, len, e);
    free(text);
    return rc;
}

static int gather(struct taken *t, const struct format *k, struct errbuf *e)
{
    unsigned needs = k->needs;
    bool trained = blob_valid_hash(doc_str(t->trial, "artifact")) && strcmp(t->path, "-") != 0;
    if (k->put == put_json && *doc_str(t->trial, "arch"))
        needs |= NEED_NET | NEED_GRAPH;
    int rc = needs & NEED_WEIGHTS || (needs & NEED_ANY && trained) ? fetch_weights(t, e) : 0;
    if (rc == 0 && needs & NEED_NET)
        rc = trial_net(t->conn, t->job, t->trial, &t->net, e);
    if (rc == 0 && needs & NEED_GRAPH)
        rc = graph_from_net(&t->graph, &t->net, e);
    return rc;
}

int export_trial(struct conn *conn, const char *job, int64_t trial, enum export_format format, const char *path, struct errbuf *e)
{
    const struct format *k = &formats[format];
    struct taken t = { .conn = conn, .job = job, .path = path };
    json_t *doc = NULL;
    int rc = check_folder(path, e);
    if (rc == 0 && k->needs & NEED_TRIAL)
        rc = find_trial(conn, job, trial, (k->needs & (NEED_WEIGHTS | NEED_ANY)) != 0, &doc, &t.trial, e);
    if (rc == 0 && t.trial) {
        trial_title(job, t.trial, t.title, sizeof t.title);
        rc = gather(&t, k, e);
    }
    if (rc == 0)
        rc = k->needs & IS_TEXT ? put_text(&t, k, e) : k->put(&t, NULL, e);
    graph_fini(&t.graph);
    net_fini(&t.net);
    if (t.have_weights)
        st_close(&t.weights);
    json_decref(doc);
    return rc;
}

/* --format, else the ending of the output's name. */
static int choose_format(struct cli *c, const char *path, enum export_format *out)
{
    const char *name = cli_str(c, "format", NULL), *dot = strrchr(path, '.');
    for (int i = 0; i < EXPORT_COUNT; i++)
        if (name ? strcmp(name, formats[i].name) == 0 : dot && strcmp(dot + 1, formats[i].ending) == 0) {
            *out = (enum export_format)i;
            return 0;
        }
    return err_set(c->e, ERR_USAGE, "--format is onnx, safetensors, torch, dot, svg, json or csv (or the ending of -o FILE; .py is torch)");
}

int verb_export(struct cli *c)
{
    struct conn *conn;
    enum export_format format = EXPORT_ONNX;
    name_str job;
    int64_t trial = -1, named = -1;
    const char *path = cli_str(c, "output", NULL);
    if (!path)
        return err_set(c->e, ERR_USAGE, "export needs -o FILE");
    int rc = choose_format(c, path, &format);
    if (rc == 0 && strcmp(path, "-") == 0 && !(formats[format].needs & IS_TEXT))
        rc = err_set(c->e, ERR_USAGE, "%s is no text: give -o FILE", formats[format].name);
    if (rc < 0 || (rc = cli_int(c, "trial", 0, INT64_MAX, &trial)) < 0 || (rc = job_and_trial(c->arg[0], job, &named, c->e)) < 0 ||
        (rc = cli_conn(c, &conn)) < 0)
        return rc;
    trial = trial < 0 ? named : trial;
    if (trial >= 0 && !(formats[format].needs & NEED_TRIAL))
        return err_set(c->e, ERR_USAGE, "%s has every trial of a job: give the job alone, without trial %lld (json has one trial)", formats[format].name,
                       (long long)trial);
    if ((rc = export_trial(conn, job, trial, format, path, c->e)) < 0 || strcmp(path, "-") == 0)
        return rc;
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:s,s:s}", "job", job, "format", formats[format].name, "file", path);
        print_json(stdout, doc);
        json_decref(doc);
    } else {
        printf("%s\n", path);
    }
    return 0;
}

/* ---- in the terminal ---- */

int show_trial(struct conn *conn, const char *job, int64_t trial, bool as_json, FILE *f, struct errbuf *e)
{
    struct net net = { 0 };
    struct graph g = { 0 };
    const json_t *row;
    json_t *doc;
    char title[256];
    int rc = find_trial(conn, job, trial, false, &doc, &row, e);
    if (rc < 0)
        return rc;
    if (as_json) {
        struct taken t = { .conn = conn, .job = job, .trial = row, .path = "-" };
        rc = gather(&t, &formats[EXPORT_JSON], e);
        if (rc == 0)
            put_json(&t, f, e);
        graph_fini(&t.graph);
        net_fini(&t.net);
    } else if ((rc = trial_net(conn, job, row, &net, e)) == 0 && (rc = graph_from_net(&g, &net, e)) == 0) {
        short_str p, m;
        trial_title(job, row, title, sizeof title);
        fprintf(f, "%s\n%s\n%s parameters, %s MACs\n\n", title, doc_str(row, "arch"), fmt_count(p, (double)net.param_count),
                fmt_count(m, (double)net_macs(&net)));
        graph_draw(&g, f);
    }
    graph_fini(&g);
    net_fini(&net);
    json_decref(doc);
    return rc;
}

int verb_draw(struct cli *c)
{
    struct conn *conn;
    name_str job;
    int64_t trial;
    int rc = job_and_trial(c->arg[0], job, &trial, c->e);
    if (rc < 0 || (rc = cli_conn(c, &conn)) < 0)
        return rc;
    return show_trial(conn, job, trial, c->json, stdout, c->e);
}
