/* space_registry.c - the spaces from files that this process knows. Append-only, so that a pointer to a space is good for ever; a lock around
 * the list alone, for spaces themselves do not change. */
#include "common/fsio.h"
#include "common/space_file.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct space   *list[SPACE_FILES_MAX]; /* owned, for the life of the process */
static int             n_list;

static const struct space *find(const char *identity) /* with the lock */
{
    for (int i = 0; i < n_list; i++)
        if (strcmp(list[i]->name, identity) == 0)
            return list[i];
    return NULL;
}

const struct space *space_file_find(const char *identity)
{
    pthread_mutex_lock(&lock);
    const struct space *s = find(identity);
    pthread_mutex_unlock(&lock);
    return s;
}

int space_file_register(const char *yaml, size_t len, const char *file, const struct space **out, struct errbuf *e)
{
    struct space *fresh;
    int rc = space_file_parse(yaml, len, file, &fresh, e);
    *out = NULL;
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&lock);
    const struct space *known = find(fresh->name);
    if (known && strcmp(known->hash, fresh->hash) != 0)
        rc = err_set(e, ERR_INPUT, "%s: another space is called %s here, with the content %s", file, known->name, known->hash);
    else if (!known && n_list == SPACE_FILES_MAX)
        rc = err_set(e, ERR_BUSY, "%s: this process knows %d spaces from files already", file, SPACE_FILES_MAX);
    else if (!known)
        *out = list[n_list++] = fresh;
    else
        *out = known;
    pthread_mutex_unlock(&lock);
    if (*out != fresh)
        space_file_free(fresh);
    return rc;
}

int space_file_load(const char *path, const struct space **out, struct errbuf *e)
{
    char  *text = NULL;
    size_t len = 0;
    *out = NULL;
    int rc = fs_read_all(path, SPACE_FILE_MAX, &text, &len, e);
    if (rc == 0)
        rc = space_file_register(text, len, path, out, e);
    free(text);
    return rc;
}

bool space_is_path(const char *text)
{
    size_t n = strlen(text);
    return strchr(text, '/') || (n > 5 && strcmp(text + n - 5, ".yaml") == 0) || (n > 4 && strcmp(text + n - 4, ".yml") == 0);
}

bool space_means_hash(const char *text, const char *hash)
{
    const char *at = strrchr(text, '@'), *digits = at ? at + 1 : text;
    return strlen(digits) >= SPACE_FILE_ID_HASH && strncmp(digits, hash, strlen(digits)) == 0;
}
