/* Trials and the memory that they take: which worker one goes to, and what becomes of one that fits none. */
#include "tests/support/sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t need_of(const struct job_spec *spec, const char *arch)
{
    struct job_data data;
    struct demand d;
    sim_job_data(&data);
    assert_int_equal(fit_demand(spec, &data, arch, 0, GROUP_NONE, &d, NULL), 0);
    assert_true(d.mem_bytes > 0 && d.train_flops > 0);
    return d.mem_bytes;
}

static void an_audits_trials_are_measured_as_what_they_are(void **state)
{
    (void)state;
    struct job_spec spec = sim_search_spec(6, 1), verify;
    struct search *search;
    struct proposal p;
    struct job_data data;
    struct demand score, train, control, as_verify;
    sim_job_data(&data);
    assert_int_equal(search_open(&search, &spec, &data.img, NULL), 0);
    assert_int_equal(search_propose(search, &p, NULL), 0);
    search_close(search);
    data.control_B = 4 * data.B;
    data.control_inner = data.inner;
    job_defaults(&verify, JOB_VERIFY);
    memcpy(verify.space, spec.space, sizeof verify.space);
    spec.audit.batch = verify.verify.batch = 48;
    assert_int_equal(fit_demand(&spec, &data, p.arch, 0, GROUP_NONE, &score, NULL), 0);
    assert_int_equal(fit_demand(&spec, &data, p.arch, 0, GROUP_AUDIT, &train, NULL), 0);
    assert_int_equal(fit_demand(&spec, &data, p.arch, 0, GROUP_CONTROL, &control, NULL), 0);
    assert_int_equal(fit_demand(&verify, &data, p.arch, 0, GROUP_LIST, &as_verify, NULL), 0);
    assert_true(train.mem_bytes == as_verify.mem_bytes && train.mem_bytes != score.mem_bytes);
    assert_true(control.mem_bytes > score.mem_bytes && control.train_flops > score.train_flops);
}

/* A memory that about half of the first n architectures of the search fit in. */
static uint64_t middle(const struct job_spec *spec, int n)
{
    struct search *search;
    struct proposal p;
    struct job_data data;
    struct job_spec random = *spec;
    uint64_t need[64];
    sim_job_data(&data);
    snprintf(random.searcher.name, sizeof random.searcher.name, "random");
    random.window = n + 1;
    assert_int_equal(search_open(&search, &random, &data.img, NULL), 0);
    for (int i = 0; i < n; i++) {
        assert_int_equal(search_propose(search, &p, NULL), 0);
        int k = i;
        uint64_t v = need_of(spec, p.arch);
        for (; k > 0 && need[k - 1] > v; k--)
            need[k] = need[k - 1];
        need[k] = v;
    }
    search_close(search);
    return need[n / 2];
}

static void memory_is_that_of_networks_in_the_size_of_the_job(void **state)
{
    static const char cell[] = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|";
    struct job_spec search = sim_search_spec(4, 4), verify;
    (void)state;
    job_defaults(&verify, JOB_VERIFY);
    snprintf(search.space, sizeof search.space, "nasbench201");
    snprintf(verify.space, sizeof verify.space, "nasbench201");
    const uint64_t small = need_of(&search, cell), trained = need_of(&verify, cell);
    search.fidelity.proxy = (struct proxy){ .channels = 32, .cells = 3 };
    verify.fidelity.proxy = search.fidelity.proxy; /* not what a verify job builds by */
    assert_true(need_of(&search, cell) > 2 * small);
    assert_int_equal(need_of(&verify, cell), trained);
    verify.verify.proxy = search.fidelity.proxy;
    assert_true(need_of(&verify, cell) > 2 * trained);
}

static struct worker *sized_hello(struct sim *s, const char *id, uint64_t mem_bytes)
{
    struct worker *w = sim_hello(s, id, 7, NULL, 0, NULL);
    w->mem_bytes = mem_bytes;
    return w;
}

