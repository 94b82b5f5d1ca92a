#include "common/blob.h"

#include "common/fsio.h"
#include "tests/support/tmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* BLAKE2b-256 as coreutils' `b2sum -l 256` prints it */
#define EMPTY "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
#define ABC   "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"

static struct blob_dir open_dir(struct tmp *t)
{
    struct blob_dir d;
    assert_int_equal(blob_dir_open(&d, tmp_path(t, "blobs"), NULL), 0);
    return d;
}

static void the_hash_is_blake2b_256_in_lower_case_hex(void **state)
{
    hash_str h;
    hash_bytes("", 0, h);
    assert_string_equal(h, EMPTY);
    hash_bytes("abc", 3, h);
    assert_string_equal(h, ABC);
    tmp_write(tmp_path(*state, "f"), "abc", 3);
    assert_int_equal(hash_file(tmp_path(*state, "f"), h, NULL), 0);
    assert_string_equal(h, ABC);
    assert_int_equal(hash_file(tmp_path(*state, "gone"), h, NULL), -ERR_NOTFOUND);
}

static void a_large_file_hashes_like_its_bytes(void **state)
{
    size_t n = 1000003;
    char *p = malloc(n);
    hash_str a, b;
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(i * i);
    tmp_write(tmp_path(*state, "f"), p, n);
    hash_bytes(p, n, a);
    assert_int_equal(hash_file(tmp_path(*state, "f"), b, NULL), 0);
    assert_string_equal(a, b);
    free(p);
}

static void opening_makes_the_folder_and_what_is_put_can_be_read_back(void **state)
{
    struct blob_dir d = open_dir(*state);
    hash_str h;
    char buf[8];
    size_t got;
    uint64_t total, size;
    assert_int_equal(blob_put_bytes(&d, "abc", 3, h, NULL), 0);
    assert_string_equal(h, ABC);
    assert_true(blob_exists(&d, h, &size));
    assert_int_equal(size, 3);
    assert_int_equal(blob_read(&d, h, 0, buf, sizeof buf, &got, &total, NULL), 0);
    assert_int_equal(got, 3);
    assert_int_equal(total, 3);
    assert_memory_equal(buf, "abc", 3);
    assert_int_equal(blob_verify(&d, h, NULL), 0);
    assert_int_equal(tmp_count(d.path), 1);
}

static void putting_the_same_content_twice_keeps_one_blob(void **state)
{
    struct blob_dir d = open_dir(*state);
    hash_str a, b;
    tmp_write(tmp_path(*state, "f"), "abc", 3);
    assert_int_equal(blob_put_bytes(&d, "abc", 3, a, NULL), 0);
    assert_int_equal(blob_put_file(&d, tmp_path(*state, "f"), b, NULL), 0);
    assert_string_equal(a, b);
    assert_int_equal(tmp_count(d.path), 1);
}

static void reading_in_chunks_gives_the_whole_and_ends_at_the_end(void **state)
{
    struct blob_dir d = open_dir(*state);
    hash_str h;
    char all[10] = "", buf[4];
    size_t got = 0;
    uint64_t total = 0, off = 0;
    assert_int_equal(blob_put_bytes(&d, "0123456789", 10, h, NULL), 0);
    for (; off < 10; off += got) {
        assert_int_equal(blob_read(&d, h, off, buf, sizeof buf, &got, &total, NULL), 0);
        assert_int_equal(got, off == 8 ? 2 : 4);
        memcpy(all + off, buf, got);
    }
    assert_memory_equal(all, "0123456789", 10);
    assert_int_equal(blob_read(&d, h, 10, buf, sizeof buf, &got, &total, NULL), 0);
    assert_int_equal(got, 0);
    assert_int_equal(blob_read(&d, h, 11, buf, sizeof buf, &got, &total, NULL), -ERR_INPUT);
}

static void a_missing_blob_is_not_found_and_named(void **state)
{
    struct blob_dir d = open_dir(*state);
    struct errbuf e;
    char buf[1];
    size_t got;
    uint64_t total;
    assert_false(blob_exists(&d, ABC, NULL));
    assert_int_equal(blob_read(&d, ABC, 0, buf, 1, &got, &total, &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, ABC));
    assert_int_equal(blob_verify(&d, ABC, &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, ABC));
}

