#include "common/fsio.h"

#include "tests/support/tmp.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The program's write(2) and fsync(2) are these: the n-th call fails with `fail_errno`. */
static int fail_at = -1, fail_errno, calls;

static int due(void)
{
    if (fail_at < 0 || calls++ != fail_at)
        return 0;
    errno = fail_errno;
    return 1;
}

ssize_t write(int fd, const void *p, size_t n) { return due() ? -1 : syscall(SYS_write, fd, p, n); }
int     fsync(int fd)                          { return due() ? -1 : (int)syscall(SYS_fsync, fd); }

static void an_atomic_write_replaces_the_whole_content_and_leaves_no_temporary(void **state)
{
    struct tmp *t = *state;
    const char *path = tmp_path(t, "a");
    size_t n;
    assert_int_equal(fs_write_atomic(path, "a longer text", 13, NULL), 0);
    assert_int_equal(fs_write_atomic(path, "short", 5, NULL), 0);
    char *s = tmp_read(path, &n);
    assert_int_equal(n, 5);
    assert_string_equal(s, "short");
    free(s);
    assert_int_equal(tmp_count(t->dir), 1);
}

static void a_pipe_in_the_way_is_left_as_it_is(void **state)
{
    struct tmp *t = *state;
    struct stat st;
    struct errbuf e = { 0 };
    char path[512];
    snprintf(path, sizeof path, "%s", tmp_path(t, "pipe"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(fs_write_atomic(path, "text", 4, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, path));
    assert_true(stat(path, &st) == 0 && S_ISFIFO(st.st_mode));
}

static void a_full_disk_is_named_by_its_folder_and_the_old_content_stays(void **state)
{
    struct tmp *t = *state;
    const char *path = tmp_path(t, "a");
    char want[400];
    snprintf(want, sizeof want, "%s: no space left on device", t->dir);
    assert_int_equal(fs_write_atomic(path, "old", 3, NULL), 0);
    for (int at = 0; at < 2; at++) { /* the write, the fsync */
        struct errbuf e = { 0 };
        fail_at = at;
        fail_errno = ENOSPC;
        calls = 0;
        int rc = fs_write_atomic(path, "new", 3, &e);
        fail_at = -1;
        assert_int_equal(rc, -ERR_IO);
        assert_string_equal(e.text, want);
        char *s = tmp_read(path, NULL);
        assert_string_equal(s, "old");
        free(s);
        assert_int_equal(tmp_count(t->dir), 1);
    }
}

static void a_write_that_is_interrupted_goes_on(void **state)
{
    struct tmp *t = *state;
    fail_at = 0;
    fail_errno = EINTR;
    calls = 0;
    int rc = fs_write_atomic(tmp_path(t, "a"), "text", 4, NULL);
    fail_at = -1;
    assert_int_equal(rc, 0);
}

static void a_private_file_is_readable_by_its_owner_alone(void **state)
{
    struct tmp *t = *state;
    struct stat st;
    assert_int_equal(fs_write_private(tmp_path(t, "key"), "k", 1, NULL), 0);
    assert_int_equal(stat(tmp_path(t, "key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void writing_into_a_folder_that_is_not_there_names_it(void **state)
{
    struct tmp *t = *state;
    struct errbuf e;
    assert_int_equal(fs_write_atomic(tmp_path(t, "no/such"), "x", 1, &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, tmp_path(t, "no/such:"))); /* what was asked for, and no temporary */
}

static void folders_are_made_along_the_whole_path_and_again_without_complaint(void **state)
{
    struct tmp *t = *state;
    const char *deep = tmp_path(t, "a//b/c/");
    assert_int_equal(fs_mkdir_p(deep, NULL), 0);
    assert_true(fs_is_dir(deep));
    assert_int_equal(fs_mkdir_p(deep, NULL), 0);
}

static void a_file_in_the_way_of_a_folder_is_named(void **state)
{
    struct tmp *t = *state;
    struct errbuf e;
    tmp_write(tmp_path(t, "f"), "x", 1);
    assert_int_equal(fs_mkdir_p(tmp_path(t, "f/g"), &e), -ERR_IO);
    assert_non_null(strstr(e.text, tmp_path(t, "f")));
    assert_non_null(strstr(e.text, "Not a directory"));
}

static void reading_refuses_more_than_its_limit_and_names_a_missing_file(void **state)
{
    struct tmp *t = *state;
    struct errbuf e;
    char *s = NULL;
    size_t n;
    tmp_write(tmp_path(t, "f"), "12345", 5);
    assert_int_equal(fs_read_all(tmp_path(t, "f"), 4, &s, &n, &e), -ERR_INPUT);
    assert_null(s);
    assert_int_equal(fs_read_all(tmp_path(t, "f"), 5, &s, &n, &e), 0);
    assert_int_equal(n, 5);
    assert_string_equal(s, "12345");
    free(s);
    assert_int_equal(fs_read_all(tmp_path(t, "gone"), 5, &s, &n, &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "gone"));
}

static void reading_a_large_file_gives_every_byte(void **state)
{
    struct tmp *t = *state;
    size_t big = 3 * 16384 + 1, n;
    char *a = malloc(big), *b;
    assert_non_null(a);
    for (size_t i = 0; i < big; i++)
        a[i] = (char)(i * 31);
    tmp_write(tmp_path(t, "big"), a, big);
    assert_int_equal(fs_read_all(tmp_path(t, "big"), big, &b, &n, NULL), 0);
    assert_int_equal(n, big);
    assert_memory_equal(a, b, big);
    free(a);
    free(b);
}

static void a_sweep_removes_what_a_dead_process_left(void **state)
{
    struct tmp *t = *state;
    pid_t pid = fork();
    if (pid == 0) {
        struct fs_tmp f;
        _exit(fs_tmp_open(&f, t->dir, 0666, NULL) == 0 && fs_tmp_write(&f, "x", 1, NULL) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(tmp_count(t->dir), 1);
    assert_int_equal(fs_tmp_sweep(t->dir, NULL), 0);
    assert_int_equal(tmp_count(t->dir), 0);
}

static void a_sweep_leaves_the_temporaries_of_live_writers_and_foreign_files(void **state)
{
    struct tmp *t = *state;
    int ready[2], stop[2];
    char c = 0;
    struct fs_tmp mine;
    assert_int_equal(pipe(ready) | pipe(stop), 0);
    pid_t pid = fork();
    if (pid == 0) { /* another live process with a file in the making */
        struct fs_tmp f;
        close(stop[1]);
        c = fs_tmp_open(&f, t->dir, 0666, NULL) == 0;
        _exit(write(ready[1], &c, 1) != 1 || read(stop[0], &c, 1) < 0);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 1);
    assert_int_equal(fs_tmp_open(&mine, t->dir, 0666, NULL), 0);
    tmp_write(tmp_path(t, ".tmp-notes"), "x", 1);
    tmp_write(tmp_path(t, "data"), "x", 1);
    assert_int_equal(fs_tmp_sweep(t->dir, NULL), 0);
    assert_int_equal(tmp_count(t->dir), 4);
    close(stop[0]);
    close(stop[1]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(fs_tmp_sweep(t->dir, NULL), 0);
    assert_int_equal(tmp_count(t->dir), 3);
    assert_int_equal(fs_tmp_commit(&mine, tmp_path(t, "done"), NULL), 0);
    close(ready[0]);
    close(ready[1]);
}

static void a_name_left_by_a_dead_process_with_our_number_is_stepped_over(void **state)
{
    struct tmp *t = *state;
    struct fs_tmp a, b;
    long pid;
    unsigned k;
    assert_int_equal(fs_tmp_open(&a, t->dir, 0666, NULL), 0);
    assert_int_equal(sscanf(strrchr(a.path, '/'), "/.tmp-%ld-%u", &pid, &k), 2);
    assert_int_equal(pid, getpid());
    tmp_write(tmp_path(t, ".tmp-%ld-%u", pid, k + 1), "old", 3);
    assert_int_equal(fs_tmp_open(&b, t->dir, 0666, NULL), 0);
    assert_string_equal(b.path, tmp_path(t, ".tmp-%ld-%u", pid, k + 2));
    fs_tmp_abort(&a);
    fs_tmp_abort(&b);
    assert_int_equal(tmp_count(t->dir), 1);
}

static void the_folder_of_a_path_is_found(void **state)
{
    (void)state;
    char d[FS_PATH_MAX];
    fs_dir_of("a/b/c", d);
    assert_string_equal(d, "a/b");
    fs_dir_of("c", d);
    assert_string_equal(d, ".");
    fs_dir_of("/c", d);
    assert_string_equal(d, "/");
}

#define T(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_atomic_write_replaces_the_whole_content_and_leaves_no_temporary),
        T(a_pipe_in_the_way_is_left_as_it_is),
        T(a_full_disk_is_named_by_its_folder_and_the_old_content_stays),
        T(a_write_that_is_interrupted_goes_on),
        T(a_private_file_is_readable_by_its_owner_alone),
        T(writing_into_a_folder_that_is_not_there_names_it),
        T(folders_are_made_along_the_whole_path_and_again_without_complaint),
        T(a_file_in_the_way_of_a_folder_is_named),
        T(reading_refuses_more_than_its_limit_and_names_a_missing_file),
        T(reading_a_large_file_gives_every_byte),
        T(a_sweep_removes_what_a_dead_process_left),
        T(a_sweep_leaves_the_temporaries_of_live_writers_and_foreign_files),
        T(a_name_left_by_a_dead_process_with_our_number_is_stepped_over),
        T(the_folder_of_a_path_is_found),
    };
    return cmocka_run_group_tests_name("fsio", tests, NULL, NULL);
}
