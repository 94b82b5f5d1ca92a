/* Proposals of a searcher outside: what is acknowledged is kept, what is wrong changes nothing, a request may come twice. */
#include "coordinator/coord.h"
#include "coordinator/http_guard.h"
#include "tests/support/sim.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_ARCHS = 12 };
static char arch[N_ARCHS][ARCH_TEXT_MAX]; /* different ones, small */

struct said { int rc; size_t n; bool before; uint64_t idx[ASK_MAX_BATCH]; char text[600]; };

static void on_asked(void *arg, int rc, const struct trial_row *row, size_t n, bool before, const struct errbuf *e)
{
    struct said *a = arg;
    assert_int_equal(a->rc, 1); /* answered once */
    *a = (struct said){ .rc = rc, .n = n, .before = before };
    for (size_t i = 0; i < n; i++)
        a->idx[i] = row[i].idx;
    if (rc < 0)
        snprintf(a->text, sizeof a->text, "%s", err_message(e, rc));
}

static void ask_list(struct sim *s, uint64_t job, const char *request, const char *const *text, size_t n, struct said *a)
{
    struct asked v[ASK_MAX_BATCH + 1];
    *a = (struct said){ .rc = 1 };
    for (size_t i = 0; i < n; i++)
        v[i] = (struct asked){ text[i], "tag" };
    sched_propose(s->sched, job, request, v, n, on_asked, a);
}

/* arch[first], arch[first + 1], … */
static struct said ask(struct sim *s, uint64_t job, const char *request, int first, size_t n)
{
    static struct said a;
    const char *text[ASK_MAX_BATCH + 1];
    for (size_t i = 0; i < n; i++)
        text[i] = arch[(first + (int)i) % N_ARCHS];
    ask_list(s, job, request, text, n, &a);
    store_flush(s->store);
    assert_int_not_equal(a.rc, 1);
    return a;
}

static void refused(struct sim *s, uint64_t job, const char *request, int first, size_t n, int rc, const char *part)
{
    struct said a = ask(s, job, request, first, n);
    if (a.rc != rc || !strstr(a.text, part))
        fail_msg("%d \"%s\", not %d \"%s\"", a.rc, a.text, rc, part);
}

static struct job_spec spec; /* large */

static uint64_t submit(struct sim *s, int trials, int window)
{
    spec = sim_search_spec(trials, window);
    snprintf(spec.searcher.name, sizeof spec.searcher.name, "external");
    return sim_submit(s, &spec);
}

static int setup(void **state)
{
    struct rng r;
    rng_init(&r, 3, RNG_TEST, 0);
    for (int i = 0; i < N_ARCHS;) {
        bool new = true;
        space_chain.random(&space_chain, &r, arch[i]);
        for (int k = 0; k < i; k++)
            new &= strcmp(arch[k], arch[i]) != 0;
        i += new;
    }
    return sim_setup_as(state, (struct sim_rules){ .beat_ms = 10000000, .lease_ms = 10000000, .any_size = true });
}

static void score(struct sim *s, struct worker *w, struct lease_ref ref, double v)
{
    struct trial_result r = { .state = TRIAL_SCORED, .score = v, .n_inits = 1, .init_score = { v }, .lr_scale = 1, .params = 10, .macs = 10, .seconds = 1 };
    assert_int_equal(sim_report(s, w, ref, r).outcome, ACK_RECORDED);
}

static void what_is_acknowledged_is_kept(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 10, 4);
    struct said a;
    ask_list(s, job, "k", (const char *[]){ arch[0], arch[1] }, 2, &a);
    assert_int_equal(a.rc, 1); /* not before the commit */
    store_flush(s->store);
    assert_true(a.rc == 0 && a.n == 2 && a.idx[0] == 0 && a.idx[1] == 1 && !a.before);
    sim_restart(s);
    struct trial_row *t = sim_trial(s, job, 1);
    assert_string_equal(t->arch, arch[1]);
    assert_string_equal(t->tag, "tag");
    assert_string_equal(t->request, "k");
    assert_int_equal(t->state, TRIAL_WAITING);
    struct worker *w = sim_hello(s, "w", 1, NULL, 0, NULL);
    sim_want(s, w, 4);
    assert_int_equal(s->n_sent, 2);
    assert_string_equal(s->sent[0].t.score.arch, arch[0]);
    assert_int_equal(s->sent[1].t.trial, 1);
    score(s, w, sim_ref_of(&s->sent[1].t), 0.5);
    score(s, w, sim_ref_of(&s->sent[0].t), 0.5);
    assert_int_equal(ask(s, job, "", 2, 1).idx[0], 2); /* goes to the worker that waits */
    assert_int_equal(s->n_sent, 3);
}

