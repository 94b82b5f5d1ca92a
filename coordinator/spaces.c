/* spaces.c - search spaces of the users' own: blobs of kind `space`, YAML as imported. A job is stored with the identity and the content's
 * hash, so that a later import under the same name changes no job; whatever is about to run a job's space has it read into the registry
 * (common/space_file.h) first. The registry is asked from any thread; names are looked up on the loop's. */
#include "coordinator/coord.h"

#include "common/fsio.h"
#include "common/space_file.h"
#include "common/suggest.h"

#include <stdlib.h>
#include <string.h>

/* The text of a blob, whose content is what its name says. */
static int read_text(struct coord *c, const char *hash, char **text, size_t *len, struct errbuf *e)
{
    char path[4200];
    hash_str found;
    blobs_path(c, hash, path, sizeof path);
    int rc = fs_read_all(path, SPACE_FILE_MAX, text, len, e);
    if (rc < 0)
        return rc == -ERR_NOTFOUND ? err_set(e, ERR_NOTFOUND, "the space %.16s is not in the blobs folder", hash) : rc;
    hash_bytes(*text, *len, found);
    if (strcmp(found, hash) == 0)
        return 0;
    free(*text);
    return err_set(e, ERR_CORRUPT, "the blob %.16s… of a space has another content; import its file again", hash);
}

/* By content; file-backed and in libuv's pool too. */
static int load(struct coord *c, const char *hash, const struct space **out, struct errbuf *e)
{
    char  *text, name[40];
    size_t len;
    int rc = read_text(c, hash, &text, &len, e);
    if (rc < 0)
        return rc;
    snprintf(name, sizeof name, "space %.16s", hash);
    rc = space_file_register(text, len, name, out, e);
    free(text);
    return rc;
}

static int need(struct coord *c, const char *identity, const char *hash, struct errbuf *e)
{
    const struct space *s = space_find(identity);
    int rc = !*hash || (s && s->hash && strcmp(s->hash, hash) == 0) ? 0 : load(c, hash, &s, e);
    if (rc == 0 && *hash && strcmp(s->name, identity) != 0)
        rc = err_set(e, ERR_CORRUPT, "the content %.16s… is the space %s, not %s", hash, s->name, identity);
    return rc;
}

int spaces_of_job(void *arg, const struct job_spec *spec, struct errbuf *e)
{
    int rc = need(arg, spec->space, spec->space_hash, e);
    for (int i = 0; spec->kind == JOB_TEACH && i < spec->teach.n_mix && rc == 0; i++)
        rc = need(arg, spec->teach.mix_space[i], spec->teach.mix_hash[i], e);
    return rc;
}

/* ---- names ---- */

#define NAMES_SHOWN 20
struct names { const char *name[NAMES_SHOWN + 8]; name_str imported[NAMES_SHOWN]; int n, n_imported; };

static bool on_name(void *arg, const struct blob_name *b)
{
    struct names *l = arg;
    snprintf(l->imported[l->n_imported], sizeof(name_str), "%s", b->name);
    l->name[l->n++] = l->imported[l->n_imported++];
    return l->n_imported < NAMES_SHOWN;
}

static int unknown(struct coord *c, const char *name, struct errbuf *e)
{
    struct names l = { .n = 0 };
    char near[96], text[160] = "";
    if (space_is_path(name))
        return err_set(e, ERR_INPUT, "space: %s is a file on your side: didact submit takes it along, didact space import FILE imports it", name);
    for (int i = 0; space_at(i) && l.n < 8; i++)
        l.name[l.n++] = space_at(i)->name;
    reader_blobs(c->reader, "space", NAMES_SHOWN, on_name, &l);
    for (int i = 0; i < l.n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? ", " : "", l.name[i]);
    return err_set(e, ERR_NOTFOUND, "there is no search space \"%s\"%s; there are: %s", name, suggest_text(near, sizeof near, name, l.name, l.n), text);
}

/* Whose content? `given`: a hash that came with the name, "" for none. */
static int find_hash(struct coord *c, const char *name, const char *given, hash_str hash, struct errbuf *e)
{
    const char *at = strrchr(name, '@');
    const struct space *known = space_find(name);
    struct blob_name b;
    if (*given && space_means_hash(name, given)) {
        memcpy(hash, given, sizeof(hash_str));
        return 0;
    }
    if (known && known->hash) {
        memcpy(hash, known->hash, sizeof(hash_str));
        return 0;
    }
    int rc = reader_blob(c->reader, "space", at ? at + 1 : name, &b);
    if (rc == 1)
        memcpy(hash, b.hash, sizeof b.hash);
    return rc == 1 ? 0 : rc < 0 ? err_set(e, (enum err)-rc, "cannot look up the space %s", name) : unknown(c, name, e);
}

int spaces_resolve(struct coord *c, name_str space, hash_str hash, struct errbuf *e)
{
    const struct space *s = space_find(space);
    hash_str found = "";
    int rc = s && !s->hash ? 0 : find_hash(c, space, hash, found, e);
    memcpy(hash, found, sizeof found);
    if (rc < 0 || !*found)
        return rc;
    if (!blobs_has(c, found, NULL)) /* read once, and lost since */
        return err_set(e, ERR_NOTFOUND, "the space %.16s is not in the blobs folder", found);
    s = s && strcmp(s->hash, found) == 0 ? s : NULL;
    if (!s && (rc = load(c, found, &s, e)) < 0)
        return rc;
    if (strchr(space, '@') && strcmp(space, s->name) != 0)
        return err_set(e, ERR_NOTFOUND, "there is no search space \"%s\": that content is called %s", space, s->name);
    memset(space, 0, sizeof(name_str)); /* equal specs are equal bytes */
    snprintf(space, sizeof(name_str), "%s", s->name);
    return 0;
}

const struct space *spaces_find(struct coord *c, const char *identity)
{
    const struct space *s = space_find(identity);
    name_str name;
    hash_str hash = "";
    if (s || !strchr(identity, '@'))
        return s;
    snprintf(name, sizeof name, "%s", identity);
    return spaces_resolve(c, name, hash, NULL) == 0 ? space_find(name) : NULL;
}

int spaces_check(struct coord *c, const char *name, const char *hash, struct errbuf *e)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    struct space *s;
    char  *text;
    size_t len;
    if (space_find(name) || space_is_path(name) || name[strspn(name, letters)] || strchr("._-", *name))
        return err_set(e, ERR_INPUT, "\"%s\" cannot be the name of an imported space: letters, digits, '.', '_' and '-', a letter or digit first, and"
                       " neither a built-in space nor the name of a file", name);
    int rc = read_text(c, hash, &text, &len, e);
    if (rc < 0)
        return rc;
    rc = space_file_parse(text, len, name, &s, e);
    free(text);
    space_file_free(s);
    return rc;
}
