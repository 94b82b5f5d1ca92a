/* submit.c - from the text of a job file to a job that can run: names become hashes, the data is looked at (headers only),
 * the candidates of `verify` are chosen, impossible constraints are found out before a trial exists. Changes nothing. */
#include "coordinator/coord.h"
#include "coordinator/cost.h"
#include "coordinator/rank.h"

#include "common/net.h"
#include "common/rng.h"
#include "common/safetensors.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VERIFY_TRIALS 4096
#define ESTIMATE_SAMPLE   32

typedef unsigned long long ull;

struct curriculum_shape { int T, B, c, h, w, K; struct inner_cfg inner; char kind[16]; }; /* kind: of its teacher, "" where it does not say */

/* ---- what the files say ---- */
int coord_image_shape(void *arg, const char *hash, struct image_shape *out, struct errbuf *e)
{
    struct coord *c = arg;
    char path[4200];
    struct st_file f;
    const struct st_tensor *t;
    int64_t any[4] = { -1, -1, -1, -1 };
    if (!blobs_has(c, hash, NULL))
        return err_set(e, ERR_NOTFOUND, "the dataset %.12s is not in the blobs folder", hash);
    blobs_path(c, hash, path, sizeof path);
    int rc = st_open(&f, path, e);
    if (rc < 0)
        return rc;
    const char *classes = st_meta(&f, "classes");
    rc = st_need(&f, "train.images", ST_U8, 4, any, &t, e);
    if (rc == 0) {
        *out = (struct image_shape){ (int)t->dim[1], (int)t->dim[2], (int)t->dim[3], classes ? atoi(classes) : 0 };
        if (out->n_classes < 2 || out->c < 1 || out->h < 1 || out->w < 1)
            rc = err_set(e, ERR_INPUT, "dataset %.12s: its header gives no classes or no image size", hash);
    }
    st_close(&f);
    return rc;
}

/* Images of the splits, as common/dataset.c cuts them. */
static int split_sizes(struct coord *c, const char *hash, uint64_t *n_train, uint64_t *n_valid, struct errbuf *e)
{
    char path[4200];
    struct st_file f;
    blobs_path(c, hash, path, sizeof path);
    int rc = st_open(&f, path, e);
    if (rc < 0)
        return rc;
    const struct st_tensor *train = st_find(&f, "train.images"), *test = st_find(&f, "test.images");
    uint64_t n = train ? train->dim[0] : 0, own_test = test && test->dim[0] ? 0 : n < 20 ? 1 : n / 10, rest = n - own_test;
    *n_valid = rest < 20 ? 1 : rest / 10 < 5000 ? rest / 10 : 5000;
    *n_train = rest > *n_valid ? rest - *n_valid : 0;
    st_close(&f);
    return 0;
}

static int curriculum_shape(struct coord *c, const char *name, const char *hash, struct curriculum_shape *out, struct errbuf *e)
{
    char path[4200];
    struct st_file f;
    const struct st_tensor *t, *y;
    int64_t any[5] = { -1, -1, -1, -1, -1 };
    if (!blobs_has(c, hash, NULL))
        return err_set(e, ERR_NOTFOUND, "the curriculum %s (%.12s) is not in the blobs folder", name, hash);
    blobs_path(c, hash, path, sizeof path);
    int rc = st_open(&f, path, e);
    if (rc < 0)
        return rc;
    rc = st_need(&f, "images", ST_U8, 5, any, &t, e);
    if (rc == 0)
        rc = st_need(&f, "labels", ST_F32, 3, any, &y, e);
    if (rc == 0)
        *out = (struct curriculum_shape){ (int)t->dim[0], (int)t->dim[1], (int)t->dim[2], (int)t->dim[3], (int)t->dim[4], (int)y->dim[2], inner_default(), "" };
    json_t *inner = rc == 0 && st_meta(&f, "inner") ? json_loads(st_meta(&f, "inner"), 0, NULL) : NULL;
    if (inner)
        rc = inner_from_json(&out->inner, inner, "inner", e);
    json_decref(inner);
    json_t *prov = rc == 0 && st_meta(&f, "provenance") ? json_loads(st_meta(&f, "provenance"), 0, NULL) : NULL;
    const char *kind = json_string_value(json_object_get(json_object_get(prov, "config"), "kind"));
    if (kind)
        snprintf(out->kind, sizeof out->kind, "%s", kind);
    json_decref(prov);
    st_close(&f);
    return rc;
}

