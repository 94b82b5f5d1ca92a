/* cmd_run.c - one task of a job file, without a coordinator: the whole of a teach job, the score of one architecture of a
 * search, the training of one architecture of a verify. The result goes to stdout as JSON, talk to stderr.
 *
 * In --out: what the task keeps (checkpoint.safetensors, curriculum.safetensors, weights.safetensors), result.json, and
 * log.jsonl, one line an evaluation. SIGTERM or SIGINT ends a teach job with a checkpoint after the meta-step at work;
 * --resume goes on from there. */
#include "worker/cmd.h"

#include "common/blob.h"
#include "common/fsio.h"
#include "common/job.h"
#include "worker/clock.h"
#include "worker/engine/device.h"
#include "worker/spaces.h"
#include "worker/task.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char USAGE[] =
    "Example: didact-worker run teach.yaml --dataset fashion-mnist.safetensors --out build/teach --threads 2\n"
    "\n"
    "Run one task of a job file on this machine, without a coordinator; the result is printed as JSON.\n"
    "  JOB.yaml            kind teach: the whole job; search: the score of --arch; verify: the training of --arch\n"
    "  --dataset FILE      the real images (a dataset file)\n"
    "  --curriculum FILE   what the learner is taught with (search)\n"
    "  --out DIR           where results, checkpoints and log.jsonl go; made if it is not there\n"
    "  --resume FILE       go on from a checkpoint (teach)\n"
    "  --arch TEXT         an architecture of the space (search, verify)\n"
    "  --space NAME        its space, default the job's; or the path of a space file\n"
    "  --set KEY=VALUE     change the job; may be repeated\n"
    "  --threads N         default: the number of processors\n"
    "  --mem MIB           refuse what would need more\n"
    "  --device cuda[:N]   teach: learners and generator on that GPU, equal networks side by side; search: the training (default: the CPU)\n"
    "SIGTERM ends a teach job with a checkpoint in DIR. Exit: 0 done (or stopped by a signal), 1 failed, 65 bad input.\n";

#define MAX_SET 64
#define TALK_EVERY_S 30.0

struct options {
    const char *job, *dataset, *curriculum, *out, *resume, *arch, *space, *device, *set[MAX_SET];
    int         n_set, threads;
    uint64_t    mem_bytes;
};

struct runner {
    const struct options *o;
    const struct device  *device; /* NULL: the CPU */
    hash_str dataset, curriculum, resume;
    FILE    *log;
    double   eval_done;         /* teach: meta-step of the last evaluation that was shown */
    int      eval_every;
    struct timespec talked;
    struct timespec begin;
};

/* ---- what the task sees ---- */

static const char *on_blob_path(void *arg, const char *hash)
{
    const struct runner *r = arg;
    if (*hash && strcmp(hash, r->dataset) == 0)
        return r->o->dataset;
    if (*hash && strcmp(hash, r->curriculum) == 0)
        return r->o->curriculum;
    if (*hash && strcmp(hash, r->resume) == 0)
        return r->o->resume;
    return NULL;
}

static void on_progress(void *arg, const struct task_progress *p)
{
    struct runner *r = arg;
    if (r->o->resume && r->eval_done < 0)
        r->eval_done = p->done; /* what the checkpoint knows was logged before */
    /* An evaluation happened when the count has just passed a multiple of its period, or the job has ended. */
    bool evaluated = r->eval_every > 0 && p->accuracy > 0 && p->done != r->eval_done &&
                     (fmod(p->done, r->eval_every) == 0 || p->done >= p->total);
    if (evaluated) {
        r->eval_done = p->done;
        fprintf(r->log, "{\"meta_step\":%.0f,\"seconds\":%.3f,\"meta_loss\":%.6f,\"accuracy\":%.6f,\"held_out\":%.6f,\"rate\":%.6g}\n",
                p->done, seconds_since(&r->begin), p->loss, p->accuracy, p->held_out, p->rate);
        fflush(r->log);
    }
    if (!evaluated && seconds_since(&r->talked) < TALK_EVERY_S)
        return;
    clock_gettime(CLOCK_MONOTONIC, &r->talked);
    double left = p->rate > 0 ? (p->total - p->done) / p->rate : 0;
    fprintf(stderr, "%.6g/%.6g  loss %.4f  accuracy %.4f", p->done, p->total, p->loss, p->accuracy);
    if (r->eval_every > 0)
        fprintf(stderr, "  held out %.4f", p->held_out);
    fprintf(stderr, "  %.3g/s  %.0f s left\n", p->rate, left);
}