static void a_name_that_is_no_hash_cannot_reach_another_file(void **state)
{
    struct blob_dir d = open_dir(*state);
    static const char *const names[] = { "", "..", "../secret", "abc", ABC "0", ABC "/", "BDDD813C634239723171EF3FEE98579B94964E3BB1CB3E427262C8C068D52319",
                                         "/etc/passwd", "zddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319" };
    char buf[1];
    size_t got;
    uint64_t total;
    tmp_write(tmp_path(*state, "secret"), "s", 1);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_false(blob_valid_hash(names[i]));
        assert_false(blob_exists(&d, names[i], NULL));
        assert_int_equal(blob_read(&d, names[i], 0, buf, 1, &got, &total, NULL), -ERR_INPUT);
        assert_int_equal(blob_verify(&d, names[i], NULL), -ERR_INPUT);
    }
    assert_true(blob_valid_hash(ABC));
}

static void a_corrupt_blob_is_named_set_aside_and_can_be_put_again(void **state)
{
    struct blob_dir d = open_dir(*state);
    struct errbuf e;
    hash_str h;
    char path[FS_PATH_MAX];
    assert_int_equal(blob_put_bytes(&d, "abc", 3, h, NULL), 0);
    blob_path(&d, h, path, sizeof path);
    tmp_write(path, "abd", 3);
    assert_int_equal(blob_verify(&d, h, &e), -ERR_CORRUPT);
    assert_non_null(strstr(e.text, h));
    assert_false(blob_exists(&d, h, NULL));
    strcat(path, ".corrupt");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(blob_put_bytes(&d, "abc", 3, h, NULL), 0);
    assert_int_equal(blob_verify(&d, h, NULL), 0);
}

static void chunks_make_a_blob_only_when_the_hash_is_as_expected(void **state)
{
    struct blob_dir d = open_dir(*state);
    struct blob_writer *w;
    struct errbuf e;
    hash_str h = "untouched";
    assert_int_equal(blob_writer_open(&d, &w, NULL), 0);
    assert_int_equal(blob_writer_add(w, "a", 1, NULL), 0);
    assert_int_equal(blob_writer_add(w, "bd", 2, NULL), 0);
    assert_int_equal(blob_writer_commit(w, ABC, h, &e), -ERR_CORRUPT);
    assert_non_null(strstr(e.text, ABC));
    assert_string_equal(h, "untouched");
    assert_int_equal(tmp_count(d.path), 0);
    assert_int_equal(blob_writer_open(&d, &w, NULL), 0);
    assert_int_equal(blob_writer_add(w, "ab", 2, NULL), 0);
    assert_int_equal(blob_writer_add(w, "c", 1, NULL), 0);
    assert_int_equal(blob_writer_commit(w, ABC, h, &e), 0);
    assert_string_equal(h, ABC);
    assert_true(blob_exists(&d, ABC, NULL));
}

static void an_unfinished_blob_is_invisible_and_abort_removes_it(void **state)
{
    struct blob_dir d = open_dir(*state);
    struct blob_writer *w;
    assert_int_equal(blob_writer_open(&d, &w, NULL), 0);
    assert_int_equal(blob_writer_add(w, "abc", 3, NULL), 0);
    assert_false(blob_exists(&d, ABC, NULL));
    blob_writer_abort(w);
    assert_int_equal(tmp_count(d.path), 0);
    blob_writer_abort(NULL);
}

static void opening_again_removes_stale_temporaries_but_not_those_in_use(void **state)
{
    struct blob_dir d = open_dir(*state), again;
    struct blob_writer *w;
    hash_str h;
    assert_int_equal(blob_writer_open(&d, &w, NULL), 0);
    assert_int_equal(blob_writer_add(w, "abc", 3, NULL), 0);
    tmp_write(tmp_path(*state, "blobs/.tmp-999999999-0"), "left by a crash", 15);
    assert_int_equal(tmp_count(d.path), 2);
    assert_int_equal(blob_dir_open(&again, d.path, NULL), 0);
    assert_int_equal(tmp_count(d.path), 1);
    assert_int_equal(blob_writer_commit(w, "", h, NULL), 0);
    assert_true(blob_exists(&d, ABC, NULL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_hash_is_blake2b_256_in_lower_case_hex),
        T(a_large_file_hashes_like_its_bytes),
        T(opening_makes_the_folder_and_what_is_put_can_be_read_back),
        T(putting_the_same_content_twice_keeps_one_blob),
        T(reading_in_chunks_gives_the_whole_and_ends_at_the_end),
        T(a_missing_blob_is_not_found_and_named),
        T(a_name_that_is_no_hash_cannot_reach_another_file),
        T(a_corrupt_blob_is_named_set_aside_and_can_be_put_again),
        T(chunks_make_a_blob_only_when_the_hash_is_as_expected),
        T(an_unfinished_blob_is_invisible_and_abort_removes_it),
        T(opening_again_removes_stale_temporaries_but_not_those_in_use),
    };
    return cmocka_run_group_tests_name("blob", tests, NULL, NULL);
}
