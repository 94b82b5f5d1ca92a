/* The compute threads, with tasks that do what the test says. Every wait is on an event of the loop. */
#include "worker/engine/device.h"
#include "worker/folder.h"
#include "worker/outbox.h"
#include "worker/runner.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_ENDS 64

struct end { struct lease_ref ref; enum run_end end; struct trial_result r; bool stored; struct errbuf e; };

struct bench {
    char                 dir[64];
    uv_loop_t            loop;
    struct runner_cfg    cfg;
    struct runner       *runner;
    int                  n_ends, n_kept, n_progress;
    struct end           end[MAX_ENDS];
    struct task_progress progress;
    hash_str             kept;
    name_str             kept_kind;
};

/* What the fake tasks do is chosen by the trial's seed. */
enum act { ACT_SCORE, ACT_SPIN, ACT_RC, ACT_NAN, ACT_BAD_RESULT, ACT_PROGRESS, ACT_UPLOAD, ACT_LITTER, ACT_UNASKED, ACT_BLOBS };
static atomic_int running, most_running;
static int        fake_rc;
static enum device_class wanted; /* by the tasks that are submitted */
static const struct device *have; /* by the runner that is started; nobody looks inside */

static int spin(const struct task_env *env)
{
    int now = atomic_fetch_add(&running, 1) + 1, most = atomic_load(&most_running);
    while (now > most && !atomic_compare_exchange_weak(&most_running, &most, now))
        ;
    while (!env->cancelled(env->arg))
        usleep(500);
    atomic_fetch_sub(&running, 1);
    return -ERR_CANCELLED;
}

static int upload(const struct task_env *env, struct trial_result *r, struct errbuf *e)
{
    char  path[4200];
    snprintf(path, sizeof path, "%s/curriculum", env->work_dir);
    FILE *f = fopen(path, "w");
    fputs("content", f);
    fclose(f);
    return env->upload(env->arg, path, "curriculum", r->artifact, e);
}

static int fake(const struct task *t, const struct task_env *env, struct trial_result *r, struct errbuf *e)
{
    struct task_progress p = { .done = 3, .total = NAN, .loss = 1.5 };
    struct stat          st;
    char                 path[4200];
    r->state = TRIAL_SCORED;
    r->score = (double)t->trial / 100;
    snprintf(path, sizeof path, "%s/litter", env->work_dir);
    switch ((enum act)t->score.seed) {
    case ACT_SCORE: return 0;
    case ACT_SPIN: return spin(env);
    case ACT_RC: return err_set(e, (enum err)fake_rc, "made to fail");
    case ACT_NAN: r->loss_sum = NAN; return 0;
    case ACT_BAD_RESULT: r->n_inits = 1000; return 0;
    case ACT_PROGRESS: env->progress(env->arg, &p); return 0;
    case ACT_UPLOAD: return upload(env, r, e);
    case ACT_LITTER:
        if (stat(path, &st) == 0)
            return err_set(e, ERR_INTERNAL, "the folder is not empty");
        return mkdir(path, 0755);
    case ACT_UNASKED: return -ERR_CANCELLED;
    case ACT_BLOBS:
        if (!env->blob_path(env->arg, t->score.dataset) || env->blob_path(env->arg, "none") || env->threads != 1 ||
            env->mem_bytes != 777 || strcmp(env->blob_path(env->arg, t->score.dataset), "/somewhere") != 0)
            return -ERR_INTERNAL;
        return 0;
    }
    return -ERR_INTERNAL;
}

static void on_ended(void *arg, struct lease_ref ref, enum run_end end, const struct trial_result *r, bool stored,
                     const struct errbuf *e)
{
    struct bench *b = arg;
    assert_true(b->n_ends < MAX_ENDS);
    b->end[b->n_ends++] = (struct end){ ref, end, *r, stored, *e };
}

static void on_progress(void *arg, const struct task_progress *p)
{
    struct bench *b = arg;
    b->progress = *p;
    b->n_progress++;
}

