/* cmd_score.c - the scores of a list of architectures, without a coordinator: a CSV in the columns of the score book (common/book.h), a row a
 * line of the list, in its order, whatever the number of threads. What a list repeats is computed once.
 *
 * The file is written row by row and always the beginning of what it will be: a second call with the same inputs goes on where the
 * first was stopped, one with others is refused. Without --curriculum only the scores that need no training are taken. */
#include "worker/cmd.h"

#include "common/blob.h"
#include "common/book.h"
#include "common/fsio.h"
#include "worker/clock.h"
#include "worker/datacache.h"
#include "worker/engine/device.h"
#include "worker/latency.h"
#include "worker/par.h"
#include "worker/spaces.h"
#include "worker/task.h"
#include "worker/zerocost.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char USAGE[] =
    "Example: didact-worker score --space nasbench201 --archs cells.txt --dataset cifar10.safetensors --zero-cost all --out scores.csv\n"
    "\n"
    "Score every architecture of a list on this machine, without a coordinator. A row of --out is what `didact book import` takes.\n"
    "  --archs FILE        an architecture a line; empty lines and those that begin with # are passed over\n"
    "  --out FILE          the CSV; rows that it has already are kept\n"
    "  --dataset FILE      the real images (a dataset file)\n"
    "  --curriculum FILE   train on it and take the accuracy; without it only --zero-cost\n"
    "  --space NAME        the architectures' space (default chain), or the path of a space file\n"
    "  --job JOB.yaml      a search job: its space, seed, fidelity and scores\n"
    "  --inits N           fidelity.inits\n"
    "  --zero-cost LIST    synflow,naswot,jacob_cov,zico,snip,grad_norm, or all\n"
    "  --set KEY=VALUE     any key of a search job, as fidelity.checkpoints=[8,16]; may be repeated\n"
    "  --device cuda[:N]   train on that GPU, its initialisations side by side (default: the CPU); the rows' engine says so\n"
    "  --threads N         architectures side by side (default: the number of processors)\n"
    "  --seconds           a column with the time that each took; the file then differs from run to run\n"
    "  --latency           a column with the milliseconds of a forward pass (of latency.batch images); likewise. Best with --threads 1\n"
    "A signal ends it after the rows at work; the same command goes on from there. Exit: 0 done or stopped, 65 bad input.\n";

#define MAX_SET      64
#define MAX_LIST     (256u << 20) /* bytes of --archs */
#define TALK_EVERY_S 30.0

struct options {
    const char *archs, *out, *dataset, *curriculum, *job, *space, *device, *set[MAX_SET];
    int   n_set, threads;
    unsigned measured;           /* BOOK_SECONDS, BOOK_LATENCY */
    char  inits[40], zero_cost[256]; /* assignments, "" if not given */
};

struct line {
    char  *arch;                 /* owned, canonical */
    char   hash[ARCH_HASH_LEN + 1];
    int    first;                /* the first line with this architecture; most often itself */
    struct trial_result *r;      /* owned; NULL until it is known */
};

struct scoring {
    const struct options *o;
    struct job_spec      *spec;
    const struct space   *space;
    const struct device  *device; /* NULL: the CPU */
    name_str              engine;
    hash_str              dataset, curriculum;
    char                  fidelity[BOOK_FIDELITY_MAX];
    const struct real_data *data;
    struct line *line;
    int          n, kept, written; /* lines; rows that were there; rows that are there now */
    int         *todo, n_todo;
    FILE        *f;
    pthread_mutex_t lock;        /* of line[].r, written, f, rc, e */
    int             rc;
    struct errbuf   e;
    struct timespec begin, talked;
};

/* ---- one architecture ---- */

static const char *on_blob_path(void *arg, const char *hash)
{
    const struct scoring *s = arg;
    return strcmp(hash, s->dataset) == 0 ? s->o->dataset : strcmp(hash, s->curriculum) == 0 ? s->o->curriculum : NULL;
}