int coord_job_data(void *arg, const struct job_spec *spec, struct job_data *out, struct errbuf *e)
{
    struct coord *c = arg;
    struct curriculum_shape cur = { 0 };
    *out = (struct job_data){ .T = 0 };
    int rc = coord_image_shape(c, spec->dataset_hash, &out->img, e);
    if (rc == 0)
        rc = split_sizes(c, spec->dataset_hash, &out->n_train, &out->n_valid, e);
    if (rc == 0 && spec->kind == JOB_SEARCH)
        rc = curriculum_shape(c, spec->curriculum, spec->curriculum_hash, &cur, e);
    out->T = cur.T;
    out->B = cur.B;
    out->inner = cur.inner;
    if (rc == 0 && spec->kind == JOB_SEARCH && spec->audit.control)
        rc = curriculum_shape(c, spec->audit.control_curriculum, spec->audit.control_curriculum_hash, &cur, e);
    out->control_B = cur.B;
    out->control_inner = cur.inner;
    return rc;
}

/* ---- names ---- */
struct names { char text[300]; size_t at; int n; };

static bool on_name(void *arg, const struct blob_name *b)
{
    struct names *n = arg;
    if (n->at < sizeof n->text)
        n->at += (size_t)snprintf(n->text + n->at, sizeof n->text - n->at, "%s%s", n->n ? ", " : "", b->name);
    n->n++;
    return n->at < sizeof n->text - 1;
}

static int resolve(struct coord *c, const char *kind, const char *name, hash_str hash, struct errbuf *e)
{
    struct blob_name b;
    if (!name[0])
        return err_set(e, ERR_INPUT, "%s: no name given", kind);
    int rc = reader_blob(c->reader, kind, name, &b);
    if (rc == 1) {
        memcpy(hash, b.hash, sizeof b.hash);
        return 0;
    }
    if (rc < 0)
        return err_set(e, (enum err)-rc, "cannot look up the %s %s", kind, name);
    struct names n = { .text = "" };
    reader_blobs(c->reader, kind, 20, on_name, &n);
    return err_set(e, ERR_NOTFOUND, "there is no %s \"%s\"; there %s%s", kind, name, n.n ? "are: " : "is none yet, import one first",
                   n.text);
}

int submit_find_job(struct coord *c, const char *name_or_id, uint64_t *id, struct errbuf *e)
{
    char *end;
    unsigned long long n = strtoull(name_or_id, &end, 10);
    struct job_row row;
    if (isdigit((unsigned char)name_or_id[0]) && !*end) {
        int rc = reader_job(c->reader, n, &row);
        if (rc == 1) {
            job_row_fini(&row);
            *id = n;
            return 0;
        }
        if (rc < 0)
            return err_set(e, (enum err)-rc, "cannot read job %s", name_or_id);
    }
    uint64_t ids[4];
    int found = name_or_id[0] && strlen(name_or_id) <= NAME_MAX_LEN ? reader_job_named(c->reader, name_or_id, ids, 4) : 0;
    if (found < 0)
        return err_set(e, (enum err)-found, "cannot look up job %s", name_or_id);
    if (found == 0)
        return err_set(e, ERR_NOTFOUND, "there is no job \"%.80s\"", name_or_id);
    if (found > 1)
        return err_set(e, ERR_INPUT, "\"%s\" begins the names of several jobs: %llu, %llu%s; give a number or more of the name",
                       name_or_id, (ull)ids[0], (ull)ids[1], found > 2 ? " …" : "");
    *id = ids[0];
    return 0;
}

void submit_say_namesakes(struct coord *c, const char *name_or_id, char *out, size_t cap)
{
    enum { SHOWN = 8 };
    uint64_t ids[SHOWN + 1];
    bool number = name_or_id[0] && strspn(name_or_id, "0123456789") == strlen(name_or_id); /* no name is one */
    int  found = number || !name_or_id[0] ? 0 : reader_job_bearers(c->reader, name_or_id, ids, SHOWN + 1);
    size_t n = 0;
    out[0] = 0;
    if (found < 2)
        return;
    n = (size_t)snprintf(out, cap, "several jobs are called \"%s\": %llu, the newest, is meant; the others are", name_or_id, (ull)ids[0]);
    for (int i = 1; i < found && n < cap; i++)
        n += i < SHOWN ? (size_t)snprintf(out + n, cap - n, "%s %llu", i > 1 ? "," : "", (ull)ids[i]) : (size_t)snprintf(out + n, cap - n, " …");
}