static void on_kept(void *arg, const char *hash, const char *kind)
{
    struct bench *b = arg;
    snprintf(b->kept, sizeof b->kept, "%s", hash);
    snprintf(b->kept_kind, sizeof b->kept_kind, "%s", kind);
    b->n_kept++;
}

static struct bench *start(int slots)
{
    struct bench *b = calloc(1, sizeof *b);
    struct errbuf e = { 0 };
    char          path[200];
    snprintf(b->dir, sizeof b->dir, "/tmp/didact-runner-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->cfg.work_dir, sizeof b->cfg.work_dir, "%s/work", b->dir);
    snprintf(b->cfg.outbox_dir, sizeof b->cfg.outbox_dir, "%s/outbox", b->dir);
    snprintf(path, sizeof path, "%s/uploads", b->dir);
    assert_int_equal(fs_mkdir_p(b->cfg.outbox_dir, &e), 0);
    assert_int_equal(blob_dir_open(&b->cfg.uploads, path, &e), 0);
    b->cfg.slots = slots;
    b->cfg.threads = 3;
    b->cfg.mem_bytes = 777;
    b->cfg.device = have;
    for (int k = 0; k < TASK_KIND_COUNT; k++)
        b->cfg.fn[k] = fake;
    struct runner_events ev = { on_ended, on_progress, on_kept, b };
    uv_loop_init(&b->loop);
    assert_int_equal(runner_new(&b->cfg, &b->loop, &ev, &b->runner, &e), 0);
    atomic_store(&most_running, 0);
    return b;
}

static void finish(struct bench *b)
{
    struct errbuf e = { 0 };
    runner_stop(b->runner);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&b->loop), 0);
    assert_int_equal(folder_empty(b->dir, &e), 0);
    rmdir(b->dir);
    free(b);
}

static struct lease_ref submit(struct bench *b, uint64_t trial, enum act act, double timeout_s)
{
    struct errbuf    e = { 0 };
    struct task      t = { .job = 1, .trial = trial, .attempt = 1, .timeout_s = timeout_s, .device = wanted, .kind = TASK_SCORE };
    struct task_blob blob = { .path = "/somewhere" };
    memset(t.score.dataset, 'd', HASH_HEX_LEN);
    memcpy(blob.hash, t.score.dataset, sizeof blob.hash);
    t.score.seed = act;
    assert_int_equal(runner_submit(b->runner, &t, &blob, 1, &e), 0);
    return (struct lease_ref){ 1, trial, 1 };
}

static struct end *wait_ends(struct bench *b, int n)
{
    while (b->n_ends < n)
        uv_run(&b->loop, UV_RUN_ONCE);
    return &b->end[n - 1];
}

static void a_result_is_in_the_outbox_before_it_is_told(void **state)
{
    (void)state;
    struct bench *b = start(1);
    struct errbuf e = { 0 };
    struct outbox o;
    submit(b, 42, ACT_SCORE, 0);
    struct end *end = wait_ends(b, 1);
    assert_int_equal(end->end, RUN_RESULT);
    assert_true(end->stored && end->r.score == 0.42 && end->r.seconds >= 0);
    assert_int_equal(outbox_open(&o, b->cfg.outbox_dir, &e), 0);
    assert_int_equal(o.n, 1);
    assert_true(o.item[0]->r.score == 0.42);
    outbox_close(&o);
    finish(b);
}