static int by_training(struct scoring *s, const struct line *l, struct trial_result *r, struct errbuf *e)
{
    struct task_env env = { .arg = s, .blob_path = on_blob_path, .cancelled = cmd_cancelled, .threads = 1, .device = s->device };
    struct task *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "a task");
    t->kind = TASK_SCORE;
    snprintf(t->score.space, sizeof t->score.space, "%s", s->space->name);
    snprintf(t->score.space_hash, sizeof t->score.space_hash, "%s", s->space->hash ? s->space->hash : "");
    snprintf(t->score.arch, sizeof t->score.arch, "%s", l->arch);
    memcpy(t->score.dataset, s->dataset, sizeof s->dataset);
    memcpy(t->score.curriculum, s->curriculum, sizeof s->curriculum);
    t->score.fidelity = s->spec->fidelity;
    t->score.seed = trial_seed(s->spec->seed, l->hash);
    t->score.zero_cost = job_zero_cost(s->spec);
    t->score.latency_batch = s->o->measured & BOOK_LATENCY ? s->spec->latency.batch : 0;
    int rc = task_score(t, &env, r, e);
    free(t);
    return rc;
}

/* At the weights that a training would start from. */
static int without_training(struct scoring *s, const struct line *l, struct trial_result *r, struct errbuf *e)
{
    const struct dataset *d = &s->data->d;
    const uint64_t seed = rng_derive(trial_seed(s->spec->seed, l->hash), RNG_WEIGHTS, 0);
    struct timespec begin;
    struct net net;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    int rc = space_build(s->space, l->arch, d->c, d->h, d->w, d->n_classes, &s->spec->fidelity.proxy, &net, e);
    if (rc < 0)
        return rc;
    r->state = TRIAL_SCORED;
    r->params = net.param_count;
    r->macs = net_macs(&net);
    if (job_zero_cost(s->spec))
        rc = zerocost_scores(&net, s->data, seed, NULL, job_zero_cost(s->spec), &r->zero_cost, e);
    if (rc == 0 && s->o->measured & BOOK_LATENCY)
        rc = latency_measure(&net, s->data, s->spec->latency.batch, cmd_cancelled, NULL, &r->latency_ms, e);
    r->seconds = seconds_since(&begin);
    net_fini(&net);
    return rc;
}

static void write_row(struct scoring *s, const struct line *l, const struct trial_result *r)
{
    struct book_row b = { .seed = trial_seed(s->spec->seed, l->hash), .r = *r };
    snprintf(b.space, sizeof b.space, "%s", s->space->name);
    snprintf(b.arch, sizeof b.arch, "%s", l->arch);
    memcpy(b.arch_hash, l->hash, sizeof b.arch_hash);
    memcpy(b.dataset, s->dataset, sizeof b.dataset);
    memcpy(b.curriculum, s->curriculum, sizeof b.curriculum);
    memcpy(b.fidelity, s->fidelity, sizeof b.fidelity);
    snprintf(b.engine, sizeof b.engine, "%s", s->engine);
    book_write_row(s->f, &b, s->o->measured);
}

static void talk(struct scoring *s, bool last)
{
    const int done = s->written - s->kept;
    const double t = seconds_since(&s->begin);
    if (!last && seconds_since(&s->talked) < TALK_EVERY_S)
        return;
    clock_gettime(CLOCK_MONOTONIC, &s->talked);
    fprintf(stderr, "%d of %d rows, %.3g a second", s->written, s->n, t > 0 ? done / t : 0);
    if (!last && done > 0)
        fprintf(stderr, ", %.0f s left", (s->n - s->written) * t / done);
    fputc('\n', stderr);
}

/* With the lock: every row whose turn has come. */
static void write_ready(struct scoring *s)
{
    for (; s->written < s->n && s->line[s->line[s->written].first].r; s->written++) {
        const struct line *l = &s->line[s->written];
        write_row(s, l, s->line[l->first].r);
    }
    if (fflush(s->f) != 0 && s->rc == 0)
        s->rc = fs_error(&s->e, errno, "cannot write", s->o->out);
    talk(s, false);
}