/* ---- search ---- */
static int find_curriculum(struct coord *c, const char *name, hash_str hash, const char *dataset, const struct image_shape *img,
                           struct curriculum_shape *cur, struct errbuf *e)
{
    int rc = resolve(c, "curriculum", name, hash, e);
    if (rc == 0)
        rc = curriculum_shape(c, name, hash, cur, e);
    if (rc == 0 && (cur->c != img->c || cur->h != img->h || cur->w != img->w || cur->K != img->n_classes))
        rc = err_set(e, ERR_SHAPE, "curriculum %s has images %dx%dx%d and %d classes, dataset %s %dx%dx%d and %d", name, cur->c, cur->h,
                     cur->w, cur->K, dataset, img->c, img->h, img->w, img->n_classes);
    return rc;
}

static int check_curriculum(struct coord *c, struct job_spec *s, const struct image_shape *img, struct curriculum_shape *cur,
                            struct errbuf *e)
{
    int rc = find_curriculum(c, s->curriculum, s->curriculum_hash, s->dataset, img, cur, e);
    if (rc < 0)
        return rc;
    if (s->fidelity.steps == 0)
        s->fidelity.steps = cur->T;
    if (s->fidelity.steps > cur->T)
        return err_set(e, ERR_INPUT, "fidelity.steps is %d, but curriculum %s has %d", s->fidelity.steps, s->curriculum, cur->T);
    for (int i = 0; i < s->fidelity.n_checkpoints; i++)
        if (s->fidelity.checkpoint[i] > s->fidelity.steps)
            return err_set(e, ERR_INPUT, "fidelity.checkpoints: %d is after the last of %d steps", s->fidelity.checkpoint[i],
                           s->fidelity.steps);
    if (s->halving.n_steps && s->halving.steps[s->halving.n_steps - 1] > s->fidelity.steps)
        return err_set(e, ERR_INPUT, "halving.steps: %d is more than the %d of fidelity", s->halving.steps[s->halving.n_steps - 1],
                       s->fidelity.steps);
    return 0;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* ---- what a trial takes ---- */

/* Operations of a whole trial. */
static double trial_flops(const struct job_spec *s, const struct job_data *data, const struct demand *d)
{
    if (s->kind == JOB_VERIFY)
        return (double)d->train_flops * fmax(1, round(s->verify.epochs * (double)(data->n_train / (uint64_t)s->verify.batch)));
    int learners = s->fidelity.inits * (s->fidelity.n_lr_scales > 0 ? s->fidelity.n_lr_scales : 1), evals = 1;
    for (int i = 0; i < s->fidelity.n_checkpoints; i++)
        evals += s->fidelity.checkpoint[i] != (s->fidelity.steps ? s->fidelity.steps : data->T);
    return (double)learners * ((double)d->train_flops + (double)evals * (double)d->eval_flops);
}

/* An architecture as the dry run shows it. Memory of the largest so far in *largest, and it in dry's "largest". */
static json_t *sized(const struct job_spec *s, const struct job_data *data, const char *arch, uint64_t params, uint64_t macs, uint64_t *largest,
                     json_t *dry)
{
    struct demand d;
    struct errbuf e;
    bool known = fit_demand(s, data, arch, s->halving.n_steps, GROUP_NONE, &d, &e) == 0, host = known && device_class_any_cpu(s->device); /* there, the device's worker chooses */
    json_t *o = json_pack("{s:s,s:I,s:I,s:o,s:o}", "arch", arch, "params", (json_int_t)params, "macs", (json_int_t)macs, "mem_bytes",
                          host ? json_integer((json_int_t)d.mem_bytes) : json_null(), "flops", known ? json_real(trial_flops(s, data, &d)) : json_null());
    if (host && d.mem_bytes > *largest) {
        *largest = d.mem_bytes;
        json_object_set(dry, "largest", o);
    }
    return o;
}

/* The most that one slot of a worker that is here may take; null where none is. */
static json_t *largest_worker(const struct coord *c)
{
    uint64_t most = 0;
    list_each(l, &c->sched->workers) {
        const struct worker *w = list_entry(l, struct worker, all);
        if (w->online && w->mem_bytes > most)
            most = w->mem_bytes;
    }
    return most ? json_integer((json_int_t)most) : json_null();
}

/* Draw proposals as the search will; also finds out whether the constraints leave anything. */
static int sample_search(struct coord *c, const struct job_spec *s, const struct image_shape *img, const struct job_data *data, int n,
                         json_t *dry, struct errbuf *e)
{
    struct job_spec random = *s;
    struct search *search = NULL;
    struct proposal p;
    uint64_t macs[ESTIMATE_SAMPLE], largest = 0;
    char seen[ESTIMATE_SAMPLE][ARCH_HASH_LEN + 1];
    int n_seen = 0;
    snprintf(random.searcher.name, sizeof random.searcher.name, "random");
    random.window = ESTIMATE_SAMPLE + 1;
    random.warmup.candidates = 0; /* the samples are of the space, not of its largest */
    int rc = search_open(&search, s, img, e); /* the job's own searcher: checks its settings */
    search_close(search);
    if (rc == 0)
        rc = search_open(&search, &random, img, e);
    if (rc < 0)
        return rc;
    json_t *list = json_array();
    for (int i = 0; i < n && rc == 0; i++) {
        rc = search_propose(search, &p, e);
        macs[i] = p.macs;
        bool known = rc < 0; /* a small space is drawn over and over */
        for (int k = 0; k < n_seen && !known; k++)
            known = strcmp(seen[k], p.hash) == 0;
        if (known)
            continue;
        memcpy(seen[n_seen++], p.hash, sizeof seen[0]);
        json_t *o = dry ? sized(s, data, p.arch, p.params, p.macs, &largest, dry) : NULL;
        if (o && n_seen <= 3)
            json_array_append(list, o);
        json_decref(o);
    }
    search_close(search);
    if (rc < 0 || !dry) {
        json_decref(list);
        return rc;
    }
    qsort(macs, (size_t)n, sizeof *macs, by_value);
    double median = (double)macs[n / 2];
    uint32_t slots = 0;
    list_each(l, &c->sched->workers)
        slots += list_entry(l, struct worker, all)->online ? list_entry(l, struct worker, all)->slots : 0;
    json_object_set_new(dry, "sample", list);
    json_object_set_new(dry, "sampled", json_integer(n_seen));
    json_object_set_new(dry, "largest_worker_bytes", largest_worker(c));
    json_t *audit = json_object_get(dry, "audit");
    double once = cost_mean(s, data), warmup = cost_warmup(s);
    double trainings = once * json_number_value(json_object_get(audit, "trainings")) * json_number_value(json_object_get(audit, "scorings_each"));
    double passes = once * s->trials + warmup + trainings, seconds = cost_seconds(c->sched, s, median * once * s->trials, median * (warmup + trainings));
    if (audit)
        json_object_set_new(audit, "share", json_real(trainings / passes));
    if (warmup > 0)
        json_object_set_new(dry, "warmup", json_pack("{s:i,s:f,s:f}", "candidates", s->warmup.candidates, "scorings_each",
                                                     warmup / s->warmup.candidates / once, "share", warmup / passes));
    json_object_set_new(dry, "estimate", json_pack("{s:i,s:f,s:f,s:I,s:o}", "trials", s->trials, "macs_median", median, "macs_total", median * passes, "slots",
                                                   (json_int_t)slots, "seconds", seconds > 0 ? json_real(seconds) : json_null()));
    return 0;
}

static int prepare_audit(struct coord *c, struct job_spec *s, const struct job_data *data, json_t *dry, struct errbuf *e)
{
    struct audit_cfg *a = &s->audit;
    struct curriculum_shape real = { 0 };
    const struct fidelity lowest = job_fidelity(s, 0);
    double once = cost_mean(s, data), train = cost_training(data, a->epochs) / once, control = 0;
    if (a->share <= 0)
        return 0;
    if ((uint64_t)a->batch > data->n_train)
        return err_set(e, ERR_INPUT, "audit.batch is %d, but dataset %s has %llu training images", a->batch, s->dataset, (ull)data->n_train);
    int rc = a->control ? find_curriculum(c, a->control_curriculum, a->control_curriculum_hash, s->dataset, &data->img, &real, e) : 0;
    if (rc < 0)
        return err_wrap(e, rc, "audit.control_curriculum");
    if (a->control && real.kind[0] && strcmp(real.kind, "real") != 0)
        return err_set(e, ERR_INPUT, "audit.control_curriculum: %s is of kind %s; the control is a curriculum of real batches (teach.kind: real)", a->control_curriculum, real.kind);
    if (a->control && real.T < lowest.steps)
        return err_set(e, ERR_INPUT, "audit.control_curriculum: %s has %d steps, %s is %d", a->control_curriculum, real.T,
                       s->halving.n_steps ? "halving.steps[0]" : "fidelity.steps", lowest.steps);
    if (a->control)
        control = cost_scoring(&lowest, data, real.B) / once;
    audit_plan(a, s->trials, s->window, train, control);
    int planned = s->trials / a->every < a->max ? s->trials / a->every : a->max;
    if (dry)
        json_object_set_new(dry, "audit", json_pack("{s:i,s:f}", "trainings", planned, "scorings_each", train + control));
    return 0;
}

static int prepare_search(struct coord *c, struct submission *sub, bool dry, struct errbuf *e)
{
    struct job_spec *s = &sub->spec;
    struct image_shape img;
    struct curriculum_shape cur = { 0 };
    uint64_t n_train = 0, n_valid = 0;
    int rc = coord_image_shape(c, s->dataset_hash, &img, e);
    if (rc == 0)
        rc = check_curriculum(c, s, &img, &cur, e);
    if (rc == 0)
        rc = split_sizes(c, s->dataset_hash, &n_train, &n_valid, e);
    if (rc == 0 && s->fidelity.valid_images > 0 && (uint64_t)s->fidelity.valid_images > n_valid)
        rc = err_set(e, ERR_INPUT, "fidelity.valid_images is %d, but dataset %s has %llu validation images", s->fidelity.valid_images,
                     s->dataset, (ull)n_valid);
    struct job_data data = { .img = img, .T = cur.T, .B = cur.B, .inner = cur.inner, .n_train = n_train, .n_valid = n_valid };
    if (rc == 0 && s->trials < 1)
        rc = err_set(e, ERR_INPUT, "budget.trials must be at least 1");
    if (rc == 0)
        rc = prepare_audit(c, s, &data, dry ? sub->dry : NULL, e);
    if (rc < 0)
        return rc;
    const struct space *sp = space_find(s->space);
    if ((rc = sp ? space_proxy_check(sp, &s->fidelity.proxy, "fidelity", e) : 0) < 0)
        return rc;
    if (dry && sp)
        json_object_set_new(sub->dry, "space_size", json_real(sp->size));
    return sample_search(c, s, &img, &data, dry ? ESTIMATE_SAMPLE : 1, dry ? sub->dry : NULL, e);
}

/* ---- verify ---- */
struct standing { struct ranked r; size_t rank; };
struct candidates { struct standing *v; size_t n; };

static int by_hash(const void *a, const void *b) /* the better ranked of one architecture first */
{
    const struct standing *x = a, *y = b;
    int d = strcmp(x->r.hash, y->r.hash);
    return d ? d : (x->rank > y->rank) - (x->rank < y->rank);
}

static int by_rank(const void *a, const void *b)
{
    const struct standing *x = a, *y = b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* A repeated architecture counts once: its first trial stands for it (they all have the same numbers). */
static int unique(const struct ranked *r, size_t n, struct candidates *k, struct errbuf *e)
{
    struct standing *v = malloc((n + 1) * sizeof *v);
    if (!v)
        return err_set(e, ERR_NOMEM, "verify");
    for (size_t i = 0; i < n; i++)
        v[i] = (struct standing){ r[i], i };
    qsort(v, n, sizeof *v, by_hash);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(v[i].r.hash, v[k->n - 1].r.hash) != 0)
            v[k->n++] = v[i];
    qsort(v, k->n, sizeof *v, by_rank);
    k->v = v;
    return 0;
}

/* Behind the `top` best: `random` others, drawn without replacement, moved to follow them. */
static void choose(struct candidates *k, size_t top, size_t random, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, RNG_SAMPLE, 0);
    for (size_t i = 0; i < random && top + i < k->n; i++) {
        size_t j = top + i + rng_below(&r, (uint32_t)(k->n - top - i));
        struct standing t = k->v[top + i];
        k->v[top + i] = k->v[j];
        k->v[j] = t;
    }
}

