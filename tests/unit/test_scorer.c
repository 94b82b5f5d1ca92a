#include "worker/task.h"

#include "tests/support/learnable.h"
#include "worker/engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bench { struct desk desk; struct task task; hash_str data; };

/* A score task on the synthetic set: `lr` of the curriculum, T = 12, B = 32. */
static void prepare(void **state, struct bench *b, double lr, int threads)
{
    struct tmp *t = *state;
    const char *data = tmp_path(t, "data.st"), *lessons = tmp_path(t, "lessons-%d-%g.st", threads, lr);
    hash_str h;
    assert_int_equal(eng_init(NULL, NULL), 0);
    memset(b, 0, sizeof *b);
    desk_init(&b->desk, t, threads);
    learnable_write(data, b->data);
    learnable_curriculum(data, lessons, 12, 32, lr, h);
    desk_add(&b->desk, b->data, data);
    desk_add(&b->desk, h, lessons);
    b->task.kind = TASK_SCORE;
    struct score_task *s = &b->task.score;
    snprintf(s->space, sizeof s->space, "chain");
    snprintf(s->arch, sizeof s->arch, "bn relu | c8k3 | max2 c12k3 | flat");
    memcpy(s->dataset, b->data, sizeof h);
    memcpy(s->curriculum, h, sizeof h);
    s->fidelity = (struct fidelity){ .steps = 0, .inits = 2, .valid_images = 50, .n_checkpoints = 2, .checkpoint = { 4, 8 },
                                     .n_lr_scales = 2, .lr_scale = { 0.5, 1 } };
    s->seed = 11;
}

static struct trial_result score(struct bench *b)
{
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    int rc = task_score(&b->task, &b->desk.env, &r, &e);
    if (rc < 0)
        fail_msg("%s", err_message(&e, rc));
    r.seconds = 0;
    return r;
}

static void a_learner_taught_with_real_images_scores_above_chance(void **state)
{
    struct bench b;
    prepare(state, &b, 0.1, 1);
    struct trial_result r = score(&b);
    assert_int_equal(r.state, TRIAL_SCORED);
    assert_true(r.score > 0.6); /* chance is 0.25 */
    assert_int_equal(r.n_inits, 2);
    assert_true(r.score == (r.init_score[0] + r.init_score[1]) / 2);
    assert_int_equal(r.n_checkpoints, 2);
    assert_int_equal(r.checkpoint[1], 8);
    assert_true(r.checkpoint_score[0] > 0 && r.checkpoint_score[0] <= 1);
    assert_true(r.lr_scale == 0.5 || r.lr_scale == 1);
    assert_true(r.loss_sum > 0 && r.params > 0 && r.macs > 0 && r.mem_bytes > 0);
    assert_true(b.desk.n_progress > 0);
    assert_true(b.desk.last.done == b.desk.last.total);
}

static void a_score_has_the_same_bits_again_and_with_two_threads(void **state)
{
    struct bench b;
    prepare(state, &b, 0.1, 1);
    struct trial_result first = score(&b), again = score(&b);
    assert_memory_equal(&first, &again, sizeof first);
    prepare(state, &b, 0.1, 2);
    again = score(&b);
    assert_memory_equal(&first, &again, sizeof first);
}