static void the_same_request_proposes_once(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 4, 4);
    assert_int_equal(ask(s, job, "one", 0, 2).rc, 0);
    struct said a = ask(s, job, "one", 0, 2);
    assert_true(a.rc == 0 && a.before && a.n == 2 && a.idx[1] == 1);
    refused(s, job, "one", 1, 2, -ERR_INPUT, "has proposed other architectures");
    refused(s, job, "one", 0, 1, -ERR_INPUT, "has proposed other architectures");
    sim_restart(s);
    assert_true(ask(s, job, "one", 0, 2).before);
    a = ask(s, job, "two", 0, 2); /* another key: proposals of their own */
    assert_true(!a.before && a.idx[0] == 2);
    struct said first, second; /* the second comes while the first is being saved */
    uint64_t other = submit(s, 4, 4);
    ask_list(s, other, "k", (const char *[]){ arch[0] }, 1, &first);
    ask_list(s, other, "k", (const char *[]){ arch[0] }, 1, &second);
    store_flush(s->store);
    assert_true(first.rc == 0 && !first.before && second.rc == 0 && second.before && second.idx[0] == first.idx[0]);
    assert_int_equal(sim_act(s, job, "cancel").rc, 0);
    assert_true(ask(s, job, "one", 0, 2).before); /* the answer may have been lost with the job's end */
    refused(s, job, "three", 0, 1, -ERR_STATE, "cancelled: it takes no more proposals");
    refused(s, 99, "", 0, 1, -ERR_NOTFOUND, "no job 99");
}

static void bounds_are_told_and_nothing_changes(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 5, 3);
    struct said a;
    refused(s, job, "", 0, 4, -ERR_INPUT, "more than the window of 3");
    refused(s, job, "", 0, 0, -ERR_INPUT, "1 to 256");
    ask_list(s, job, "", (const char *[]){ arch[0], "bn relu | c8k3 | zz | flat" }, 2, &a);
    store_flush(s->store);
    assert_int_equal(a.rc, -ERR_INPUT);
    assert_non_null(strstr(a.text, "trials[1].arch"));
    assert_non_null(strstr(a.text, "zz"));
    assert_int_equal(ask(s, job, "", 0, 2).idx[0], 0); /* the good one of the bad pair was not taken */
    refused(s, job, "", 2, 2, -ERR_BUSY, "beyond the window of 3: the next is taken when trial 0 has ended");
    assert_int_equal(ask(s, job, "", 2, 1).idx[0], 2);
    struct worker *w = sim_hello(s, "w", 1, NULL, 0, NULL);
    sim_want(s, w, 3);
    score(s, w, sim_ref_of(&s->sent[1].t), 0.5);
    refused(s, job, "", 3, 1, -ERR_BUSY, "when trial 0 has ended");
    score(s, w, sim_ref_of(&s->sent[0].t), 0.5);
    refused(s, job, "", 3, 3, -ERR_STATE, "budget.trials: 3 of 5 are proposed, 3 more are too many");
    assert_int_equal(ask(s, job, "", 3, 2).idx[1], 4);
    refused(s, job, "", 3, 1, -ERR_STATE, "budget.trials");
    spec = sim_search_spec(5, 3);
    refused(s, sim_submit(s, &spec), "", 0, 1, -ERR_STATE, "has a searcher of its own (evolution)");
}

static void a_store_that_fails_takes_nothing(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 5, 3);
    s->fault = ERR_IO;
    assert_int_equal(ask(s, job, "k", 0, 2).rc, -ERR_IO);
    s->fault = 0;
    sim_advance(s, 2000); /* it is found to be well again */
    struct said a = ask(s, job, "k", 0, 2);
    assert_true(a.rc == 0 && !a.before && a.idx[0] == 0);
    assert_int_equal(ask(s, job, "", 2, 1).idx[0], 2);
}

static void requests_queue_and_each_sees_those_before_it(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 4, 8);
    static struct said a[6];
    for (int i = 0; i < 6; i++)
        ask_list(s, job, "", (const char *[]){ arch[i] }, 1, &a[i]);
    store_flush(s->store);
    for (int i = 0; i < 6; i++)
        assert_true(i < 4 ? a[i].rc == 0 && a[i].idx[0] == (uint64_t)i : a[i].rc == -ERR_STATE);
    static struct said many[ASK_MAX_QUEUE + 2];
    job = submit(s, 1000, 200);
    for (int i = 0; i < ASK_MAX_QUEUE + 2; i++)
        ask_list(s, job, "", (const char *[]){ arch[i % N_ARCHS] }, 1, &many[i]);
    assert_int_equal(many[ASK_MAX_QUEUE + 1].rc, -ERR_BUSY);
    assert_int_equal(sim_act(s, job, "cancel").rc, 0); /* what waits is saved first, or refused with the job's end: never unanswered */
    for (int i = 0; i < ASK_MAX_QUEUE + 2; i++)
        assert_int_not_equal(many[i].rc, 1);
}