static int room(struct submission *sub, size_t n_arch, struct errbuf *e)
{
    size_t seeds = sub->spec.verify.seeds > 0 ? (size_t)sub->spec.verify.seeds : 1;
    if (n_arch == 0)
        return err_set(e, ERR_INPUT, "verify: nothing to train; set top, random or archs");
    if (n_arch * seeds > MAX_VERIFY_TRIALS)
        return err_set(e, ERR_INPUT, "verify: %zu architectures times %zu seeds are more than %d trainings", n_arch, seeds, MAX_VERIFY_TRIALS);
    sub->trials = calloc(n_arch * seeds, sizeof *sub->trials);
    return sub->trials ? 0 : err_set(e, ERR_NOMEM, "verify");
}

/* One trial a seed; the k-th seed of an architecture is a function of (job seed, architecture, k). */
static int add_arch(struct submission *sub, const struct image_shape *img, const char *arch, enum trial_group g, double proxy,
                    struct errbuf *e)
{
    const struct space *sp = space_find(sub->spec.space);
    static const struct constraints none;
    int seeds = sub->spec.verify.seeds > 0 ? sub->spec.verify.seeds : 1;
    for (int k = 0; k < seeds; k++) {
        struct trial_row *t = &sub->trials[sub->n_trials];
        int rc = search_fits(sp, arch, img, &sub->spec.verify.proxy, &none, &t->r.params, &t->r.macs, e);
        if (rc < 0)
            return err_wrap(e, rc, "%.100s", arch);
        t->idx = sub->n_trials++;
        t->state = TRIAL_WAITING;
        snprintf(t->arch, sizeof t->arch, "%s", arch);
        arch_hash(sp->name, arch, t->arch_hash);
        t->parent = -1;
        t->seed = trial_seed(sub->spec.seed, t->arch_hash);
        if (k > 0)
            t->seed = rng_derive(t->seed, RNG_WEIGHTS, (uint64_t)k);
        t->group = g;
        t->proxy = proxy;
    }
    return 0;
}