static void so_many_run_side_by_side_as_there_are_slots(void **state)
{
    (void)state;
    struct bench    *b = start(3);
    struct lease_ref ref[6];
    for (uint64_t i = 0; i < 6; i++)
        ref[i] = submit(b, i, ACT_SPIN, 0);
    while (atomic_load(&running) < 3)
        usleep(500);
    int started = 0;
    for (int i = 0; i < 6; i++)
        started += runner_started(b->runner, ref[i]);
    assert_int_equal(started, 3);
    for (int i = 5; i >= 0; i--) /* waiting ones first */
        assert_true(runner_cancel(b->runner, ref[i]));
    wait_ends(b, 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(b->end[i].end, RUN_CANCELLED);
    assert_int_equal(atomic_load(&most_running), 3);
    assert_false(runner_cancel(b->runner, ref[0]));
    finish(b);
}

static void a_task_over_its_time_fails_with_timeout(void **state)
{
    (void)state;
    struct bench *b = start(1);
    submit(b, 1, ACT_SPIN, 0.02);
    struct end *end = wait_ends(b, 1);
    assert_int_equal(end->end, RUN_RESULT);
    assert_int_equal(end->r.state, TRIAL_FAILED);
    assert_int_equal(end->r.reason, FAIL_TIMEOUT);
    assert_non_null(strstr(end->r.detail, "0.02"));
    finish(b);
}

static void errors_become_reasons(void **state)
{
    (void)state;
    static const struct { int rc; enum run_end end; enum fail_reason reason; } want[] = {
        { ERR_NOMEM, RUN_RESULT, FAIL_OOM },      { ERR_INPUT, RUN_RESULT, FAIL_INPUT },
        { ERR_SHAPE, RUN_RESULT, FAIL_INPUT },    { ERR_CORRUPT, RUN_RESULT, FAIL_INPUT },
        { ERR_DIVERGED, RUN_RESULT, FAIL_NAN },   { ERR_TIMEOUT, RUN_RESULT, FAIL_TIMEOUT },
        { ERR_INTERNAL, RUN_RESULT, FAIL_CRASH }, { ERR_IO, RUN_TROUBLE, FAIL_NONE },
        { ERR_UNREACHABLE, RUN_TROUBLE, FAIL_NONE },
    };
    struct bench *b = start(1);
    int           n = (int)(sizeof want / sizeof want[0]);
    for (int i = 0; i < n; i++) {
        fake_rc = want[i].rc;
        submit(b, (uint64_t)i, ACT_RC, 0);
        struct end *end = wait_ends(b, i + 1);
        assert_int_equal(end->end, want[i].end);
        assert_non_null(strstr(end->e.text, "made to fail"));
        if (want[i].end == RUN_TROUBLE)
            continue;
        assert_int_equal(end->r.state, TRIAL_FAILED);
        assert_int_equal(end->r.reason, want[i].reason);
        assert_non_null(strstr(end->r.detail, "made to fail"));
        assert_true(end->stored);
    }
    finish(b);
}

static bool it_works;
static bool works(void) { return it_works; }

/* What a device cannot do is this machine's trouble, and one that does nothing any more is lost; the same error of a task on the CPU is our bug. */
static void a_device_that_fails_or_is_not_there_gives_the_lease_back(void **state)
{
    (void)state;
    static const struct device device = { .works = works };
    static const struct { int wanted; const struct device *have; bool works; enum err rc; enum run_end end; } row[] = {
        { DEVICE_CPU, &device, false, ERR_UNAVAILABLE, RUN_RESULT }, { DEVICE_CUDA, &device, true, ERR_UNAVAILABLE, RUN_TROUBLE },
        { DEVICE_CUDA, &device, false, ERR_UNAVAILABLE, RUN_LOST },  { DEVICE_CUDA, NULL, false, ERR_UNAVAILABLE, RUN_TROUBLE },
        { DEVICE_CUDA, &device, true, ERR_NOMEM, RUN_RESULT },       { DEVICE_CUDA, &device, false, ERR_NOMEM, RUN_LOST },
        { DEVICE_CPU, &device, false, ERR_NOMEM, RUN_RESULT },
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        wanted = row[i].wanted;
        have = row[i].have;
        it_works = row[i].works;
        fake_rc = row[i].rc;
        struct bench *b = start(1);
        submit(b, 0, ACT_RC, 0);
        struct end *end = wait_ends(b, 1);
        assert_int_equal(end->end, row[i].end);
        assert_non_null(strstr(end->e.text, row[i].have ? "made to fail" : "device cuda"));
        finish(b);
    }
    wanted = DEVICE_CPU;
    have = NULL;
}

static void results_that_are_no_results_become_failures(void **state)
{
    (void)state;
    struct bench *b = start(1);
    submit(b, 1, ACT_NAN, 0);
    assert_int_equal(wait_ends(b, 1)->r.reason, FAIL_NAN);
    submit(b, 2, ACT_BAD_RESULT, 0);
    struct end *end = wait_ends(b, 2);
    assert_int_equal(end->r.reason, FAIL_CRASH);
    assert_non_null(strstr(end->r.detail, "n_inits"));
    assert_true(end->stored);
    submit(b, 3, ACT_UNASKED, 0);
    assert_int_equal(wait_ends(b, 3)->r.reason, FAIL_CRASH);
    finish(b);
}

static void progress_arrives_with_its_lease_and_finite(void **state)
{
    (void)state;
    struct bench *b = start(1);
    submit(b, 9, ACT_PROGRESS, 0);
    wait_ends(b, 1);
    assert_int_equal(b->n_progress, 1);
    assert_true(b->progress.job == 1 && b->progress.trial == 9 && b->progress.attempt == 1);
    assert_true(b->progress.done == 3 && b->progress.total == 0 && b->progress.loss == 1.5);
    finish(b);
}

static void a_kept_file_is_told_before_the_result_that_names_it(void **state)
{
    (void)state;
    struct bench *b = start(1);
    submit(b, 1, ACT_UPLOAD, 0);
    struct end *end = wait_ends(b, 1);
    assert_int_equal(end->end, RUN_RESULT);
    assert_int_equal(b->n_kept, 1);
    assert_string_equal(b->kept, end->r.artifact);
    assert_string_equal(b->kept_kind, "curriculum");
    assert_true(blob_exists(&b->cfg.uploads, b->kept, NULL));
    finish(b);
}

static void each_task_finds_an_empty_folder_and_its_blobs(void **state)
{
    (void)state;
    struct bench *b = start(1);
    submit(b, 1, ACT_LITTER, 0);
    submit(b, 2, ACT_LITTER, 0);
    submit(b, 3, ACT_BLOBS, 0);
    wait_ends(b, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(b->end[i].r.state, TRIAL_SCORED);
    finish(b);
}

static void a_full_disk_keeps_the_result_in_memory(void **state)
{
    (void)state;
    struct bench *b = start(1);
    assert_int_equal(rmdir(b->cfg.outbox_dir), 0);
    submit(b, 1, ACT_SCORE, 0);
    struct end *end = wait_ends(b, 1);
    assert_int_equal(end->end, RUN_RESULT);
    assert_false(end->stored);
    assert_int_equal(end->r.state, TRIAL_SCORED);
    finish(b);
}

static void stopping_ends_what_runs_and_what_waits(void **state)
{
    (void)state;
    struct bench *b = start(2);
    for (uint64_t i = 0; i < 5; i++)
        submit(b, i, ACT_SPIN, 0);
    while (atomic_load(&running) < 2)
        usleep(500);
    runner_stop(b->runner);
    b->runner = NULL;
    assert_int_equal(b->n_ends, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(b->end[i].end, RUN_CANCELLED);
    finish(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_result_is_in_the_outbox_before_it_is_told),
        cmocka_unit_test(so_many_run_side_by_side_as_there_are_slots),
        cmocka_unit_test(a_task_over_its_time_fails_with_timeout),
        cmocka_unit_test(errors_become_reasons),
        cmocka_unit_test(a_device_that_fails_or_is_not_there_gives_the_lease_back),
        cmocka_unit_test(results_that_are_no_results_become_failures),
        cmocka_unit_test(progress_arrives_with_its_lease_and_finite),
        cmocka_unit_test(a_kept_file_is_told_before_the_result_that_names_it),
        cmocka_unit_test(each_task_finds_an_empty_folder_and_its_blobs),
        cmocka_unit_test(a_full_disk_keeps_the_result_in_memory),
        cmocka_unit_test(stopping_ends_what_runs_and_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
