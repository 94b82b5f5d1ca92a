/* The disk fails at call n, for n = 0, 1, 2, … until the operation passes untouched: what is on disk is then whole or absent,
 * the error is said, nothing temporary is left, and the same operation works once the disk does.
 *
 * write, pwrite, fsync, fdatasync and rename are defined here; the linker takes these before libc's, for our code and for
 * SQLite's alike. Each counts a call and fails with ENOSPC or EIO when its turn has come. */
#include "common/blob.h"
#include "common/fsio.h"
#include "common/safetensors.h"
#include "coordinator/store/store.h"
#include "tests/support/tmp.h"
#include "worker/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define CALLS_MAX 400

static _Atomic int countdown = -1; /* calls until one fails; negative: none does */
static _Atomic int hits;           /* calls that were made to fail */
static _Atomic int fault_errno = ENOSPC;
static _Atomic int sticky;         /* a full disk stays full: every later call fails too */

static bool fails(int fd)
{
    if (fd == 1 || fd == 2) /* cmocka and the log speak here */
        return false;
    int left = atomic_load(&countdown);
    if (left < 0)
        return false;
    if (left == 0) {
        atomic_fetch_add(&hits, 1);
        if (!atomic_load(&sticky))
            atomic_store(&countdown, -1);
        errno = atomic_load(&fault_errno);
        return true;
    }
    atomic_fetch_sub(&countdown, 1);
    return false;
}

ssize_t write(int fd, const void *p, size_t n) { return fails(fd) ? -1 : syscall(SYS_write, fd, p, n); }
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) { return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, p, n, at); }
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) { return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, p, n, at); }
int fsync(int fd) { return fails(fd) ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return fails(fd) ? -1 : (int)syscall(SYS_fdatasync, fd); }
int rename(const char *a, const char *b) { return fails(-1) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0); }

static void arm(int n, int error, bool stays)
{
    atomic_store(&hits, 0);
    atomic_store(&fault_errno, error);
    atomic_store(&sticky, stays);
    atomic_store(&countdown, n);
}

static void disarm(void) { atomic_store(&countdown, -1); }

/* An operation on a folder of its own, and what must hold after a failure and after a success. */
struct op {
    const char *name;
    int  (*run)(const char *dir, struct errbuf *e);
    void (*absent_or_whole)(const char *dir, bool must_be_whole);
};

static void check_op(struct tmp *t, const struct op *op, int error, bool stays)
{
    int n = 0;
    for (;; n++) {
        struct errbuf e = { 0 };
        const char *dir = tmp_path(t, "%s-%d-%d-%d", op->name, error, stays, n);
        assert_int_equal(fs_mkdir_p(dir, &e), 0);
        arm(n, error, stays);
        int rc = op->run(dir, &e);
        disarm();
        if (atomic_load(&hits) == 0) {
            assert_int_equal(rc, 0);
            op->absent_or_whole(dir, true);
            break;
        }
        if (rc < 0)
            assert_true(e.code == ERR_IO && e.text[0]);
        op->absent_or_whole(dir, rc == 0);
        memset(&e, 0, sizeof e);
        assert_int_equal(op->run(dir, &e), 0); /* the disk works again, and so do we */
        op->absent_or_whole(dir, true);
        assert_true(n < CALLS_MAX);
    }
    assert_true(n >= 3); /* a write, a sync and a rename at least: else the faults did not reach it */
}

static void check_all(void **state, const struct op *op)
{
    check_op(*state, op, ENOSPC, false);
    check_op(*state, op, ENOSPC, true);
    check_op(*state, op, EIO, false);
}

static const char content[] = "all of it, or none of it";

static int temporaries(const char *dir, int whole)
{
    return tmp_count(dir) - whole;
}