static int from_list(struct submission *sub, const struct image_shape *img, struct errbuf *e)
{
    const struct space *sp = space_find(sub->spec.space);
    int rc = sp ? room(sub, (size_t)sub->spec.verify.n_arch, e) : err_set(e, ERR_NOTFOUND, "there is no search space \"%s\"", sub->spec.space);
    for (int i = 0; i < sub->spec.verify.n_arch && rc == 0; i++) {
        char text[ARCH_TEXT_MAX];
        rc = sp->canon(sp, sub->spec.verify.arch[i], text, e);
        if (rc < 0)
            return err_wrap(e, rc, "verify.arch item %d", i + 1);
        snprintf(sub->spec.verify.arch[i], sizeof sub->spec.verify.arch[i], "%s", text);
        for (int j = 0; j < i; j++) /* of an imported space the job file's own check could not know */
            if (strcmp(sub->spec.verify.arch[j], text) == 0)
                return err_set(e, ERR_INPUT, "verify.arch items %d and %d are the same network", j + 1, i + 1);
        rc = add_arch(sub, img, text, GROUP_LIST, NAN, e);
    }
    return rc;
}

static int from_search(struct coord *c, struct submission *sub, uint64_t of, const struct rank_by *by, const struct image_shape *img,
                       struct errbuf *e)
{
    struct candidates k = { 0 };
    struct ranked *all = NULL;
    size_t n_all = 0;
    size_t top = sub->spec.verify.top > 0 ? (size_t)sub->spec.verify.top : 0;
    size_t random = sub->spec.verify.random > 0 ? (size_t)sub->spec.verify.random : 0;
    int rc = rank_scored(c->reader, of, by, &all, &n_all, e);
    if (rc == 0)
        rc = unique(all, n_all, &k, e);
    if (rc == 0 && k.n == 0)
        rc = err_set(e, ERR_STATE, "job %llu has no scored trial to verify", (ull)of);
    free(all);
    top = top < k.n ? top : k.n;
    random = random < k.n - top ? random : k.n - top;
    if (rc == 0)
        rc = room(sub, top + random, e);
    if (rc == 0)
        choose(&k, top, random, sub->spec.seed);
    struct trial_row *t = malloc(sizeof *t);
    for (size_t i = 0; i < top + random && rc == 0; i++) {
        if (!t || reader_trial(c->reader, of, k.v[i].r.idx, t) != 1)
            rc = err_set(e, ERR_IO, "cannot read trial %llu of job %llu", (ull)k.v[i].r.idx, (ull)of);
        else
            rc = add_arch(sub, img, t->arch, i < top ? GROUP_TOP : GROUP_RANDOM, k.v[i].r.value, e);
    }
    free(t);
    free(k.v);
    return rc;
}