static void a_trial_goes_to_no_worker_that_is_too_small_for_it(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(24, 24);
    snprintf(spec.searcher.name, sizeof spec.searcher.name, "random");
    const uint64_t room = middle(&spec, 24);
    uint64_t job = sim_submit(s, &spec);
    struct worker *small = sized_hello(s, "small", room), *large = sized_hello(s, "large", 1ull << 40);
    int to_small = 0, too_large = 0;
    sim_want(s, small, 100);
    for (int i = 0; i < s->n_sent; i++) {
        assert_string_equal(s->sent[i].worker, "small");
        assert_true(need_of(&spec, s->sent[i].t.score.arch) <= room);
    }
    to_small = s->n_sent;
    assert_true(to_small > 4 && to_small < 20); /* what does not fit waits for the large one, and is no failure */
    assert_int_equal(sched_job(s->sched, job)->row.n.failed, 0);
    sim_advance(s, LEASE_MS / 2);
    sim_want(s, large, 100);
    assert_int_equal(s->n_sent, 24);
    for (int i = to_small; i < 24; i++) {
        assert_string_equal(s->sent[i].worker, "large");
        too_large += need_of(&spec, s->sent[i].t.score.arch) > room;
    }
    assert_int_equal(too_large, 24 - to_small);
}

static void a_trial_that_fits_no_worker_is_recorded_as_out_of_memory(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(12, 3);
    const uint64_t room = middle(&spec, 12);
    uint64_t job = sim_submit(s, &spec);
    s->now += MISSED_BEATS * BEAT_MS;
    struct worker *w = sized_hello(s, "only", room);
    for (int i = 0; i < 200 && sched_job(s->sched, job); i++) {
        int before = s->n_sent;
        sim_advance(s, 1);
        sim_want(s, w, 1);
        if (s->n_sent > before)
            sim_scored(s, w, sim_last(s), sim_score_of(s->sent[s->n_sent - 1].t.score.arch));
    }
    int failed = 0;
    for (uint64_t i = 0; i < 12; i++) {
        const struct trial_row *t = sim_trial(s, job, i);
        const uint64_t need = need_of(&spec, t->arch);
        char says[200];
        assert_int_equal(t->state, need > room ? TRIAL_FAILED : TRIAL_SCORED);
        if (need <= room)
            continue;
        failed++;
        snprintf(says, sizeof says, "needs %llu MiB, the largest worker has %llu MiB", (unsigned long long)((need + 1048575) >> 20),
                 (unsigned long long)(room >> 20));
        assert_string_equal(t->r.detail, says);
        assert_int_equal(t->r.reason, FAIL_OOM);
        assert_int_equal(t->r.mem_bytes, need);
        assert_string_equal(t->worker, "");
    }
    assert_true(failed > 0 && failed < 12);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    assert_int_equal(s->n_sent, 12 - failed);
}

static void what_waited_for_a_worker_that_has_gone_fails(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(1, 1);
    uint64_t job = sim_submit(s, &spec);
    s->now += MISSED_BEATS * BEAT_MS;
    struct worker *small = sized_hello(s, "small", 1000), *large = sized_hello(s, "large", 1ull << 40);
    sim_want(s, small, 1);
    assert_int_equal(s->n_sent, 0);
    assert_int_equal(sched_job(s->sched, job)->n_waiting, 1);
    sched_offline(s->sched, large, "test");
    sched_tick(s->sched);
    store_flush(s->store);
    assert_int_equal(sim_trial(s, job, 0)->state, TRIAL_FAILED);
    assert_int_equal(sim_trial(s, job, 0)->r.reason, FAIL_OOM);
    assert_int_equal(sim_job_row(s, job).state, JOB_FAILED);
}

static void after_a_start_nothing_is_too_large_before_old_workers_can_be_back(void **state)
{
    struct sim *s = *state;
    struct job_spec spec = sim_search_spec(1, 1);
    uint64_t job = sim_submit(s, &spec);
    s->now += LEASE_MS;
    sim_restart(s);
    struct worker *small = sized_hello(s, "small", 1000);
    sim_want(s, small, 1);
    sched_tick(s->sched);
    store_flush(s->store);
    assert_int_equal(sched_job(s->sched, job)->n_waiting, 1);
    struct worker *large = sized_hello(s, "large", 1ull << 40);
    s->now += MISSED_BEATS * BEAT_MS - 1;
    sim_want(s, large, 1);
    assert_int_equal(s->n_sent, 1);
    assert_string_equal(s->sent[0].worker, "large");
}

