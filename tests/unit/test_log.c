#include "common/log.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* stderr goes into a file between begin and end; end gives what was written. */
static int   saved;
static FILE *sink;

static void capture_begin(void)
{
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    sink = tmpfile();
    assert_non_null(sink);
    assert_true(dup2(fileno(sink), STDERR_FILENO) >= 0);
}

static char *capture_end(void)
{
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    long n = lseek(fileno(sink), 0, SEEK_END);
    char *text = calloc(1, (size_t)n + 1);
    assert_non_null(text);
    assert_int_equal(pread(fileno(sink), text, (size_t)n, 0), n);
    fclose(sink);
    return text;
}

static int count_lines(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += *s == '\n';
    return n;
}

static void an_event_is_one_line_of_keys_and_values(void **state)
{
    (void)state;
    log_init("didactd", LOG_INFO);
    capture_begin();
    log_warn("lease_expired", "trial=%d worker=%s", 42, "w7");
    char *s = capture_end();
    assert_memory_equal(s, "time=2", 6);
    assert_non_null(strstr(s, " prog=didactd level=warn ev=lease_expired trial=42 worker=w7\n"));
    assert_int_equal(count_lines(s), 1);
    free(s);
}

static void events_below_the_least_level_are_dropped(void **state)
{
    (void)state;
    log_init("t", LOG_WARN);
    capture_begin();
    log_debug("a", "x=1");
    log_info("b", "x=1");
    log_warn("c", "x=1");
    log_error("d", "x=1");
    char *s = capture_end();
    assert_int_equal(count_lines(s), 2);
    assert_null(strstr(s, "ev=a"));
    assert_null(strstr(s, "ev=b"));
    assert_non_null(strstr(s, "level=error ev=d"));
    free(s);
}

static void control_characters_in_values_cannot_begin_a_line_of_their_own(void **state)
{
    (void)state;
    log_init("t", LOG_INFO);
    capture_begin();
    log_info("hello", "name=\"%s\"", "evil\nlevel=error ev=fake\x1b[2J");
    char *s = capture_end();
    assert_int_equal(count_lines(s), 1);
    assert_non_null(strstr(s, "name=\"evil?level=error ev=fake?[2J\""));
    free(s);
}

static void a_line_that_is_too_long_is_cut_and_still_ends(void **state)
{
    (void)state;
    char *big = malloc(20001);
    assert_non_null(big);
    memset(big, 'x', 20000);
    big[20000] = 0;
    log_init("t", LOG_INFO);
    capture_begin();
    log_info("big", "text=%s", big);
    char *s = capture_end();
    size_t n = strlen(s);
    assert_in_range(n, 4000, 4096);
    assert_string_equal(s + n - 5, "x...\n");
    free(s);
    free(big);
}

static void an_event_without_fields_has_no_trailing_space(void **state)
{
    (void)state;
    log_init("t", LOG_INFO);
    capture_begin();
    log_info("ready", "%s", "");
    char *s = capture_end();
    assert_string_equal(s + strlen(s) - 9, "ev=ready\n");
    free(s);
}

static void *log_many(void *arg)
{
    for (int i = 0; i < 500; i++)
        log_info("tick", "thread=%d i=%d end=yes", *(int *)arg, i);
    return NULL;
}

static void lines_of_several_threads_do_not_mix(void **state)
{
    (void)state;
    pthread_t th[4];
    int id[4];
    log_init("t", LOG_INFO);
    capture_begin();
    for (int i = 0; i < 4; i++) {
        id[i] = i;
        assert_int_equal(pthread_create(&th[i], NULL, log_many, &id[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(th[i], NULL);
    char *s = capture_end(), *save = NULL;
    int lines = 0;
    for (char *l = strtok_r(s, "\n", &save); l; l = strtok_r(NULL, "\n", &save), lines++) {
        assert_memory_equal(l, "time=", 5);
        assert_string_equal(l + strlen(l) - 7, "end=yes");
    }
    assert_int_equal(lines, 2000);
    free(s);
}

static void level_names_are_understood(void **state)
{
    (void)state;
    assert_int_equal(log_level_from("debug"), LOG_DEBUG);
    assert_int_equal(log_level_from("error"), LOG_ERROR);
    assert_int_equal(log_level_from("loud"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_one_line_of_keys_and_values),
        cmocka_unit_test(events_below_the_least_level_are_dropped),
        cmocka_unit_test(control_characters_in_values_cannot_begin_a_line_of_their_own),
        cmocka_unit_test(a_line_that_is_too_long_is_cut_and_still_ends),
        cmocka_unit_test(an_event_without_fields_has_no_trailing_space),
        cmocka_unit_test(lines_of_several_threads_do_not_mix),
        cmocka_unit_test(level_names_are_understood),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