/* The search, and what its candidates are ranked by: the fused score where its file has one. */
static int searched_job(struct coord *c, struct job_spec *s, uint64_t *of, struct rank_by *by, struct errbuf *e)
{
    struct job_row row;
    struct job_spec *base = NULL;
    int rc = submit_find_job(c, s->verify.of, of, e);
    if (rc < 0)
        return err_wrap(e, rc, "verify.of");
    if (reader_job(c->reader, *of, &row) != 1)
        return err_set(e, ERR_IO, "cannot read job %llu", (ull)*of);
    json_t *doc = json_loads(row.spec_json, 0, NULL);
    if (row.kind != JOB_SEARCH)
        rc = err_set(e, ERR_INPUT, "verify.of: job %llu is a %s, not a search", (ull)*of, job_kind_name(row.kind));
    else if (row.state != JOB_SUCCEEDED && row.state != JOB_FAILED && row.state != JOB_CANCELLED)
        rc = err_set(e, ERR_STATE, "verify.of: job %llu (%s) is %s; it can be verified once it has ended", (ull)*of, row.name,
                     job_state_name(row.state));
    else if (!doc || !(base = malloc(sizeof *base)))
        rc = err_set(e, ERR_NOMEM, "verify");
    else
        rc = job_from_json(base, doc, e);
    if (rc == 0 && base)
        rc = rank_by_name(base, base->scores.n_fuse ? FUSED_NAME : score_columns[COLUMN_SCORE].name, by, e);
    if (rc == 0 && base) { /* what the file leaves out is as the search had it; the architectures are of its space */
        memcpy(s->space, base->space, sizeof s->space);
        memcpy(s->space_hash, base->space_hash, sizeof s->space_hash);
        if ((rc = spaces_of_job(c, base, e)) < 0)
            err_wrap(e, rc, "verify.of");
    }
    if (rc == 0 && base) {
        if (!s->verify.proxy.channels)
            s->verify.proxy.channels = base->fidelity.proxy.channels;
        if (!s->verify.proxy.cells)
            s->verify.proxy.cells = base->fidelity.proxy.cells;
        const struct space *sp = space_find(s->space);
        rc = sp ? space_proxy_check(sp, &s->verify.proxy, "verify", e) : 0;
        if (!s->dataset[0]) {
            memcpy(s->dataset, base->dataset, sizeof s->dataset);
            memcpy(s->dataset_hash, base->dataset_hash, sizeof s->dataset_hash);
        }
    }
    if (rc == 0) /* the number stays right when another job takes the name */
        snprintf(s->verify.of, sizeof s->verify.of, "%llu", (ull)*of);
    json_decref(doc);
    free(base);
    job_row_fini(&row);
    return rc;
}