static void score_one(void *arg, int item, int thread)
{
    struct scoring *s = arg;
    struct line *l = &s->line[s->todo[item]];
    struct errbuf e = { 0 };
    (void)thread;
    pthread_mutex_lock(&s->lock);
    bool go = !cmd_stopped() && s->rc == 0;
    pthread_mutex_unlock(&s->lock);
    struct trial_result *r = go ? calloc(1, sizeof *r) : NULL;
    if (!go)
        return;
    int rc = !r ? err_set(&e, ERR_NOMEM, "a result") : *s->curriculum ? by_training(s, l, r, &e) : without_training(s, l, r, &e);
    if (rc < 0 && r && fail_reason_of(rc) == FAIL_INPUT) { /* a fact about the architecture: a row like others */
        r->state = TRIAL_FAILED;
        r->reason = FAIL_INPUT;
        snprintf(r->detail, sizeof r->detail, "%.255s", err_message(&e, rc));
        rc = 0;
    }
    pthread_mutex_lock(&s->lock);
    if (rc == 0) {
        l->r = r;
        write_ready(s);
    } else if (s->rc == 0 && rc != -ERR_CANCELLED) {
        s->rc = err_wrap(&e, rc, "%s", l->arch);
        s->e = e;
    }
    pthread_mutex_unlock(&s->lock);
    if (rc < 0)
        free(r);
}

/* ---- the list ---- */

static int add_line(struct scoring *s, char *text, int number, struct errbuf *e)
{
    char arch[ARCH_TEXT_MAX];
    size_t end = strlen(text);
    while (end && (text[end - 1] == '\r' || text[end - 1] == ' '))
        text[--end] = 0;
    if (!*text || *text == '#')
        return 0;
    int rc = s->space->canon(s->space, text, arch, e);
    if (rc < 0)
        return err_wrap(e, rc, "%s: line %d", s->o->archs, number);
    struct line *l = &s->line[s->n];
    *l = (struct line){ .arch = strdup(arch), .first = s->n };
    if (!l->arch)
        return err_set(e, ERR_NOMEM, "%s", s->o->archs);
    arch_hash(s->space->name, arch, l->hash);
    s->n++;
    return 0;
}

static const struct line *sorted_lines; /* of by_hash; used before any thread is started */
static int by_hash(const void *a, const void *b)
{
    const int i = *(const int *)a, j = *(const int *)b;
    const int d = strcmp(sorted_lines[i].hash, sorted_lines[j].hash);
    return d ? d : i - j;
}

/* Repeats point at the first of their kind. */
static int find_repeats(struct scoring *s, struct errbuf *e)
{
    int *order = malloc((size_t)(s->n + 1) * sizeof *order);
    if (!order)
        return err_set(e, ERR_NOMEM, "%d architectures", s->n);
    for (int i = 0; i < s->n; i++)
        order[i] = i;
    sorted_lines = s->line;
    qsort(order, (size_t)s->n, sizeof *order, by_hash);
    for (int i = 1; i < s->n; i++)
        if (strcmp(s->line[order[i]].hash, s->line[order[i - 1]].hash) == 0)
            s->line[order[i]].first = s->line[order[i - 1]].first;
    free(order);
    return 0;
}

static int read_list(struct scoring *s, struct errbuf *e)
{
    char *text = NULL;
    int rc = fs_read_all(s->o->archs, MAX_LIST, &text, NULL, e), lines = 1, number = 1;
    if (rc < 0)
        return rc;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    if (!(s->line = calloc((size_t)lines, sizeof *s->line)))
        rc = err_set(e, ERR_NOMEM, "%d architectures", lines);
    for (char *p = text, *next; rc == 0 && p; p = next, number++) {
        if ((next = strchr(p, '\n')))
            *next++ = 0;
        rc = add_line(s, p, number, e);
    }
    free(text);
    if (rc == 0 && s->n == 0)
        rc = err_set(e, ERR_INPUT, "%s names no architecture", s->o->archs);
    return rc < 0 ? rc : find_repeats(s, e);
}

