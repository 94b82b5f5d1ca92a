/* Results on disk: there when written, back after a restart, gone when acknowledged; damage is set aside. */
#include "worker/folder.h"
#include "worker/outbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct box { char dir[64], path[200]; struct outbox o; };

static struct trial_result good(double score)
{
    return (struct trial_result){ .state = TRIAL_SCORED, .score = score, .n_inits = 2, .init_score = { score, score },
                                  .lr_scale = 1, .params = 10, .seconds = 0.5 };
}

static int setup(void **state)
{
    struct box   *b = calloc(1, sizeof *b);
    struct errbuf e = { 0 };
    snprintf(b->dir, sizeof b->dir, "/tmp/didact-outbox-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    assert_int_equal(outbox_open(&b->o, b->dir, &e), 0);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct box   *b = *state;
    struct errbuf e = { 0 };
    outbox_close(&b->o);
    assert_int_equal(folder_empty(b->dir, &e), 0);
    assert_int_equal(rmdir(b->dir), 0);
    free(b);
    return 0;
}

static void reopen(struct box *b)
{
    struct errbuf e = { 0 };
    outbox_close(&b->o);
    if (outbox_open(&b->o, b->dir, &e) < 0)
        fail_msg("%s", e.text);
}

static bool exists(struct box *b, const char *name)
{
    snprintf(b->path, sizeof b->path, "%s/%s", b->dir, name);
    return access(b->path, F_OK) == 0;
}

static void a_written_result_is_there_after_a_restart_until_it_is_removed(void **state)
{
    struct box         *b = *state;
    struct errbuf       e = { 0 };
    struct lease_ref    ref = { 3, 41, 2 };
    struct trial_result r = good(0.75);
    memset(r.artifact, 'a', HASH_HEX_LEN);
    assert_int_equal(outbox_write(b->dir, ref, &r, &e), 0);
    reopen(b);
    struct outbox_item *it = outbox_find(&b->o, ref);
    assert_non_null(it);
    assert_memory_equal(&it->r, &r, sizeof r);
    assert_true(it->on_disk && it->seq == 0);
    outbox_remove(&b->o, it);
    assert_int_equal(b->o.n, 0);
    reopen(b);
    assert_int_equal(b->o.n, 0);
}

static void attempts_of_one_trial_are_apart(void **state)
{
    struct box         *b = *state;
    struct errbuf       e = { 0 };
    struct trial_result r = good(0.5);
    for (uint32_t attempt = 1; attempt <= 20; attempt++)
        assert_int_equal(outbox_write(b->dir, (struct lease_ref){ 1, 2, attempt }, &r, &e), 0);
    reopen(b);
    assert_int_equal(b->o.n, 20);
    outbox_remove(&b->o, outbox_find(&b->o, (struct lease_ref){ 1, 2, 7 }));
    assert_null(outbox_find(&b->o, (struct lease_ref){ 1, 2, 7 }));
    assert_non_null(outbox_find(&b->o, (struct lease_ref){ 1, 2, 8 }));
    assert_int_equal(b->o.n, 19);
}

static void a_known_result_is_not_taken_up_twice(void **state)
{
    struct box         *b = *state;
    struct trial_result first = good(0.5), second = good(0.9);
    struct lease_ref    ref = { 1, 1, 1 };
    struct outbox_item *it = outbox_add(&b->o, ref, &first, false);
    assert_ptr_equal(outbox_add(&b->o, ref, &second, false), it);
    assert_int_equal(b->o.n, 1);
    assert_true(it->r.score == 0.5);
}

static void a_result_that_the_wire_refuses_is_not_written(void **state)
{
    struct box         *b = *state;
    struct errbuf       e = { 0 };
    struct trial_result r = good(0.5);
    r.state = TRIAL_CANCELLED;
    assert_int_equal(outbox_write(b->dir, (struct lease_ref){ 1, 1, 1 }, &r, &e), -ERR_INPUT);
    assert_false(exists(b, "1-1-1.result"));
}

static void a_damaged_file_is_set_aside_and_the_others_load(void **state)
{
    struct box         *b = *state;
    struct errbuf       e = { 0 };
    struct trial_result r = good(0.5);
    for (uint32_t attempt = 1; attempt <= 3; attempt++)
        assert_int_equal(outbox_write(b->dir, (struct lease_ref){ 1, 2, attempt }, &r, &e), 0);
    assert_true(exists(b, "1-2-2.result"));
    FILE *f = fopen(b->path, "r+");
    fseek(f, -3, SEEK_END);
    fputc('#', f);
    fclose(f);
    assert_true(exists(b, "1-2-3.result"));
    assert_int_equal(truncate(b->path, 40), 0);
    reopen(b);
    assert_int_equal(b->o.n, 1);
    assert_true(exists(b, "1-2-2.result.corrupt"));
    assert_true(exists(b, "1-2-3.result.corrupt"));
    reopen(b);
    assert_int_equal(b->o.n, 1);
}

static void a_refused_result_is_kept_for_people_but_not_sent_again(void **state)
{
    struct box         *b = *state;
    struct errbuf       e = { 0 };
    struct trial_result r = good(0.5);
    struct lease_ref    ref = { 1, 2, 1 };
    assert_int_equal(outbox_write(b->dir, ref, &r, &e), 0);
    outbox_refuse(&b->o, outbox_add(&b->o, ref, &r, true));
    assert_true(exists(b, "1-2-1.refused"));
    reopen(b);
    assert_int_equal(b->o.n, 0);
}

static void a_folder_that_is_not_there_is_an_error_that_names_it(void **state)
{
    struct box         *b = *state;
    struct errbuf       e = { 0 };
    struct trial_result r = good(0.5);
    snprintf(b->path, sizeof b->path, "%s/none", b->dir);
    assert_true(outbox_write(b->path, (struct lease_ref){ 1, 1, 1 }, &r, &e) < 0);
    assert_non_null(strstr(e.text, "none"));
}

static void a_second_worker_in_one_folder_is_refused_and_the_identity_stays(void **state)
{
    struct box   *b = *state;
    struct errbuf e = { 0 };
    struct folder f, g;
    name_str      id;
    snprintf(b->path, sizeof b->path, "%s/w", b->dir);
    assert_int_equal(folder_open(&f, b->path, &e), 0);
    assert_int_equal(folder_open(&g, b->path, &e), -ERR_BUSY);
    assert_non_null(strstr(e.text, b->path));
    memcpy(id, f.worker_id, sizeof id);
    assert_true(strlen(id) > 8);
    folder_close(&f);
    assert_int_equal(folder_open(&g, b->path, &e), 0);
    assert_string_equal(g.worker_id, id);
    folder_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_written_result_is_there_after_a_restart_until_it_is_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(attempts_of_one_trial_are_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(a_known_result_is_not_taken_up_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(a_result_that_the_wire_refuses_is_not_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_set_aside_and_the_others_load, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_result_is_kept_for_people_but_not_sent_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_that_is_not_there_is_an_error_that_names_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_worker_in_one_folder_is_refused_and_the_identity_stays, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