/* Initialisation i is the same whoever else is computed with it; and where others stand, all that diverge are no failure. */
static void further_initialisations_are_those_of_a_larger_whole(void **state)
{
    struct bench b;
    prepare(state, &b, 0.1, 1);
    struct fidelity *f = &b.task.score.fidelity;
    f->n_lr_scales = 1;
    f->inits = 5;
    struct trial_result whole = score(&b);
    f->inits = 3;
    f->first_init = 2;
    struct trial_result rest = score(&b);
    assert_int_equal(rest.n_inits, 3);
    assert_memory_equal(rest.init_score, whole.init_score + 2, 3 * sizeof(double));
    f->first_init = 0;
    assert_true(score(&b).loss_sum != rest.loss_sum);
    f->first_init = MAX_INITS - 2;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    assert_int_equal(task_score(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    prepare(state, &b, 1e30, 1);
    b.task.score.fidelity.first_init = 1;
    r = score(&b);
    assert_true(r.state == TRIAL_SCORED && r.score == 0.25 && r.n_inits == 2);
}

static void zero_cost_scores_come_beside_the_score_and_change_nothing_in_it(void **state)
{
    struct bench b;
    prepare(state, &b, 0.1, 1);
    struct trial_result plain = score(&b);
    assert_int_equal(plain.zero_cost.known, 0);
    b.task.score.zero_cost = ZC_ALL;
    struct trial_result all = score(&b);
    assert_int_equal(all.zero_cost.known, ZC_ALL);
    assert_true(all.score == plain.score && all.loss_sum == plain.loss_sum);
    b.task.score.zero_cost = 1u << ZC_NASWOT;
    struct trial_result one = score(&b);
    assert_int_equal(one.zero_cost.known, 1u << ZC_NASWOT);
    assert_true(one.zero_cost.value[ZC_NASWOT] == all.zero_cost.value[ZC_NASWOT]);
}

static void a_latency_is_measured_beside_the_score_and_changes_nothing_in_it(void **state)
{
    struct bench b;
    prepare(state, &b, 0.1, 2);
    struct trial_result plain = score(&b);
    assert_true(plain.latency_ms == 0);
    b.task.score.latency_batch = 1;
    struct trial_result one = score(&b);
    b.task.score.latency_batch = 64;
    struct trial_result many = score(&b);
    assert_true(one.latency_ms > 0 && one.latency_ms < 1000 && many.latency_ms > 4 * one.latency_ms);
    assert_true(one.score == plain.score && one.loss_sum == plain.loss_sum && many.score == plain.score);
}

static void another_seed_gives_another_score(void **state)
{
    struct bench b;
    prepare(state, &b, 0.1, 1);
    struct trial_result a = score(&b);
    b.task.score.seed++;
    struct trial_result c = score(&b);
    assert_true(a.loss_sum != c.loss_sum);
}

static void divergence_of_every_learner_is_a_failed_trial_that_names_the_step(void **state)
{
    struct bench b;
    prepare(state, &b, 1e30, 1);
    struct trial_result r = score(&b);
    assert_int_equal(r.state, TRIAL_FAILED);
    assert_int_equal(r.reason, FAIL_NAN);
    assert_string_equal(r.detail, "not finite at inner step 2 of 12: output of layer block1.conv (conv) (initialisation 0, step size times 0.5)");
}

static void a_multiple_that_diverges_loses_to_one_that_does_not(void **state)
{
    struct bench b;
    prepare(state, &b, 0.1, 1);
    b.task.score.fidelity.lr_scale[0] = 1e30;
    struct trial_result r = score(&b);
    assert_int_equal(r.state, TRIAL_SCORED);
    assert_true(r.lr_scale == 1);
    assert_string_equal(r.detail, "");
}

static void what_does_not_fit_the_budget_is_refused_before_it_is_allocated(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b, 0.1, 1);
    b.desk.env.mem_bytes = 1000;
    assert_int_equal(task_score(&b.task, &b.desk.env, &r, &e), -ERR_NOMEM);
    assert_true(r.mem_bytes > 1000);
}

static void bad_tasks_are_refused_with_the_reason(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b, 0.1, 1);
    b.task.score.fidelity.steps = 13;
    assert_int_equal(task_score(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "13"));
    b.task.score.fidelity.steps = 4;
    assert_int_equal(task_score(&b.task, &b.desk.env, &r, &e), -ERR_INPUT); /* checkpoint 8 is past the end */
    b.task.score.fidelity.n_checkpoints = 0;
    snprintf(b.task.score.space, sizeof b.task.score.space, "nowhere");
    assert_int_equal(task_score(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "nowhere"));
}

static void a_cancelled_score_stops(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b, 0.1, 1);
    b.desk.polls_left = 3;
    assert_int_equal(task_score(&b.task, &b.desk.env, &r, &e), -ERR_CANCELLED);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_learner_taught_with_real_images_scores_above_chance),
        TEST(a_score_has_the_same_bits_again_and_with_two_threads),
        TEST(further_initialisations_are_those_of_a_larger_whole),
        TEST(a_latency_is_measured_beside_the_score_and_changes_nothing_in_it),
        TEST(zero_cost_scores_come_beside_the_score_and_change_nothing_in_it),
        TEST(another_seed_gives_another_score),
        TEST(divergence_of_every_learner_is_a_failed_trial_that_names_the_step),
        TEST(a_multiple_that_diverges_loses_to_one_that_does_not),
        TEST(what_does_not_fit_the_budget_is_refused_before_it_is_allocated),
        TEST(bad_tasks_are_refused_with_the_reason),
        TEST(a_cancelled_score_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