/* ---- the file ---- */

static int other_inputs(const struct scoring *s, int row, const char *what, struct errbuf *e)
{
    return err_set(e, ERR_INPUT, "%s: row %d is of another %s than this call would write; give another --out, or remove it", s->o->out, row,
                   what);
}

/* Row `row` (from 1) must be what this call would have written. */
static int keep_row(struct scoring *s, const struct book_columns *c, char *text, int row, struct errbuf *e)
{
    struct book_row b;
    int rc = book_read_row(c, text, &b, e);
    if (rc < 0)
        return err_wrap(e, rc, "%s: row %d", s->o->out, row);
    if (row > s->n)
        return err_set(e, ERR_INPUT, "%s has more rows than %s has architectures", s->o->out, s->o->archs);
    struct line *l = &s->line[row - 1];
    const char *what = strcmp(b.arch_hash, l->hash) ? "architecture" : strcmp(b.dataset, s->dataset) ? "dataset"
                     : strcmp(b.curriculum, s->curriculum) ? "curriculum" : strcmp(b.fidelity, s->fidelity) ? "fidelity"
                     : b.seed != trial_seed(s->spec->seed, l->hash) ? "seed" : strcmp(b.engine, s->engine) ? "engine version" : NULL;
    if (what)
        return other_inputs(s, row, what, e);
    struct line *first = &s->line[l->first];
    if (!first->r && !(first->r = malloc(sizeof *first->r)))
        return err_set(e, ERR_NOMEM, "a result");
    *first->r = b.r;
    return 0;
}

/* What an earlier call left. *keep: bytes of it that are whole rows. */
static int read_rows(struct scoring *s, size_t *keep, struct errbuf *e)
{
    char *text = NULL, *header = NULL;
    size_t len = 0, cap = 0;
    struct book_columns c;
    struct errbuf none = { 0 };
    FILE *m = open_memstream(&header, &cap);
    *keep = 0;
    if (!m)
        return err_set(e, ERR_NOMEM, "a row");
    book_write_header(m, s->o->measured);
    fclose(m);
    int rc = fs_read_all(s->o->out, MAX_LIST, &text, &len, &none);
    if (rc == -ERR_NOTFOUND || (rc == 0 && (len < cap || !strchr(text, '\n')))) { /* not even a whole first line */
        free(text);
        free(header);
        return 0;
    }
    if (rc < 0)
        err_set(e, (enum err)-rc, "%s", none.text);
    else if (strncmp(text, header, cap) != 0)
        rc = err_set(e, ERR_INPUT, "%s is there and is no list of scores with these columns", s->o->out);
    header[cap - 1] = 0;
    if (rc == 0 && (rc = book_read_header(header, &c, e)) == 0)
        *keep = cap;
    for (char *p = text + *keep, *end; rc == 0 && (end = strchr(p, '\n')); p = end + 1) {
        *end = 0;
        if ((rc = keep_row(s, &c, p, s->kept + 1, e)) == 0) {
            s->kept++;
            *keep = (size_t)(end + 1 - text);
        }
    }
    free(text);
    free(header);
    return rc;
}

static int open_out(struct scoring *s, struct errbuf *e)
{
    size_t keep;
    int rc = read_rows(s, &keep, e);
    if (rc < 0)
        return rc;
    s->f = fopen(s->o->out, keep ? "r+" : "w");
    if (!s->f || (keep && (ftruncate(fileno(s->f), (off_t)keep) < 0 || fseek(s->f, 0, SEEK_END) < 0)))
        return fs_error(e, errno, "cannot open", s->o->out);
    if (!keep)
        book_write_header(s->f, s->o->measured);
    s->written = s->kept;
    if (!(s->todo = malloc((size_t)s->n * sizeof *s->todo)))
        return err_set(e, ERR_NOMEM, "%d architectures", s->n);
    for (int i = s->kept; i < s->n; i++)
        if (s->line[i].first == i)
            s->todo[s->n_todo++] = i;
    return 0;
}