static int prepare_verify(struct coord *c, struct submission *sub, bool dry, struct errbuf *e)
{
    struct job_spec *s = &sub->spec;
    struct image_shape img;
    struct rank_by by;
    uint64_t of = 0;
    const struct space *sp;
    submit_say_namesakes(c, s->verify.of, sub->note, sizeof sub->note);
    int rc = s->verify.of[0] ? searched_job(c, s, &of, &by, e) : spaces_resolve(c, s->space, s->space_hash, e);
    if (rc == 0 && !s->verify.of[0] && (sp = space_find(s->space)))
        rc = space_proxy_check(sp, &s->verify.proxy, "verify", e);
    if (rc == 0 && !s->dataset_hash[0])
        rc = resolve(c, "dataset", s->dataset, s->dataset_hash, e);
    if (rc == 0)
        rc = coord_image_shape(c, s->dataset_hash, &img, e);
    if (rc == 0)
        rc = s->verify.of[0] ? from_search(c, sub, of, &by, &img, e) : from_list(sub, &img, e);
    if (rc < 0 || !dry)
        return rc;
    struct job_data data;
    uint64_t largest = 0;
    if ((rc = coord_job_data(c, s, &data, e)) < 0)
        return rc;
    const size_t seeds = s->verify.seeds > 0 ? (size_t)s->verify.seeds : 1; /* an architecture's trials follow each other */
    json_t *list = json_array();
    size_t n = 0;
    for (size_t i = 0; i < sub->n_trials && n < ESTIMATE_SAMPLE; i += seeds, n++) {
        json_t *o = sized(s, &data, sub->trials[i].arch, sub->trials[i].r.params, sub->trials[i].r.macs, &largest, sub->dry);
        if (n < 3)
            json_array_append(list, o);
        json_decref(o);
    }
    json_object_set_new(sub->dry, "sample", list);
    json_object_set_new(sub->dry, "sampled", json_integer((json_int_t)n));
    json_object_set_new(sub->dry, "largest_worker_bytes", largest_worker(c));
    json_object_set_new(sub->dry, "estimate", json_pack("{s:I,s:f}", "trials", (json_int_t)sub->n_trials, "epochs",
                                                        s->verify.epochs * (double)sub->n_trials));
    return 0;
}