/* The task's work folder is --out itself: its files are where they belong already. */
static int on_upload(void *arg, const char *file, const char *kind, hash_str hash, struct errbuf *e)
{
    (void)arg;
    (void)kind;
    return hash_file(file, hash, e);
}

/* ---- the task ---- */

/* Spaces of the mix that the job file names by their paths. */
static int mix_given(const char *job, struct teach_cfg *c, struct errbuf *e)
{
    for (int i = 0; i < c->n_mix; i++) {
        const struct space *s;
        int rc = spaces_given(c->mix_space[i], job, &s, e);
        if (rc < 0)
            return err_wrap(e, rc, "teach.learners_mix");
        snprintf(c->mix_space[i], sizeof c->mix_space[i], "%s", s->name);
        snprintf(c->mix_hash[i], sizeof c->mix_hash[i], "%s", s->hash ? s->hash : "");
    }
    return 0;
}

static int make_task(const struct job_spec *s, struct runner *r, struct task *t, struct errbuf *e)
{
    const struct options *o = r->o;
    const struct space *space = NULL;
    char arch[ARCH_TEXT_MAX] = "";
    *t = (struct task){ .attempt = 1 };
    if (s->kind != JOB_TEACH) {
        if (!o->arch)
            return err_set(e, ERR_USAGE, "--arch is needed for a %s job", job_kind_name(s->kind));
        int rc = o->space ? spaces_given(o->space, NULL, &space, e) : spaces_given(s->space, o->job, &space, e);
        if (rc < 0)
            return rc;
        if ((rc = space->canon(space, o->arch, arch, e)) < 0)
            return err_wrap(e, rc, "--arch");
    }
    if (s->kind == JOB_TEACH) {
        t->kind = TASK_TEACH;
        t->teach.cfg = s->teach;
        int rc = mix_given(o->job, &t->teach.cfg, e);
        if (rc < 0)
            return rc;
        t->teach.seed = s->seed;
        memcpy(t->teach.dataset, r->dataset, sizeof r->dataset);
        memcpy(t->teach.resume, r->resume, sizeof r->resume);
        r->eval_every = s->teach.eval_every;
    } else if (s->kind == JOB_SEARCH) {
        if (!o->curriculum)
            return err_set(e, ERR_USAGE, "--curriculum is needed for a search job");
        char hex[ARCH_HASH_LEN + 1];
        arch_hash(space->name, arch, hex);
        t->kind = TASK_SCORE;
        memcpy(t->score.arch, arch, sizeof arch);
        snprintf(t->score.space, sizeof t->score.space, "%s", space->name);
        snprintf(t->score.space_hash, sizeof t->score.space_hash, "%s", space->hash ? space->hash : "");
        memcpy(t->score.dataset, r->dataset, sizeof r->dataset);
        memcpy(t->score.curriculum, r->curriculum, sizeof r->curriculum);
        t->score.fidelity = s->fidelity;
        t->score.zero_cost = job_zero_cost(s);
        t->score.latency_batch = job_latency_batch(s);
        t->score.seed = trial_seed(s->seed, hex);
    } else {
        t->kind = TASK_TRAIN;
        job_training(s, &t->train);
        memcpy(t->train.arch, arch, sizeof arch);
        snprintf(t->train.space, sizeof t->train.space, "%s", space->name);
        snprintf(t->train.space_hash, sizeof t->train.space_hash, "%s", space->hash ? space->hash : "");
        memcpy(t->train.dataset, r->dataset, sizeof r->dataset);
        t->train.seed = s->seed;
    }
    return 0;
}

static json_t *doubles(const double *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real(v[i]));
    return list;
}