/* ---- the whole ---- */

static int read_job(const struct options *o, const struct space *space, struct job_spec *s, struct errbuf *e)
{
    static const char plain[] = "kind: search\ndataset: here\ncurriculum: here\n";
    char space_set[NAME_MAX_LEN + 8] = "", *text = NULL, *set[3 + MAX_SET];
    const char *given[] = { space_set, o->inits, o->zero_cost };
    int n = 0;
    size_t len = 0;
    if (space) /* before all else: what may be set depends on it */
        snprintf(space_set, sizeof space_set, "space=%s", space->name);
    int rc = o->job ? fs_read_all(o->job, JOB_TEXT_MAX, &text, &len, e) : 0;
    if (rc == 0)
        rc = jobfile_parse(text ? text : plain, text ? len : strlen(plain), o->job ? o->job : "defaults", s, e);
    if (rc == 0 && s->kind != JOB_SEARCH)
        rc = err_set(e, ERR_INPUT, "%s is a %s job, not a search", o->job, job_kind_name(s->kind));
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++)
        if (*given[i])
            set[n++] = (char *)(uintptr_t)given[i];
    for (int i = 0; i < o->n_set; i++)
        set[n++] = (char *)(uintptr_t)o->set[i];
    if (rc == 0)
        rc = jobfile_set_all(s, set, n, e);
    if (rc == 0 && !o->curriculum && !s->scores.n_zero_cost && !(o->measured & BOOK_LATENCY))
        rc = err_set(e, ERR_USAGE, "nothing to do: give --curriculum, --zero-cost or --latency");
    free(text);
    return rc;
}

/* Names of the inputs, and the fidelity as the rows will have it. */
static int open_inputs(struct scoring *s, struct errbuf *e)
{
    const struct options *o = s->o;
    struct fidelity *f = &s->spec->fidelity;
    const struct lessons *l = NULL;
    int rc = s->space ? 0 : spaces_given(s->spec->space, o->job, &s->space, e);
    if (rc == 0)
        rc = space_proxy_check(s->space, &f->proxy, "fidelity", e);
    if (rc < 0 || (rc = datacache_data(o->dataset, &s->data, e)) < 0)
        return rc;
    memcpy(s->dataset, s->data->d.hash, sizeof s->dataset);
    if (!o->curriculum) {
        *f = (struct fidelity){ .proxy = f->proxy };
    } else {
        if ((rc = datacache_lessons(o->curriculum, &l, e)) < 0)
            return rc;
        memcpy(s->curriculum, l->c.hash, sizeof s->curriculum);
        f->steps = f->steps ? f->steps : l->c.T;
        datacache_release(l);
    }
    book_fidelity(f, job_zero_cost(s->spec), s->fidelity);
    return 0;
}