/* ---- teach ---- */
static int prepare_teach(struct coord *c, struct submission *sub, bool dry, struct errbuf *e)
{
    struct job_spec *s = &sub->spec;
    struct image_shape img;
    int rc = coord_image_shape(c, s->dataset_hash, &img, e);
    for (int i = 0; i < s->teach.n_mix && rc == 0; i++)
        if ((rc = spaces_resolve(c, s->teach.mix_space[i], s->teach.mix_hash[i], e)) < 0)
            err_wrap(e, rc, "teach.learners_mix");
    for (int i = 1; i < s->teach.n_mix && rc == 0; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(s->teach.mix_space[i], s->teach.mix_space[j]) == 0)
                rc = err_set(e, ERR_INPUT, "teach.learners_mix names %s twice", s->teach.mix_space[i]);
    if (rc == 0 && !(sub->trials = calloc(1, sizeof *sub->trials)))
        rc = err_set(e, ERR_NOMEM, "teach");
    if (rc < 0)
        return rc;
    sub->n_trials = 1;
    sub->trials[0].state = TRIAL_WAITING;
    sub->trials[0].parent = -1;
    sub->trials[0].seed = s->seed;
    sub->trials[0].proxy = NAN;
    if (dry)
        json_object_set_new(sub->dry, "estimate", json_pack("{s:i,s:i,s:f}", "trials", 1, "meta_steps", s->teach.meta_steps, "seconds",
                                                            s->teach.seconds));
    return 0;
}

int submit_prepare(struct coord *c, const struct wire_msg *m, struct submission *out, struct errbuf *e)
{
    struct job_spec *s = &out->spec;
    bool dry = m->submit.dry_run;
    int rc = jobfile_parse(m->submit.yaml, strlen(m->submit.yaml), m->submit.file[0] ? m->submit.file : "job file", s, e);
    if (rc == 0)
        rc = jobfile_set_all(s, m->submit.set, m->submit.n_set, e);
    if (rc < 0)
        return rc;
    memset(s->dataset_hash, 0, sizeof s->dataset_hash); /* only what is resolved here counts */
    memset(s->curriculum_hash, 0, sizeof s->curriculum_hash);
    memset(s->audit.control_curriculum_hash, 0, sizeof s->audit.control_curriculum_hash);
    s->audit.every = s->audit.lag = 0;
    if (dry && !(out->dry = json_object()))
        return err_set(e, ERR_NOMEM, "job");
    if (s->kind != JOB_VERIFY)
        rc = resolve(c, "dataset", s->dataset, s->dataset_hash, e);
    if (rc == 0 && s->kind == JOB_SEARCH)
        rc = spaces_resolve(c, s->space, s->space_hash, e);
    if (rc == 0)
        rc = s->kind == JOB_SEARCH ? prepare_search(c, out, dry, e)
           : s->kind == JOB_VERIFY ? prepare_verify(c, out, dry, e) : prepare_teach(c, out, dry, e);
    if (rc == 0 && dry)
        json_object_set_new(out->dry, "spec", job_to_json(s));
    if (rc < 0) {
        free(out->trials);
        out->trials = NULL;
    }
    return rc;
}