/* ---- a file ---- */
static const char *in(const char *dir, const char *name)
{
    static char path[FS_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static int run_file(const char *dir, struct errbuf *e) { return fs_write_atomic(in(dir, "file"), content, sizeof content, e); }

static void file_holds(const char *dir, bool must)
{
    bool there = access(in(dir, "file"), F_OK) == 0;
    assert_true(there || !must);
    if (there) {
        size_t n = 0;
        char *got = tmp_read(in(dir, "file"), &n);
        assert_int_equal(n, sizeof content);
        assert_memory_equal(got, content, n);
        free(got);
    }
    assert_int_equal(temporaries(dir, there), 0);
}

static void a_file_is_whole_or_absent(void **state)
{
    check_all(state, &(struct op){ "file", run_file, file_holds });
}

/* ---- a blob, in chunks ---- */
static int run_blob(const char *dir, struct errbuf *e)
{
    struct blob_dir d;
    struct blob_writer *w = NULL;
    hash_str want, got;
    hash_bytes(content, sizeof content, want);
    int rc = blob_dir_open(&d, dir, e);
    if (rc < 0 || (rc = blob_writer_open(&d, &w, e)) < 0)
        return rc;
    for (size_t at = 0; at < sizeof content && rc == 0; at += 8)
        rc = blob_writer_add(w, content + at, sizeof content - at < 8 ? sizeof content - at : 8, e);
    if (rc < 0) {
        blob_writer_abort(w);
        return rc;
    }
    return blob_writer_commit(w, want, got, e);
}

static void blob_holds(const char *dir, bool must)
{
    struct blob_dir d;
    struct errbuf e = { 0 };
    hash_str want;
    uint64_t size = 0;
    hash_bytes(content, sizeof content, want);
    assert_int_equal(blob_dir_open(&d, dir, &e), 0);
    bool there = blob_exists(&d, want, &size);
    assert_true(there || !must);
    if (there) {
        assert_int_equal(size, sizeof content);
        assert_int_equal(blob_verify(&d, want, &e), 0);
    }
    assert_int_equal(temporaries(dir, there), 0);
}

static void a_blob_is_whole_or_absent(void **state)
{
    check_all(state, &(struct op){ "blob", run_blob, blob_holds });
}

/* ---- tensors ---- */
static int run_tensors(const char *dir, struct errbuf *e)
{
    static const float v[3] = { 1, 2, 3 };
    struct st_tensor t = { .name = "t", .dtype = ST_F32, .ndim = 1, .dim = { 3 }, .count = 3, .bytes = sizeof v, .data = v };
    const char *meta[] = { "format", "test" };
    return st_write(in(dir, "t.safetensors"), &t, 1, meta, 1, e);
}

static void tensors_hold(const char *dir, bool must)
{
    struct st_file f;
    struct errbuf e = { 0 };
    bool there = access(in(dir, "t.safetensors"), F_OK) == 0;
    assert_true(there || !must);
    if (there) {
        assert_int_equal(st_open(&f, in(dir, "t.safetensors"), &e), 0);
        assert_true(((const float *)st_find(&f, "t")->data)[2] == 3.0f);
        st_close(&f);
    }
    assert_int_equal(temporaries(dir, there), 0);
}

static void a_tensor_file_is_whole_or_absent(void **state)
{
    check_all(state, &(struct op){ "tensors", run_tensors, tensors_hold });
}

/* ---- a result in the outbox ---- */
static const struct lease_ref ref = { 3, 7, 2 };

static int run_outbox(const char *dir, struct errbuf *e)
{
    struct trial_result r = { .state = TRIAL_SCORED, .score = 0.5, .n_inits = 1, .init_score = { 0.5 }, .lr_scale = 1, .params = 9,
                              .macs = 9, .seconds = 1 };
    return outbox_write(dir, ref, &r, e);
}

static void outbox_holds(const char *dir, bool must)
{
    struct outbox o;
    struct errbuf e = { 0 };
    assert_int_equal(outbox_open(&o, dir, &e), 0);
    struct outbox_item *it = outbox_find(&o, ref);
    assert_true(it || !must);
    if (it)
        assert_true(it->r.score == 0.5 && it->on_disk);
    assert_int_equal(temporaries(dir, it != NULL), 0); /* a torn result would stand there as *.corrupt */
    outbox_close(&o);
}

static void a_result_in_the_outbox_is_whole_or_absent(void **state)
{
    check_all(state, &(struct op){ "outbox", run_outbox, outbox_holds });
}

/* ---- the store: what was reported as saved is there after a restart, what was reported as failed is not ---- */
static void on_done(struct store_op *op) { *(int *)op->arg = op->rc; }

static int put_blob_name(struct store *s, const char *name)
{
    int rc = 1;
    struct store_op *op = store_op_new(OP_BLOB_NAME);
    assert_non_null(op);
    op->done = on_done;
    op->arg = &rc;
    snprintf(op->blob.kind, sizeof op->blob.kind, "dataset");
    snprintf(op->blob.name, sizeof op->blob.name, "%s", name);
    memset(op->blob.hash, 'a', HASH_HEX_LEN);
    op->blob.bytes = 1;
    op->blob.added_ms = 1;
    store_put(s, op);
    store_flush(s);
    assert_true(rc <= 0);
    return rc;
}

static bool has_blob_name(const char *path, const char *name)
{
    struct reader *r;
    struct blob_name b;
    struct errbuf e = { 0 };
    assert_int_equal(reader_open(&r, path, &e), 0);
    int found = reader_blob(r, "dataset", name, &b);
    reader_close(r);
    assert_true(found >= 0);
    return found == 1;
}

static void one_store_fault(struct tmp *t, int n, int error, bool stays, bool *over)
{
    const char *path = tmp_path(t, "s-%d-%d-%d.db", error, stays, n);
    struct store_cfg cfg = { 0 };
    struct errbuf e = { 0 };
    struct store *s = NULL;
    assert_int_equal(store_open(&s, path, &cfg, &e), 0);
    assert_int_equal(put_blob_name(s, "before"), 0);
    arm(n, error, stays);
    int rc = put_blob_name(s, "during");
    disarm();
    *over = atomic_load(&hits) == 0;
    assert_true(!*over || rc == 0);
    assert_int_equal(put_blob_name(s, "after"), 0); /* the same open store goes on */
    store_close(s);
    assert_int_equal(store_open(&s, path, &cfg, &e), 0);
    assert_true(has_blob_name(path, "before") && has_blob_name(path, "after"));
    assert_int_equal(has_blob_name(path, "during"), rc == 0);
    store_close(s);
}

static void the_store_keeps_what_it_acknowledged_and_nothing_else(void **state)
{
    static const struct { int error; bool stays; } how[] = { { ENOSPC, false }, { ENOSPC, true }, { EIO, false } };
    for (size_t k = 0; k < sizeof how / sizeof how[0]; k++) {
        int n = 0;
        bool over = false;
        for (; !over; n++) {
            assert_true(n < CALLS_MAX);
            one_store_fault(*state, n, how[k].error, how[k].stays, &over);
        }
        assert_true(n >= 3); /* the commit writes and syncs: the faults reach SQLite */
    }
}

static void a_store_that_cannot_be_made_is_refused_and_made_later(void **state)
{
    for (int n = 0;; n++) {
        const char *path = tmp_path(*state, "made-%d.db", n);
        struct store_cfg cfg = { 0 };
        struct errbuf e = { 0 };
        struct store *s = NULL;
        assert_true(n < CALLS_MAX);
        arm(n, ENOSPC, true);
        int rc = store_open(&s, path, &cfg, &e);
        disarm();
        bool untouched = atomic_load(&hits) == 0;
        if (rc == 0)
            store_close(s);
        else
            assert_true(e.text[0]);
        if (untouched) {
            assert_int_equal(rc, 0);
            assert_true(n >= 3);
            break;
        }
        memset(&e, 0, sizeof e);
        assert_int_equal(store_open(&s, path, &cfg, &e), 0);
        assert_int_equal(put_blob_name(s, "x"), 0);
        store_close(s);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_file_is_whole_or_absent), T(a_blob_is_whole_or_absent), T(a_tensor_file_is_whole_or_absent),
        T(a_result_in_the_outbox_is_whole_or_absent), T(the_store_keeps_what_it_acknowledged_and_nothing_else),
        T(a_store_that_cannot_be_made_is_refused_and_made_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