static int run(const struct options *o, struct errbuf *e)
{
    struct scoring s = { .o = o, .lock = PTHREAD_MUTEX_INITIALIZER, .spec = malloc(sizeof *s.spec) };
    int rc = s.spec ? 0 : err_set(e, ERR_NOMEM, "the job");
    if (rc == 0 && o->space)
        rc = spaces_given(o->space, NULL, &s.space, e);
    if (rc == 0)
        rc = read_job(o, s.space, s.spec, e);
    if (rc == 0)
        rc = cmd_device(o->device, s.spec->device, &s.device, e);
    engine_name(s.device ? (enum device_class)device_class_from(s.device->kind) : DEVICE_CPU, s.engine);
    clock_gettime(CLOCK_MONOTONIC, &s.begin);
    s.talked = s.begin;
    if (rc == 0 && (rc = open_inputs(&s, e)) == 0 && (rc = read_list(&s, e)) == 0 && (rc = open_out(&s, e)) == 0) {
        cmd_catch_signals();
        if (s.kept)
            fprintf(stderr, "%s has %d of %d rows; going on\n", o->out, s.kept, s.n);
        write_ready(&s); /* repeats of kept rows */
        par_run(o->threads, s.n_todo, score_one, &s);
        rc = s.rc;
        *e = s.rc < 0 ? s.e : *e;
        talk(&s, true);
        if (rc == 0 && cmd_stopped())
            fprintf(stderr, "stopped; the same command goes on from here\n");
    }
    if (s.f && fclose(s.f) != 0 && rc == 0)
        rc = fs_error(e, errno, "cannot write", o->out);
    for (int i = 0; i < s.n; i++) {
        free(s.line[i].arch);
        free(s.line[i].r);
    }
    free(s.line);
    free(s.todo);
    free(s.spec);
    datacache_release(s.data);
    return rc;
}

/* "all" or "a,b" as a list of the job file. */
static void zero_cost_assignment(const char *list, char *out, size_t cap)
{
    size_t n = (size_t)snprintf(out, cap, "scores.zero_cost=[");
    for (int i = 0; i < ZC_COUNT && strcmp(list, "all") == 0; i++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", i ? "," : "", zero_cost_table[i].name);
    snprintf(out + n, cap - n, "%.*s]", strcmp(list, "all") == 0 ? 0 : 120, list);
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option opts[] = {
        { "archs", required_argument, NULL, 'a' }, { "out", required_argument, NULL, 'o' }, { "dataset", required_argument, NULL, 'd' },
        { "curriculum", required_argument, NULL, 'c' }, { "space", required_argument, NULL, 's' }, { "job", required_argument, NULL, 'j' },
        { "inits", required_argument, NULL, 'i' }, { "zero-cost", required_argument, NULL, 'z' }, { "set", required_argument, NULL, 'S' },
        { "device", required_argument, NULL, 'D' }, { "threads", required_argument, NULL, 't' }, { "seconds", no_argument, NULL, 'T' }, { "latency", no_argument, NULL, 'L' }, { "help", no_argument, NULL, 'h' }, { 0 } };
    int c;
    optind = 1;
    o->threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1)
        switch (c) {
        case 'a': o->archs = optarg; break;
        case 'o': o->out = optarg; break;
        case 'd': o->dataset = optarg; break;
        case 'c': o->curriculum = optarg; break;
        case 's': o->space = optarg; break;
        case 'j': o->job = optarg; break;
        case 'i': snprintf(o->inits, sizeof o->inits, "fidelity.inits=%.20s", optarg); break;
        case 'D': o->device = optarg; break;
        case 'z': zero_cost_assignment(optarg, o->zero_cost, sizeof o->zero_cost); break;
        case 'S':
            if (o->n_set == MAX_SET)
                return false;
            o->set[o->n_set++] = optarg;
            break;
        case 't':
            if ((o->threads = atoi(optarg)) < 1 || o->threads > 256)
                return false;
            break;
        case 'T': o->measured |= BOOK_SECONDS; break;
        case 'L': o->measured |= BOOK_LATENCY; break;
        default: return false;
        }
    return optind == argc && o->archs && o->out && o->dataset;
}

int cmd_score(int argc, char **argv)
{
    struct options o = { 0 };
    struct errbuf e = { 0 };
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    if (help || !parse(argc, argv, &o)) {
        fputs(USAGE, help ? stdout : stderr);
        return help ? 0 : err_exit_status(ERR_USAGE);
    }
    int rc = eng_init(getenv("DIDACT_ISA"), &e);
    if (rc == 0)
        rc = run(&o, &e);
    if (rc < 0)
        fprintf(stderr, "didact-worker score: %s\n", err_message(&e, rc));
    return rc < 0 ? err_exit_status(rc) : 0;
}
