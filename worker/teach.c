/* teach.c - the task `teach`: meta-steps until the job's end, evaluations and checkpoints on the way, a curriculum at last.
 *
 * Order inside a round: meta-step, evaluation when due, checkpoint when due. A checkpoint so taken holds everything, and a
 * job that goes on from it ends with the same curriculum, byte for byte, as one that was never stopped (unless
 * it ends by time). A meta-step is not interrupted: a cancelled task ends with a checkpoint after the one at work. */
#include "worker/clock.h"
#include "worker/spaces.h"
#include "worker/task.h"
#include "worker/teacher.h"

#include "common/fsio.h"
#include "worker/engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct teaching {
    const struct teach_task *task;
    const struct task_env   *env;
    struct teacher *t;
    struct timespec begin;
    double   before;            /* seconds spent before this run */
    uint64_t first_step;        /* of this run */
    uint64_t saved_step;        /* of the newest checkpoint; UINT64_MAX: none of this run */
    hash_str checkpoint;
};

static bool cancelled(const struct teaching *g) { return g->env->cancelled && g->env->cancelled(g->env->arg); }

static double elapsed(const struct teaching *g) { return seconds_since(&g->begin); }

static void tell(const struct teaching *g)
{
    const struct teacher *t = g->t;
    double fraction = teacher_fraction(t), spent = elapsed(g);
    const struct teach_eval *last = t->n_history ? &t->history[t->n_history - 1] : NULL;
    struct task_progress p = { .done = (double)t->meta_step, .total = g->task->cfg.meta_steps, .loss = t->meta_loss,
                               .accuracy = last ? last->accuracy : 0, .held_out = last ? last->held_out : 0,
                               .rate = spent > 0 ? (double)(t->meta_step - g->first_step) / spent : 0 };
    if (g->task->cfg.seconds > 0 && fraction > 0) /* time may end it first: the total is where it is heading */
        p.total = fmax(p.done, round(p.done / fraction));
    memcpy(p.checkpoint_blob, g->checkpoint, sizeof p.checkpoint_blob);
    if (g->env->progress)
        g->env->progress(g->env->arg, &p);
}

static int save_checkpoint(struct teaching *g, struct errbuf *e)
{
    char path[FS_PATH_MAX];
    if (g->saved_step == g->t->meta_step)
        return 0;
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", g->env->work_dir);
    int rc = teacher_save(g->t, path, e);
    if (rc < 0 || (rc = g->env->upload(g->env->arg, path, "checkpoint", g->checkpoint, e)) < 0)
        return rc;
    g->saved_step = g->t->meta_step;
    return 0;
}

static int evaluate(struct teaching *g, struct errbuf *e)
{
    struct lessons l;
    struct teach_eval row;
    int rc = teacher_lessons(g->t, &l, e);
    if (rc < 0)
        return rc;
    rc = teacher_evaluate(g->t, &l, &row, e);
    lessons_fini(&l);
    return rc;
}

/* After a pass of the warm start: no meta-step is done yet, but the clock runs and a stop is heard. */
static bool warmed(void *arg)
{
    struct teaching *g = arg;
    g->t->seconds = g->before + elapsed(g);
    tell(g);
    return !cancelled(g);
}

static bool evaluated(const struct teacher *t)
{
    return t->n_history && t->history[t->n_history - 1].meta_step == (double)t->meta_step;
}

static bool due(uint64_t step, int every) { return every > 0 && step % (uint64_t)every == 0; }

static int teach(struct teaching *g, struct errbuf *e)
{
    struct teacher *t = g->t;
    int rc = 0;
    if (t->meta_step == 0 && t->cfg.warm_start)
        rc = teacher_warm(t, warmed, g, e);
    if (rc == 0 && t->meta_step == 0 && !evaluated(t))
        rc = evaluate(g, e); /* before the first meta-step: it opens the history */
    tell(g);
    while (rc == 0 && teacher_fraction(t) < 1) {
        if (cancelled(g)) {
            rc = save_checkpoint(g, e);
            tell(g);
            return rc < 0 ? rc : err_set(e, ERR_CANCELLED, "stopped after meta-step %llu", (unsigned long long)t->meta_step);
        }
        if ((rc = teacher_step(t, e)) < 0)
            break;
        t->seconds = g->before + elapsed(g);
        if (due(t->meta_step, t->cfg.eval_every))
            rc = evaluate(g, e);
        if (rc == 0 && due(t->meta_step, t->cfg.checkpoint_every))
            rc = save_checkpoint(g, e);
        tell(g);
    }
    return rc;
}

