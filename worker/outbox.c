#include "worker/outbox.h"

#include "common/blob.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUFFIX     ".result"
#define HEAD       "didact-result 1 "
#define HEAD_BYTES (sizeof HEAD - 1 + HASH_HEX_LEN + 1)
#define FILE_MAX   65536
#define PATH_CAP   (FS_PATH_MAX + 96) /* a folder and the longest name in it */

bool lease_same(struct lease_ref a, struct lease_ref b)
{
    return a.job == b.job && a.trial == b.trial && a.attempt == b.attempt;
}

static void path_of(const char *dir, struct lease_ref r, const char *suffix, char out[PATH_CAP])
{
    snprintf(out, PATH_CAP, "%s/%llu-%llu-%u%s", dir, (unsigned long long)r.job, (unsigned long long)r.trial, r.attempt,
             suffix);
}

int outbox_write(const char *dir, struct lease_ref ref, const struct trial_result *r, struct errbuf *e)
{
    struct wire_msg m = { .kind = WIRE_RESULT, .seq = 1, .result = { ref, (struct trial_result *)r } };
    uint8_t        *bytes = NULL;
    char           *file = NULL, path[PATH_CAP];
    hash_str        hash;
    size_t          n = 0;
    int             rc = wire_encode(&m, &bytes, &n, e);
    if (rc < 0)
        return rc;
    file = malloc(HEAD_BYTES + n);
    if (!file) {
        rc = err_set(e, ERR_NOMEM, "result");
        goto done;
    }
    hash_bytes(bytes, n, hash);
    memcpy(file, HEAD, sizeof HEAD - 1);
    memcpy(file + sizeof HEAD - 1, hash, HASH_HEX_LEN);
    file[HEAD_BYTES - 1] = '\n';
    memcpy(file + HEAD_BYTES, bytes, n);
    path_of(dir, ref, SUFFIX, path);
    rc = fs_write_atomic(path, file, HEAD_BYTES + n, e);
done:
    free(file);
    free(bytes);
    return rc;
}

static int read_one(const char *path, struct lease_ref *ref, struct trial_result *r, struct errbuf *e)
{
    struct wire_msg m;
    char           *file = NULL;
    hash_str        hash;
    size_t          n = 0;
    int             rc = fs_read_all(path, FILE_MAX, &file, &n, e);
    if (rc < 0)
        return rc;
    if (n < HEAD_BYTES || memcmp(file, HEAD, sizeof HEAD - 1) != 0)
        rc = err_set(e, ERR_CORRUPT, "not a result");
    if (rc == 0) {
        hash_bytes(file + HEAD_BYTES, n - HEAD_BYTES, hash);
        if (memcmp(file + sizeof HEAD - 1, hash, HASH_HEX_LEN) != 0)
            rc = err_set(e, ERR_CORRUPT, "the content does not match its hash");
    }
    if (rc == 0)
        rc = wire_decode(file + HEAD_BYTES, n - HEAD_BYTES, &m, e);
    if (rc == 0) {
        if (m.kind == WIRE_RESULT) {
            *ref = m.result.ref;
            *r = *m.result.r;
        } else {
            rc = err_set(e, ERR_CORRUPT, "not a result");
        }
        wire_msg_fini(&m);
    }
    free(file);
    return rc;
}

static int load_entry(struct outbox *o, const char *name, struct errbuf *e)
{
    struct errbuf       why = { 0 };
    struct lease_ref    ref;
    struct trial_result r;
    char                path[FS_PATH_MAX + 300], aside[FS_PATH_MAX + 320];
    snprintf(path, sizeof path, "%s/%s", o->dir, name);
    int rc = read_one(path, &ref, &r, &why);
    if (rc == -ERR_NOMEM || rc == -ERR_IO || rc == -ERR_DENIED) /* the file may be fine: do not touch it, do not start */
        return err_set(e, (enum err)-rc, "outbox: %s", why.text);
    if (rc < 0) {
        snprintf(aside, sizeof aside, "%s.corrupt", path);
        if (rename(path, aside) != 0)
            return fs_error(e, errno, "cannot rename", path);
        log_warn("result_corrupt", "file=\"%s\" why=\"%s\" next=\"kept as *.corrupt; the trial will run again\"", name, why.text);
        return 0;
    }
    return outbox_add(o, ref, &r, true) ? 0 : err_set(e, ERR_NOMEM, "outbox");
}