static void a_repeat_waits_for_its_twin_and_is_not_computed(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 6, 6);
    struct worker *w = sim_hello(s, "w", 1, NULL, 0, NULL);
    assert_int_equal(ask(s, job, "", 0, 1).rc, 0);
    assert_int_equal(ask(s, job, "", 0, 1).idx[0], 1);
    assert_int_equal(ask(s, job, "", 1, 1).idx[0], 2);
    sim_want(s, w, 3);
    assert_int_equal(s->n_sent, 2);
    assert_true(s->sent[0].t.trial == 0 && s->sent[1].t.trial == 2);
    assert_int_equal(sim_trial(s, job, 1)->state, TRIAL_WAITING);
    score(s, w, sim_ref_of(&s->sent[0].t), 0.25);
    store_flush(s->store);
    struct trial_row *t = sim_trial(s, job, 1);
    assert_true(t->state == TRIAL_SCORED && t->from_book && t->r.score == 0.25 && s->n_sent == 2);
    assert_int_equal(ask(s, job, "", 0, 1).idx[0], 3); /* and one whose result is there is answered at once */
    store_flush(s->store);
    assert_true(sim_trial(s, job, 3)->from_book);
    sim_failed(s, w, sim_ref_of(&s->sent[1].t), FAIL_CRASH); /* what is no fact is no answer */
    assert_int_equal(ask(s, job, "", 1, 1).idx[0], 4);
    assert_int_equal(s->n_sent, 3);
    assert_int_equal(sim_last(s).trial, 4);
}

/* Killed between the commit of a proposal and that of the book's answer. */
static void the_book_is_asked_after_a_restart_too(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 6, 6);
    struct worker *w = sim_hello(s, "w", 1, NULL, 0, NULL);
    assert_int_equal(ask(s, job, "", 0, 1).rc, 0);
    assert_int_equal(ask(s, job, "", 0, 1).rc, 0);
    sim_want(s, w, 1);
    sim_act(s, job, "pause"); /* so that nothing is served before the restart */
    score(s, w, sim_last(s), 0.25);
    assert_int_equal(sim_trial(s, job, 1)->state, TRIAL_WAITING);
    sim_restart(s);
    sim_act(s, job, "resume");
    store_flush(s->store);
    assert_true(sim_trial(s, job, 1)->from_book && s->n_sent == 1);
}

static struct answer change(struct sim *s, uint64_t job, const char *action, const char *text)
{
    struct answer a = { 1, 0, "" };
    sched_change(s->sched, job, action, text, sim_on_done, &a);
    store_flush(s->store);
    return a;
}

static void finish_ends_it_and_extend_goes_on(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 6, 6);
    struct answer a = change(s, job, "finish", "");
    assert_true(a.rc == -ERR_STATE && strstr(a.text, "nothing has been proposed"));
    struct worker *w = sim_hello(s, "w", 1, NULL, 0, NULL);
    assert_int_equal(ask(s, job, "", 0, 2).rc, 0);
    assert_int_equal(change(s, job, "finish", "").rc, 0);
    refused(s, job, "", 2, 1, -ERR_STATE, "budget.trials: 2 of 2");
    sim_restart(s); /* it is saved */
    w = sim_hello(s, "w", 1, NULL, 0, NULL);
    sim_want(s, w, 2);
    score(s, w, sim_ref_of(&s->sent[0].t), 0.25);
    score(s, w, sim_ref_of(&s->sent[1].t), 0.5);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    refused(s, job, "", 2, 1, -ERR_STATE, "didact extend");
    assert_int_equal(change(s, job, "extend", "budget.trials=4").rc, 0);
    assert_int_equal(ask(s, job, "", 2, 2).idx[0], 2);
    sim_want(s, w, 2);
    score(s, w, sim_ref_of(&s->sent[2].t), 0.25);
    score(s, w, sim_ref_of(&s->sent[3].t), 0.5);
    assert_int_equal(sim_job_row(s, job).state, JOB_SUCCEEDED);
    spec = sim_search_spec(5, 3);
    a = change(s, sim_submit(s, &spec), "finish", "");
    assert_true(a.rc == -ERR_STATE && strstr(a.text, "a searcher of its own"));
}