static struct worker *hello_as(struct sim *s, const char *id, uint64_t pid, const char *device)
{
    static int peer;
    struct wire_msg m = { .kind = WIRE_WORKER_HELLO, .hello = { .slots = 4, .pid = pid } };
    struct lease_ref drop[16];
    int dropped = 0;
    snprintf(m.hello.worker_id, sizeof m.hello.worker_id, "%s", id);
    snprintf(m.hello.device_class, sizeof m.hello.device_class, "%s", device);
    struct worker *w = sched_hello(s->sched, &m, drop, &dropped);
    w->mem_bytes = 1ull << 40;
    w->peer = &peer;
    store_flush(s->store);
    return w;
}

/* A worker's process comes back under the same name and number, without its GPU. */
static void a_lease_for_a_device_is_not_sent_again_without_it(void **state)
{
    struct sim *s = *state;
    struct job_spec a = sim_search_spec(20, 20);
    a.device = DEVICE_CUDA;
    uint64_t job = sim_submit(s, &a);
    sim_want(s, hello_as(s, "w", 1, "cuda"), 1);
    assert_int_equal(s->n_sent, 1);
    assert_int_equal(s->sent[0].t.device, DEVICE_CUDA);
    sim_want(s, hello_as(s, "w", 1, "cpu"), 1);
    assert_int_equal(s->n_sent, 1);
    sim_want(s, hello_as(s, "g", 2, "cuda"), 1);
    assert_int_equal(s->n_sent, 2);
    assert_int_equal(s->sent[1].t.trial, s->sent[0].t.trial);
    assert_int_equal(s->sent[1].t.device, DEVICE_CUDA);
    assert_true(s->sent[1].t.attempt > s->sent[0].t.attempt);
    assert_int_equal(sched_job(s->sched, job)->n_running, 1);
}

/* More trials wait for a GPU than are measured at once: another job's waiting trials are found all the same. */
static void what_waits_for_a_device_holds_nobody_up(void **state)
{
    struct sim *s = *state;
    struct job_spec a = sim_search_spec(200, 200), b = sim_search_spec(10, 10);
    snprintf(a.searcher.name, sizeof a.searcher.name, "random");
    snprintf(b.searcher.name, sizeof b.searcher.name, "random");
    a.device = DEVICE_CUDA;
    const uint64_t A = sim_submit(s, &a);
    struct worker *g = hello_as(s, "gpu", 7, "cuda");
    sim_want(s, g, 100);
    sched_offline(s->sched, g, "gone");
    for (int i = 0; i < 40; i++)
        sim_advance(s, LEASE_MS);
    const uint64_t B = sim_submit(s, &b);
    sim_want(s, hello_as(s, "c", 8, "cpu"), 4);
    sim_restart(s); /* B's four wait again, and nobody has measured them */
    for (int i = 0; i < 40; i++)
        sim_advance(s, LEASE_MS);
    assert_true(sched_job(s->sched, A)->n_waiting > 64);
    assert_int_equal(sched_job(s->sched, B)->n_waiting, 4);
    const int before = s->n_sent;
    sim_want(s, hello_as(s, "c", 9, "cpu"), 4);
    assert_int_equal(s->n_sent - before, 4);
    assert_int_equal(sched_job(s->sched, B)->n_waiting, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, sim_setup, sim_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_audits_trials_are_measured_as_what_they_are),
        cmocka_unit_test(memory_is_that_of_networks_in_the_size_of_the_job),
        T(a_trial_goes_to_no_worker_that_is_too_small_for_it),
        T(a_trial_that_fits_no_worker_is_recorded_as_out_of_memory),
        T(what_waited_for_a_worker_that_has_gone_fails),
        T(a_lease_for_a_device_is_not_sent_again_without_it),
        T(what_waits_for_a_device_holds_nobody_up),
        T(after_a_start_nothing_is_too_large_before_old_workers_can_be_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