static json_t *result_json(const struct trial_result *r, const struct device *d, bool stopped, const char *arch)
{
    name_str engine;
    engine_name(d ? (enum device_class)device_class_from(d->kind) : DEVICE_CPU, engine);
    json_t *points = json_array();
    for (int i = 0; i < r->n_checkpoints; i++)
        json_array_append_new(points, json_pack("{s:i, s:f}", "step", r->checkpoint[i], "score", r->checkpoint_score[i]));
    json_t *j = json_pack("{s:s, s:s, s:s, s:f, s:f, s:o, s:o, s:f, s:f, s:f, s:I, s:I, s:i, s:s, s:s, s:f, s:I, s:s}", "state",
                          stopped ? "stopped" : trial_state_name(r->state), "reason", fail_reason_name(r->reason), "detail", r->detail,
                          "score", r->score, "score_se", r->score_se, "init_scores", doubles(r->init_score, r->n_inits), "checkpoints",
                          points, "loss_sum", r->loss_sum, "lr_scale", r->lr_scale, "valid_score", r->valid_score, "params",
                          (json_int_t)r->params, "macs", (json_int_t)r->macs, "meta_steps", r->meta_steps, "artifact", r->artifact,
                          "checkpoint_blob", r->checkpoint_blob, "seconds", r->seconds, "mem_bytes", (json_int_t)r->mem_bytes,
                          "engine_version", engine);
    if (d)
        json_object_set_new(j, "device", json_string(d->name()));
    if (r->zero_cost.known)
        json_object_set_new(j, "zero_cost", zero_cost_json(&r->zero_cost));
    if (r->latency_ms > 0)
        json_object_set_new(j, "latency_ms", json_real(r->latency_ms));
    if (arch)
        json_object_set_new(j, "arch", json_string(arch));
    return j;
}

static int show(const struct runner *run, const struct trial_result *r, bool stopped, const char *arch, struct errbuf *e)
{
    char path[FS_PATH_MAX];
    json_t *j = result_json(r, run->device, stopped, arch);
    char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    int rc = text ? 0 : err_set(e, ERR_INTERNAL, "the result cannot be written as JSON");
    if (rc == 0) {
        puts(text);
        snprintf(path, sizeof path, "%s/result.json", run->o->out);
        rc = fs_write_atomic(path, text, strlen(text), e);
    }
    free(text);
    json_decref(j);
    return rc;
}

static int read_job(const struct options *o, struct job_spec *s, struct errbuf *e)
{
    char *text = NULL;
    size_t len = 0;
    int rc = fs_read_all(o->job, JOB_TEXT_MAX, &text, &len, e);
    if (rc == 0)
        rc = jobfile_parse(text, len, o->job, s, e);
    if (rc == 0)
        rc = jobfile_set_all(s, (char *const *)o->set, o->n_set, e);
    free(text);
    return rc;
}

static int open_device(struct runner *r, const struct job_spec *s, struct errbuf *e)
{
    int rc = cmd_device(r->o->device, s->device, &r->device, e);
    if (rc == 0 && r->device && s->kind == JOB_VERIFY)
        rc = err_set(e, ERR_USAGE, "--device: a verify job trains on the CPU");
    if (rc == 0 && r->device)
        fprintf(stderr, "on %s (%s)\n", r->device->name(), r->o->device ? r->o->device : r->device->kind);
    return rc;
}

static int hash_inputs(struct runner *r, struct errbuf *e)
{
    const struct { const char *file; char *hash; } row[] = {
        { r->o->dataset, r->dataset }, { r->o->curriculum, r->curriculum }, { r->o->resume, r->resume } };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        int rc = row[i].file ? hash_file(row[i].file, row[i].hash, e) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int open_log(struct runner *r, struct errbuf *e)
{
    char path[FS_PATH_MAX];
    int rc = fs_mkdir_p(r->o->out, e);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "%s/log.jsonl", r->o->out);
    r->log = fopen(path, r->o->resume ? "a" : "w");
    if (r->log && r->device) { /* a line of its own: what follows was computed there */
        json_t *j = json_pack("{s:s, s:s}", "device", r->device->kind, "name", r->device->name());
        json_dumpf(j, r->log, JSON_COMPACT);
        fputc('\n', r->log);
        json_decref(j);
    }
    return r->log ? 0 : fs_error(e, errno, "cannot open", path);
}

