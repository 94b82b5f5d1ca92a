/* demo.c - the whole road in ten minutes: import real images, teach, search on the shipped curriculum, verify by real training, export.
 * Every step is what a person would type; the command is shown beside it. The folder is kept. */
#include "client/local.h"
#include "client/verbs.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEMO_DATA "/usr/share/datasets/fashion-mnist"
#define DEMO_SET  "fashion-mnist"
#define DEMO_CURRICULUM "fashion-mnist-gtn-t32.safetensors" /* of those shipped the one that ranks best (docs/RESULTS.md) */
#define STEPS     6

struct demo {
    struct local_cfg local;
    const char *data, *curriculum_file;
    double   minutes_teach, epochs, began;
    int64_t  trials, top, random, max_macs, workers;
    char     curriculum[NAME_MAX_LEN + 1]; /* name, or hash of the one just taught */
    char     found[FS_PATH_MAX];           /* the shipped file */
    name_str teach, search, verify;        /* job numbers */
    char     file[3][FS_PATH_MAX];
    int      n_files;
    struct conn *conn;
    struct errbuf *e;
};

static volatile int interrupted;

static void on_signal(int s) { interrupted = s; }

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void heading(const struct demo *d, int step, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void heading(const struct demo *d, int step, const char *fmt, ...)
{
    short_str s;
    va_list ap;
    printf("\n[%d/%d] ", step, STEPS);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("  (%s so far)\n", fmt_seconds(s, now_s() - d->began));
    fflush(stdout);
}

/* ---- what was asked for ---- */

/* Where none is found that of the teach job is taken. */
static void find_curriculum(struct demo *d)
{
    char share[FS_PATH_MAX];
    if (!d->curriculum_file && local_share(share, NULL) == 0 &&
        snprintf(d->found, sizeof d->found, "%s/curricula/" DEMO_CURRICULUM, share) < (int)sizeof d->found && access(d->found, R_OK) == 0)
        d->curriculum_file = d->found;
}

static int options(struct cli *c, struct demo *d)
{
    char fresh[64];
    time_t t = time(NULL);
    struct tm tm;
    const char *dir = cli_str(c, "dir", NULL);
    int rc;
    d->data = cli_str(c, "data", DEMO_DATA);
    d->curriculum_file = cli_str(c, "curriculum", NULL);
    if ((rc = cli_num(c, "minutes-teach", 0.05, 600, &d->minutes_teach)) < 0 || (rc = cli_num(c, "epochs", 0.01, 1000, &d->epochs)) < 0 ||
        (rc = cli_int(c, "trials", 12, 1000000, &d->trials)) < 0 || (rc = cli_int(c, "top", 1, 64, &d->top)) < 0 ||
        (rc = cli_int(c, "random", 0, 64, &d->random)) < 0 || (rc = cli_int(c, "max-macs", 10000, INT64_MAX, &d->max_macs)) < 0 ||
        (rc = cli_int(c, "workers", 1, LOCAL_MAX_WORKERS, &d->workers)) < 0)
        return rc;
    if (d->top + d->random > d->trials)
        return err_set(d->e, ERR_USAGE, "--top and --random together are more than --trials");
    if (!dir) {
        localtime_r(&t, &tm);
        strftime(fresh, sizeof fresh, "didact-local/demo-%Y%m%d-%H%M%S", &tm);
        dir = fresh;
    }
    if ((rc = local_dir(dir, d->local.dir, d->e)) < 0)
        return rc;
    if (strlen(d->local.dir) + 64 >= FS_PATH_MAX)
        return err_set(d->e, ERR_USAGE, "the folder's name is too long");
    char run[FS_PATH_MAX + 8];
    snprintf(run, sizeof run, "%s/run", d->local.dir);
    if (fs_is_dir(run))
        return err_set(d->e, ERR_USAGE, "%s holds an earlier run; the demo wants a new folder (didact local start --dir shows the old one)",
                       d->local.dir);
    d->local.workers = (int)d->workers;
    d->local.slots = 1;
    find_curriculum(d);
    return 0;
}

/* ---- the steps ---- */

static int start(struct demo *d)
{
    heading(d, 1, "a coordinator and %lld workers in one folder: didact local start --dir %s", (long long)d->workers, d->local.dir);
    int rc = local_start(&d->local, stdout, d->e);
    if (rc < 0)
        return rc;
    struct conn_cfg cfg = { .dir = d->local.dir, .timeout_ms = 30000 };
    rc = conn_open(&cfg, &d->conn, d->e);
    if (rc == 0)
        printf("running; %s\n", conn_endpoint(d->conn));
    return rc;
}

static int import(struct demo *d)
{
    hash_str hash;
    struct dataset_facts f;
    heading(d, 2, "real images: didact dataset import %s %s", d->data, DEMO_SET);
    int rc = dataset_push(d->conn, d->data, DEMO_SET, hash, d->e);
    if (rc < 0)
        return strcmp(d->data, DEMO_DATA) == 0 && !fs_is_dir(DEMO_DATA)
                   ? err_set(d->e, ERR_NOTFOUND, "%s is not there: apt-get install dataset-fashion-mnist, or --data DIR", DEMO_DATA)
                   : rc;
    if ((rc = dataset_facts(d->conn, DEMO_SET, &f, d->e)) < 0)
        return rc;
    printf("%llu + %llu images of %dx%dx%d, %d classes; content hash %.16s…\n", (unsigned long long)f.train,
           (unsigned long long)f.test, f.c, f.h, f.w, f.n_classes, hash);
    if (!d->curriculum_file)
        return 0;
    snprintf(d->curriculum, sizeof d->curriculum, "shipped");
    if ((rc = curriculum_push(d->conn, d->curriculum_file, d->curriculum, hash, d->e)) < 0)
        return rc;
    printf("curriculum %s\n", d->curriculum_file);
    return 0;
}

/* Submit, follow, and give the results document (caller owns). A job that did not succeed is an error. */
static int run_job(struct demo *d, const char *yaml, name_str id, json_t **results)
{
    struct watch_cfg w = { .f = stdout, .indent = "  ", .stop = &interrupted };
    json_t *job;
    int rc = submit_text(d->conn, yaml, "demo", id, d->e);
    if (rc < 0 || (rc = watch_job(d->conn, id, &w, &job, d->e)) < 0)
        return rc;
    if (job_exit_status(job) != 0)
        rc = err_set(d->e, ERR_FAILED, "job %s %s: %s", id, doc_str(job, "state"), doc_str(job, "reason"));
    json_decref(job);
    return rc < 0 ? rc : ask_results(d->conn, id, results, d->e);
}

static int teach(struct demo *d)
{
    char yaml[1024];
    json_t *doc;
    heading(d, 3, "a teacher from scratch, for %g minutes: it learns to write images that teach networks", d->minutes_teach);
    snprintf(yaml, sizeof yaml,
             "kind: teach\nname: demo-teach\nseed: 1\ndataset: " DEMO_SET "\n"
             "teach:\n  kind: gtn\n  steps: 12\n  batch: 64\n  seconds: %g\n  learners: 2\n  meta_batch: 256\n  max_macs: 200k\n  eval_every: 20\n"
             "  inner:\n    type: lars\n  adam:\n    lr: 0.006\n    beta2: 0.99\n", d->minutes_teach * 60);
    int rc = run_job(d, yaml, d->teach, &doc);
    if (rc < 0)
        return rc;
    show_results(doc, stdout);
    if (!d->curriculum_file)
        snprintf(d->curriculum, sizeof d->curriculum, "%.12s", doc_str(doc, "teach.curriculum"));
    json_decref(doc);
    printf("Accuracy: of freshly drawn networks on held-out real images after these few steps on the teacher's images alone.\n%s\n",
           d->curriculum_file ? "The search below uses the shipped curriculum, which took an hour."
                              : "No curriculum is shipped here: the search below uses this one, which had only minutes.");
    return 0;
}

static int search(struct demo *d)
{
    char yaml[1024];
    json_t *doc;
    heading(d, 4, "a search over %lld networks of the space `chain`", (long long)d->trials);
    snprintf(yaml, sizeof yaml,
             "kind: search\nname: demo-search\nseed: 1\ndataset: " DEMO_SET "\ncurriculum: \"%s\"\nspace: chain\n"
             "searcher:\n  name: evolution\nfidelity:\n  inits: 2\n  valid_images: 2000\n"
             "constraints:\n  max_macs: %lld\naudit:\n  share: 0.1\n  epochs: 0.5\nbudget:\n  trials: %lld\n",
             d->curriculum, (long long)d->max_macs, (long long)d->trials);
    int rc = run_job(d, yaml, d->search, &doc);
    if (rc < 0)
        return rc;
    show_results(doc, stdout);
    json_decref(doc);
    printf("The audit trained a random sample of these candidates for half an epoch of real images while the search ran, to see whether\n"
           "the score ranks networks as real training does.\n");
    return 0;
}

static int verify(struct demo *d)
{
    char yaml[1024];
    json_t *doc;
    heading(d, 5, "real training of the %lld best and %lld random candidates, %g epochs each", (long long)d->top, (long long)d->random,
            d->epochs);
    snprintf(yaml, sizeof yaml,
             "kind: verify\nname: demo-verify\nseed: 1\ndataset: " DEMO_SET "\nspace: chain\n"
             "verify:\n  of: \"%s\"\n  top: %lld\n  random: %lld\n  epochs: %g\n", d->search, (long long)d->top, (long long)d->random, d->epochs);
    int rc = run_job(d, yaml, d->verify, &doc);
    if (rc < 0)
        return rc;
    show_results(doc, stdout);
    json_decref(doc);
    return 0;
}

static int export_one(struct demo *d, enum export_format format, const char *job, const char *name)
{
    char path[FS_PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", d->local.dir, name) >= FS_PATH_MAX)
        return err_set(d->e, ERR_USAGE, "the folder's name is too long");
    int rc = export_trial(d->conn, job, -1, format, path, d->e);
    if (rc < 0)
        return rc;
    memcpy(d->file[d->n_files++], path, sizeof path);
    printf("%s\n", path);
    return 0;
}

static int save(struct demo *d)
{
    heading(d, 6, "the best network as files");
    int rc = export_one(d, EXPORT_ONNX, d->verify, "best.onnx");
    if (rc == 0)
        rc = export_one(d, EXPORT_SAFETENSORS, d->verify, "best.safetensors");
    return rc == 0 ? export_one(d, EXPORT_CSV, d->search, "search.csv") : rc;
}

static void farewell(const struct demo *d)
{
    short_str s;
    printf("\nDone in %s. Everything is kept in %s. To look further:\n"
           "  didact local start --dir %s\n"
           "  didact results %s --dir %s            the search; also show, trials, best, replay\n"
           "  didact audit %s --dir %s              how far its scores can be trusted\n"
           "  didact export %s --trial 1 -o other.onnx --dir %s\n"
           "  didact local stop --dir %s\n",
           fmt_seconds(s, now_s() - d->began), d->local.dir, d->local.dir, d->search, d->local.dir, d->search,
           d->local.dir, d->verify, d->local.dir, d->local.dir);
}

static int all_steps(struct demo *d)
{
    static int (*const step[STEPS])(struct demo *) = { start, import, teach, search, verify, save };
    int rc = 0;
    for (int i = 0; i < STEPS && rc == 0; i++) {
        rc = step[i](d);
        if (rc == 0 && interrupted)
            rc = err_set(d->e, ERR_CANCELLED, "interrupted");
    }
    return rc;
}

static void as_json(const struct demo *d)
{
    json_t *files = json_array();
    for (int i = 0; i < d->n_files; i++)
        json_array_append_new(files, json_string(d->file[i]));
    json_t *doc = json_pack("{s:s,s:f,s:s,s:s,s:s,s:o}", "dir", d->local.dir, "seconds", now_s() - d->began, "teach", d->teach, "search",
                            d->search, "verify", d->verify, "files", files);
    print_json(stdout, doc);
    json_decref(doc);
}

int verb_demo(struct cli *c)
{
    struct demo d = { .minutes_teach = 2, .epochs = 2, .trials = 200, .top = 3, .random = 6, .max_macs = 1000000, .workers = 2,
                      .began = now_s(), .e = c->e };
    struct sigaction a = { .sa_handler = on_signal };
    int stopped, out = -1, rc = options(c, &d);
    if (rc < 0)
        return rc;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    if (c->json) { /* the talk goes to stderr, the document alone to stdout */
        fflush(stdout);
        out = dup(STDOUT_FILENO);
        dup2(STDERR_FILENO, STDOUT_FILENO);
    }
    rc = all_steps(&d);
    conn_close(d.conn);
    int rc_stop = local_stop(d.local.dir, &stopped, stderr, rc < 0 ? NULL : c->e);
    if (rc == 0)
        rc = rc_stop;
    if (rc == 0)
        farewell(&d);
    else
        fprintf(stderr, "the demo stopped; what there is is kept in %s (logs in %s/logs)\n", d.local.dir, d.local.dir);
    if (out >= 0) {
        fflush(stdout);
        dup2(out, STDOUT_FILENO);
        close(out);
        if (rc == 0)
            as_json(&d);
    }
    return rc;
}
