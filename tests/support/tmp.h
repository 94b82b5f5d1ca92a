/* tmp.h - a folder of a test's own under $TMPDIR, and small files in it. Everything here asserts instead of failing. */
#ifndef DIDACT_TESTS_TMP_H
#define DIDACT_TESTS_TMP_H

#include <stddef.h>
#include <stdint.h>

struct tmp {
    char             dir[256];
    struct tmp_name *names; /* owned: what tmp_path gave */
};

int  tmp_setup(void **state);      /* cmocka fixtures: *state is a struct tmp */
int  tmp_teardown(void **state);   /* removes the folder and all in it */

/* "DIR/NAME", valid until the teardown. */
const char *tmp_path(struct tmp *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void  tmp_write(const char *path, const void *p, size_t n); /* makes the folders above it */
char *tmp_read(const char *path, size_t *n);                /* malloc'ed */
int   tmp_count(const char *dir);                           /* entries, hidden ones too */

#endif