static int run(const struct options *o, bool *failed, struct errbuf *e)
{
    static const task_fn fn[TASK_KIND_COUNT] = { [TASK_SCORE] = task_score, [TASK_TRAIN] = task_train, [TASK_TEACH] = task_teach };
    struct runner r = { .o = o, .eval_done = -1 };
    struct task_env env = { .arg = &r, .blob_path = on_blob_path, .cancelled = cmd_cancelled, .progress = on_progress,
                            .upload = on_upload, .work_dir = o->out, .threads = o->threads, .mem_bytes = o->mem_bytes };
    struct trial_result result = { 0 };
    struct job_spec *spec = malloc(sizeof *spec);
    struct task *task = malloc(sizeof *task);
    int rc = spec && task ? read_job(o, spec, e) : err_set(e, ERR_NOMEM, "the job");
    clock_gettime(CLOCK_MONOTONIC, &r.begin);
    r.talked = r.begin;
    if (rc == 0 && (rc = open_device(&r, spec, e)) == 0 && (rc = hash_inputs(&r, e)) == 0 && (rc = make_task(spec, &r, task, e)) == 0 && (rc = open_log(&r, e)) == 0) {
        cmd_catch_signals();
        env.device = r.device;
        rc = fn[task->kind](task, &env, &result, e);
        bool stopped = rc == -ERR_CANCELLED;
        if (stopped)
            fprintf(stderr, "didact-worker run: %s%s\n", err_message(e, rc),
                    task->kind == TASK_TEACH ? "; go on with --resume checkpoint.safetensors of the same --out" : "");
        *failed = !stopped && result.state != TRIAL_SCORED;
        if (rc == 0 || stopped)
            rc = show(&r, &result, stopped, task->kind == TASK_SCORE ? task->score.arch : task->kind == TASK_TRAIN ? task->train.arch : NULL, e);
    }
    if (r.log)
        fclose(r.log);
    free(spec);
    free(task);
    return rc;
}

static bool number(const char *s, long lo, long hi, long *out)
{
    char *end;
    *out = strtol(s, &end, 10);
    return *s && !*end && *out >= lo && *out <= hi;
}

/* Returns 0, or the exit status to end with, plus one. */
static int parse(int argc, char **argv, struct options *o)
{
    static const struct option opts[] = {
        { "dataset", required_argument, NULL, 'd' }, { "curriculum", required_argument, NULL, 'c' }, { "out", required_argument, NULL, 'o' },
        { "resume", required_argument, NULL, 'r' }, { "arch", required_argument, NULL, 'a' }, { "space", required_argument, NULL, 's' },
        { "set", required_argument, NULL, 'S' }, { "threads", required_argument, NULL, 't' }, { "mem", required_argument, NULL, 'm' },
        { "device", required_argument, NULL, 'D' },
        { "help", no_argument, NULL, 'h' }, { 0 } };
    int c;
    long v;
    optind = 1;
    o->threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
        bool ok = true;
        switch (c) {
        case 'd': o->dataset = optarg; break;
        case 'c': o->curriculum = optarg; break;
        case 'o': o->out = optarg; break;
        case 'r': o->resume = optarg; break;
        case 'a': o->arch = optarg; break;
        case 's': o->space = optarg; break;
        case 'D': o->device = optarg; break;
        case 'S':
            if ((ok = o->n_set < MAX_SET))
                o->set[o->n_set++] = optarg;
            break;
        case 't':
            if ((ok = number(optarg, 1, 256, &v)))
                o->threads = (int)v;
            break;
        case 'm':
            if ((ok = number(optarg, 1, 1L << 30, &v)))
                o->mem_bytes = (uint64_t)v << 20;
            break;
        case 'h': fputs(USAGE, stdout); return 1;
        default: ok = false;
        }
        if (!ok) {
            fputs(USAGE, stderr);
            return 1 + err_exit_status(ERR_USAGE);
        }
    }
    if (optind + 1 != argc || !o->dataset || !o->out) {
        fputs(USAGE, stderr);
        return 1 + err_exit_status(ERR_USAGE);
    }
    o->job = argv[optind];
    return 0;
}

int cmd_run(int argc, char **argv)
{
    struct options o = { 0 };
    struct errbuf e = { 0 };
    bool failed = false;
    int status = parse(argc, argv, &o);
    if (status)
        return status - 1;
    int rc = eng_init(getenv("DIDACT_ISA"), &e);
    if (rc == 0)
        rc = run(&o, &failed, &e);
    if (rc < 0)
        fprintf(stderr, "didact-worker run: %s\n", err_message(&e, rc));
    return rc < 0 ? err_exit_status(rc) : failed ? 1 : 0;
}