/* The curriculum file; its accuracies are those of the file's own 8-bit images. */
static int finish(struct teaching *g, struct trial_result *r, struct errbuf *e)
{
    struct teacher *t = g->t;
    struct lessons l = { 0 };
    char path[FS_PATH_MAX];
    int rc = evaluated(t) ? 0 : evaluate(g, e);
    if (rc < 0 || (rc = save_checkpoint(g, e)) < 0 || (rc = teacher_lessons(t, &l, e)) < 0)
        return rc;
    snprintf(path, sizeof path, "%s/curriculum.safetensors", g->env->work_dir);
    teacher_provenance(t, l.c.provenance, sizeof l.c.provenance);
    if ((rc = curriculum_save(&l.c, path, e)) == 0 && (rc = g->env->upload(g->env->arg, path, "curriculum", r->artifact, e)) == 0) {
        const struct teach_eval *last = &t->history[t->n_history - 1];
        r->state = TRIAL_SCORED;
        r->score = last->accuracy;
        r->valid_score = last->held_out;
        r->n_inits = 1;
        r->init_score[0] = last->accuracy;
        r->lr_scale = 1;
        r->loss_sum = t->meta_loss;
        r->n_checkpoints = t->n_history < MAX_CHECKPOINTS ? t->n_history : MAX_CHECKPOINTS;
        for (int i = 0; i < r->n_checkpoints; i++) {
            int n = r->n_checkpoints == 1 ? 0 : (int)((int64_t)i * (t->n_history - 1) / (r->n_checkpoints - 1));
            r->checkpoint[i] = (int)t->history[n].meta_step;
            r->checkpoint_score[i] = t->history[n].accuracy;
        }
        tell(g);
    }
    lessons_fini(&l);
    return rc;
}

static int start(struct teaching *g, const struct real_data *data, struct errbuf *e)
{
    const struct teach_task *k = g->task;
    int rc = teacher_new(&k->cfg, k->seed, data, g->env->threads, g->env->mem_bytes, g->env->device, g->env->device_bytes, &g->t, e);
    if (rc < 0 || !*k->resume)
        return rc;
    const char *path = g->env->blob_path(g->env->arg, k->resume);
    if (!path)
        return err_set(e, ERR_INPUT, "checkpoint %s is not here", k->resume);
    if ((rc = teacher_load(g->t, path, e)) < 0)
        return rc;
    memcpy(g->checkpoint, k->resume, sizeof g->checkpoint);
    g->before = g->t->seconds;
    g->first_step = g->t->meta_step;
    return 0;
}

int task_teach(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e)
{
    struct teaching g = { .task = &t->teach, .env = env, .saved_step = UINT64_MAX };
    const struct real_data *data = NULL;
    const char *path = env->blob_path(env->arg, t->teach.dataset);
    clock_gettime(CLOCK_MONOTONIC, &g.begin);
    eng_thread_init();
    int rc = path ? datacache_data(path, &data, e) : err_set(e, ERR_INPUT, "the task names no dataset");
    if (rc == 0)
        rc = spaces_of_mix(env, &t->teach.cfg, e);
    if (rc == 0 && (rc = start(&g, data, e)) == 0 && (rc = teach(&g, e)) == 0)
        rc = finish(&g, r, e);
    if (g.t) {
        r->meta_steps = (int)g.t->meta_step;
        r->mem_bytes = g.t->peak_bytes;
        memcpy(r->checkpoint_blob, g.checkpoint, sizeof r->checkpoint_blob);
    }
    if (rc == -ERR_DIVERGED) {
        r->state = TRIAL_FAILED;
        r->reason = FAIL_NAN;
        snprintf(r->detail, sizeof r->detail, "%.250s", err_message(e, rc));
        rc = 0;
    }
    r->seconds = elapsed(&g);
    teacher_free(g.t);
    datacache_release(data);
    return rc;
}