int outbox_open(struct outbox *o, const char *dir, struct errbuf *e)
{
    memset(o, 0, sizeof *o);
    if (snprintf(o->dir, sizeof o->dir, "%s", dir) >= (int)sizeof o->dir - 80)
        return err_set(e, ERR_INPUT, "%.60s...: the path is too long", dir);
    int rc = fs_mkdir_p(dir, e);
    if (rc == 0)
        rc = fs_tmp_sweep(dir, e);
    if (rc < 0)
        return rc;
    DIR *d = opendir(dir);
    if (!d)
        return fs_error(e, errno, "cannot list", dir);
    for (struct dirent *ent; rc == 0 && (ent = readdir(d));) {
        size_t n = strlen(ent->d_name), m = sizeof SUFFIX - 1;
        if (n > m && strcmp(ent->d_name + n - m, SUFFIX) == 0)
            rc = load_entry(o, ent->d_name, e);
    }
    closedir(d);
    if (rc < 0)
        outbox_close(o);
    return rc;
}

void outbox_close(struct outbox *o)
{
    for (int i = 0; i < o->n; i++)
        free(o->item[i]);
    free(o->item);
    o->item = NULL;
    o->n = o->cap = 0;
}

struct outbox_item *outbox_find(struct outbox *o, struct lease_ref ref)
{
    for (int i = 0; i < o->n; i++)
        if (lease_same(o->item[i]->ref, ref))
            return o->item[i];
    return NULL;
}

struct outbox_item *outbox_add(struct outbox *o, struct lease_ref ref, const struct trial_result *r, bool on_disk)
{
    struct outbox_item *it = outbox_find(o, ref);
    if (it)
        return it;
    if (o->n == o->cap) {
        int                  cap = o->cap ? 2 * o->cap : 16;
        struct outbox_item **p = realloc(o->item, (size_t)cap * sizeof(struct outbox_item *));
        if (!p)
            return NULL;
        o->item = p;
        o->cap = cap;
    }
    it = calloc(1, sizeof *it);
    if (!it)
        return NULL;
    it->ref = ref;
    it->r = *r;
    it->on_disk = on_disk;
    o->item[o->n++] = it;
    return it;
}

static void forget(struct outbox *o, struct outbox_item *it)
{
    int i = 0;
    while (o->item[i] != it)
        i++;
    memmove(&o->item[i], &o->item[i + 1], (size_t)(o->n - i - 1) * sizeof(struct outbox_item *));
    o->n--;
    free(it);
}

void outbox_remove(struct outbox *o, struct outbox_item *it)
{
    char path[PATH_CAP];
    path_of(o->dir, it->ref, SUFFIX, path);
    /* Not synced: should the file come back after a power loss, it is sent again and acknowledged as known. */
    if (it->on_disk && unlink(path) != 0)
        log_warn("outbox_unlink", "file=\"%s\" why=\"%m\"", path);
    forget(o, it);
}

void outbox_refuse(struct outbox *o, struct outbox_item *it)
{
    char path[PATH_CAP], aside[PATH_CAP];
    path_of(o->dir, it->ref, SUFFIX, path);
    path_of(o->dir, it->ref, ".refused", aside);
    if (it->on_disk && rename(path, aside) != 0)
        log_warn("outbox_rename", "file=\"%s\" why=\"%m\"", path);
    forget(o, it);
}
