#include "tests/support/tmp.h"

#include "common/fsio.h"

#include <assert.h>
#include <dirent.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tmp_name {
    struct tmp_name *next;
    char             path[800];
};

int tmp_setup(void **state)
{
    struct tmp *t = calloc(1, sizeof *t);
    const char *base = getenv("TMPDIR");
    assert(t);
    snprintf(t->dir, sizeof t->dir, "%s/didact-test-XXXXXX", base && *base ? base : "/tmp");
    *state = t;
    return mkdtemp(t->dir) ? 0 : -1;
}

static int on_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st; (void)type; (void)ftw;
    return remove(path);
}

int tmp_teardown(void **state)
{
    struct tmp *t = *state;
    int rc = nftw(t->dir, on_entry, 16, FTW_DEPTH | FTW_PHYS);
    for (struct tmp_name *p = t->names, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    free(t);
    return rc;
}

const char *tmp_path(struct tmp *t, const char *fmt, ...)
{
    char name[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    struct tmp_name *p = calloc(1, sizeof *p);
    assert(p);
    p->next = t->names;
    t->names = p;
    snprintf(p->path, sizeof p->path, "%s/%s", t->dir, name);
    return p->path;
}

void tmp_write(const char *path, const void *p, size_t n)
{
    char dir[FS_PATH_MAX];
    fs_dir_of(path, dir);
    int rc = fs_mkdir_p(dir, NULL);
    assert(rc == 0);
    FILE *f = fopen(path, "wb");
    assert(f);
    size_t k = fwrite(p, 1, n, f);
    assert(k == n);
    fclose(f);
}

char *tmp_read(const char *path, size_t *n)
{
    char *out = NULL;
    int rc = fs_read_all(path, 1u << 30, &out, n, NULL);
    assert(rc == 0);
    return out;
}

int tmp_count(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert(d);
    for (struct dirent *it; (it = readdir(d));)
        n += strcmp(it->d_name, ".") != 0 && strcmp(it->d_name, "..") != 0;
    closedir(d);
    return n;
}
