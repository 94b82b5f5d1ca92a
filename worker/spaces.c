#include "worker/spaces.h"

#include "common/fsio.h"

#include <stdio.h>
#include <string.h>

int spaces_of_task(const struct task_env *env, const char *name, const char *hash, const struct space **out, struct errbuf *e)
{
    const char *path;
    if ((*out = space_find(name)) && (!*hash || ((*out)->hash && strcmp((*out)->hash, hash) == 0)))
        return 0;
    if (!*hash || !(path = env->blob_path(env->arg, hash)))
        return err_set(e, ERR_INPUT, "space %s: there is no such space", name);
    int rc = space_file_load(path, out, e);
    if (rc == 0 && strcmp((*out)->name, name) != 0)
        rc = err_set(e, ERR_CORRUPT, "space %s: the blob %.16s… is the space %s", name, hash, (*out)->name);
    return rc < 0 ? err_wrap(e, rc, "space %s", name) : 0;
}

int spaces_of_mix(const struct task_env *env, const struct teach_cfg *c, struct errbuf *e)
{
    const struct space *s;
    int rc = 0;
    for (int i = 0; i < c->n_mix && rc == 0; i++)
        rc = spaces_of_task(env, c->mix_space[i], c->mix_hash[i], &s, e);
    return rc;
}

int spaces_given(const char *text, const char *beside, const struct space **out, struct errbuf *e)
{
    char dir[FS_PATH_MAX], path[FS_PATH_MAX + 80];
    if ((*out = space_find(text)))
        return 0;
    if (!space_is_path(text))
        return err_set(e, ERR_INPUT, "space %s: there is no such space; one from a file is named by its path", text);
    if (beside)
        fs_dir_of(beside, dir);
    snprintf(path, sizeof path, "%s%s%s", beside && *text != '/' ? dir : "", beside && *text != '/' ? "/" : "", text);
    return space_file_load(path, out, e);
}
