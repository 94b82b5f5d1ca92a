#include "worker/task.h"

#include "common/safetensors.h"
#include "tests/support/learnable.h"
#include "worker/engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bench { struct desk desk; struct task task; };

static void prepare(void **state, struct bench *b, int threads)
{
    struct tmp *t = *state;
    const char *data = tmp_path(t, "data.st");
    hash_str h;
    assert_int_equal(eng_init(NULL, NULL), 0);
    memset(b, 0, sizeof *b);
    desk_init(&b->desk, t, threads);
    learnable_write(data, h);
    desk_add(&b->desk, h, data);
    b->task.kind = TASK_TRAIN;
    b->task.train = (struct train_task){ .space = "chain", .arch = "bn relu | c8k3 | max2 c12k3 | gap", .epochs = 4, .batch = 30, .lr = 0.1,
                                         .momentum = 0.9, .weight_decay = 1e-4, .shift = 1, .seed = 3, .keep_weights = true };
    memcpy(b->task.train.dataset, h, sizeof h);
}

static struct trial_result train(struct bench *b)
{
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    int rc = task_train(&b->task, &b->desk.env, &r, &e);
    if (rc < 0)
        fail_msg("%s", err_message(&e, rc));
    r.seconds = 0;
    return r;
}

static void training_learns_the_synthetic_set(void **state)
{
    struct bench b;
    prepare(state, &b, 1);
    struct trial_result r = train(&b);
    assert_int_equal(r.state, TRIAL_SCORED);
    assert_true(r.score > 0.8); /* chance is 0.25 */
    assert_true(r.valid_score > 0.8);
    assert_true(b.desk.n_progress >= 4);
    assert_true(b.desk.last.done == 4 && b.desk.last.total == 4);
}

static void an_audit_does_not_read_the_test_split(void **state)
{
    struct bench b;
    prepare(state, &b, 1);
    b.task.train.epochs = 0.5;
    struct trial_result tested = train(&b);
    assert_true(tested.score != tested.valid_score);
    b.task.train.no_test = true;
    struct trial_result r = train(&b);
    assert_true(r.score == tested.valid_score && r.valid_score == tested.valid_score && r.init_score[0] == r.score);
}

static void the_result_has_the_same_bits_with_two_threads(void **state)
{
    struct bench b;
    prepare(state, &b, 1);
    b.task.train.epochs = 1.5;
    b.task.train.flip = true;
    struct trial_result one = train(&b);
    prepare(state, &b, 2);
    b.task.train.epochs = 1.5;
    b.task.train.flip = true;
    struct trial_result two = train(&b);
    assert_memory_equal(&one, &two, sizeof one); /* the hash of the weights is in it */
}

static void the_weights_file_has_parameters_and_running_statistics(void **state)
{
    struct bench b;
    struct st_file f;
    prepare(state, &b, 1);
    b.task.train.epochs = 1;
    struct trial_result r = train(&b);
    assert_int_equal(st_open(&f, desk_path(&b.desk, r.artifact), NULL), 0);
    assert_string_equal(st_meta(&f, "arch"), b.task.train.arch);
    struct net n;
    assert_int_equal(space_build(&space_chain, b.task.train.arch, 1, 8, 8, 4, NULL, &n, NULL), 0);
    int norms = 0;
    for (int i = 0; i < n.n_params; i++) {
        const struct st_tensor *t = st_find(&f, n.param[i].name);
        assert_non_null(t);
        assert_int_equal(t->count, n.param[i].size);
    }
    for (int i = 0; i < n.n_nodes; i++)
        if (n.node[i].op == NET_BN) {
            char name[128];
            snprintf(name, sizeof name, "%s.running_var", n.node[i].path);
            const struct st_tensor *t = st_find(&f, name);
            assert_non_null(t);
            assert_int_equal(t->count, n.node[i].shape.c);
            for (uint64_t k = 0; k < t->count; k++)
                assert_true(((const float *)t->data)[k] > 0);
            norms++;
        }
    assert_true(norms >= 2);
    assert_int_equal(f.n, n.n_params + 2 * norms);
    net_fini(&n);
    st_close(&f);
}

static void a_step_that_is_too_large_is_a_failed_trial_that_names_the_step(void **state)
{
    struct bench b;
    prepare(state, &b, 1);
    b.task.train.lr = 1e30;
    struct trial_result r = train(&b);
    assert_int_equal(r.state, TRIAL_FAILED);
    assert_int_equal(r.reason, FAIL_NAN);
    assert_non_null(strstr(r.detail, "not finite at step "));
    assert_non_null(strstr(r.detail, ": output of layer block1.conv (conv)"));
    assert_string_equal(r.artifact, "");
}

static void a_cancelled_training_stops(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b, 1);
    b.desk.polls_left = 5;
    assert_int_equal(task_train(&b.task, &b.desk.env, &r, &e), -ERR_CANCELLED);
}

static void what_cannot_be_trained_is_refused(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b, 1);
    b.task.train.batch = 100000;
    assert_int_equal(task_train(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    b.task.train.batch = 30;
    b.desk.env.mem_bytes = 1000;
    assert_int_equal(task_train(&b.task, &b.desk.env, &r, &e), -ERR_NOMEM);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(training_learns_the_synthetic_set),
        TEST(an_audit_does_not_read_the_test_split),
        TEST(the_result_has_the_same_bits_with_two_threads),
        TEST(the_weights_file_has_parameters_and_running_statistics),
        TEST(a_step_that_is_too_large_is_a_failed_trial_that_names_the_step),
        TEST(a_cancelled_training_stops),
        TEST(what_cannot_be_trained_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