/* A change and a request are checked against the same budget: never both at once. */
static void a_change_and_a_request_do_not_pass_each_other(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 6, 6);
    struct said a;
    struct answer b = { 1, 0, "" };
    assert_int_equal(ask(s, job, "", 0, 1).rc, 0);
    ask_list(s, job, "", (const char *[]){ arch[1] }, 1, &a);
    sched_change(s->sched, job, "finish", "", sim_on_done, &b);
    assert_int_equal(b.rc, -ERR_BUSY);
    store_flush(s->store);
    assert_int_equal(a.rc, 0);
    b.rc = 1;
    sched_change(s->sched, job, "finish", "", sim_on_done, &b);
    ask_list(s, job, "", (const char *[]){ arch[2] }, 1, &a);
    assert_int_equal(a.rc, -ERR_BUSY);
    store_flush(s->store);
    assert_int_equal(b.rc, 0);
}

static void a_paused_job_takes_proposals_and_gives_none_out(void **state)
{
    struct sim *s = *state;
    uint64_t job = submit(s, 6, 6);
    struct worker *w = sim_hello(s, "w", 1, NULL, 0, NULL);
    sim_want(s, w, 2);
    assert_int_equal(sim_act(s, job, "pause").rc, 0);
    assert_int_equal(ask(s, job, "", 0, 2).rc, 0);
    assert_true(s->n_sent == 0 && sim_job_row(s, job).state == JOB_PAUSED);
    assert_int_equal(sim_act(s, job, "resume").rc, 0);
    assert_int_equal(s->n_sent, 2);
}

/* ---- the body ---- */

static void a_body_is_read_or_its_mistake_is_named(void **state)
{
    (void)state;
    struct proposals p;
    struct errbuf e;
    const char *good = "{\"request\":\"r\",\"trials\":[{\"arch\":\"a\",\"tag\":\"t\"},{\"arch\":\"b\"}]}";
    assert_int_equal(proposals_parse(good, strlen(good), &p, &e), 0);
    assert_true(p.n == 2 && strcmp(p.request, "r") == 0 && strcmp(p.v[0].tag, "t") == 0 && strcmp(p.v[1].arch, "b") == 0 && !p.v[1].tag[0]);
    proposals_fini(&p);
    assert_int_equal(proposals_parse("{\"arch\":\"a\"}", 12, &p, &e), 0);
    assert_true(p.n == 1 && strcmp(p.v[0].arch, "a") == 0 && !p.request[0]);
    proposals_fini(&p);
    static const struct { const char *body, *says; } bad[] = {
        { "", "not JSON" }, { "[]", "the body must be" }, { "{\"trials\":[]}", "trials: must be a list of 1" }, { "{\"trials\":3}", "trials: must be a list" },
        { "{\"trials\":[3]}", "trials[0]: must be" }, { "{\"trials\":[{\"arch\":\"a\"},{\"tag\":\"t\"}]}", "trials[1]: arch: is missing" },
        { "{\"arch\":7}", "arch: must be a text" }, { "{\"arch\":\"a\",\"seed\":1}", "seed: there is no such key" },
        { "{\"arch\":\"a\\n\"}", "arch: has a control character" }, { "{\"arch\":\"a\",\"arch\":\"b\"}", "not JSON" },
        { "{\"trials\":[{\"arch\":\"a\"}],\"arch\":\"a\"}", "trials: excludes" }, { "{\"request\":1,\"arch\":\"a\"}", "request: must be a text" },
        { "{\"arch\":\"a\\u0000b\"}", "not JSON" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (proposals_parse(bad[i].body, strlen(bad[i].body), &p, &e) != -ERR_INPUT || !strstr(e.text, bad[i].says))
            fail_msg("%s: \"%s\", not \"%s\"", bad[i].body, e.text, bad[i].says);
}

static void only_names_of_this_machine_are_its_own(void **state)
{
    (void)state;
    static const char *const ours[] = { "localhost", "LOCALHOST:7780", "127.0.0.1:80", "127.3.2.1", "[::1]", "[::1]:7780" };
    static const char *const others[] = { "", "127.evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "example.org", "10.0.0.1",
                                          "[::1", "[::2]", "127.0.0.1:80x", "localhost:80@evil.example" };
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        assert_true(http_host_is_local(ours[i]));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (http_host_is_local(others[i]))
            fail_msg("%s", others[i]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, sim_teardown)
    const struct CMUnitTest tests[] = {
        T(what_is_acknowledged_is_kept),
        T(the_same_request_proposes_once),
        T(bounds_are_told_and_nothing_changes),
        T(a_store_that_fails_takes_nothing),
        T(requests_queue_and_each_sees_those_before_it),
        T(a_repeat_waits_for_its_twin_and_is_not_computed),
        T(the_book_is_asked_after_a_restart_too),
        T(finish_ends_it_and_extend_goes_on),
        T(a_change_and_a_request_do_not_pass_each_other),
        T(a_paused_job_takes_proposals_and_gives_none_out),
        cmocka_unit_test(a_body_is_read_or_its_mistake_is_named),
        cmocka_unit_test(only_names_of_this_machine_are_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
