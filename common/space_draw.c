#include "common/space_draw.h"

#include <jansson.h>
#include <string.h>

static json_t *item(const struct space *s, const char *text)
{
    char hash[ARCH_HASH_LEN + 1];
    arch_hash(s->name, text, hash);
    return json_pack("{s:s,s:s}", "arch", text, "arch_hash", hash);
}

static int finish(const struct space *s, const char *of, int64_t seed, json_t *list, size_t n, json_t **out, struct errbuf *e)
{
    bool whole = json_array_size(list) == n;
    *out = whole ? json_pack("{s:s,s:s*,s:o*,s:O}", "space", s->name, "arch", of, "seed", seed >= 0 ? json_integer(seed) : NULL, "archs", list) : NULL;
    json_decref(list);
    return *out ? 0 : err_set(e, ERR_NOMEM, "architectures");
}

static int canon(const struct space *s, const char *arch, char *text, struct errbuf *e)
{
    int rc = s->canon(s, arch, text, e);
    return rc < 0 ? err_wrap(e, rc, "arch") : 0;
}

/* parent NULL: uniform draws. */
static int draws(const struct space *s, const char *parent, int64_t n, uint64_t seed, json_t **out, struct errbuf *e)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) {
        char text[ARCH_TEXT_MAX];
        struct rng r;
        rng_init(&r, seed, RNG_SAMPLE, (uint64_t)i);
        if (parent)
            s->mutate(s, &r, parent, text);
        else
            s->random(s, &r, text);
        json_array_append_new(list, item(s, text)); /* what did not fit is missed in finish */
    }
    return finish(s, parent, (int64_t)seed, list, (size_t)n, out, e);
}

static int sample(const struct space *s, const char *arch, int64_t n, uint64_t seed, json_t **out, struct errbuf *e)
{
    (void)arch;
    return draws(s, NULL, n, seed, out, e);
}

static int mutate(const struct space *s, const char *arch, int64_t n, uint64_t seed, json_t **out, struct errbuf *e)
{
    char text[ARCH_TEXT_MAX];
    int rc = canon(s, arch, text, e);
    return rc < 0 ? rc : draws(s, text, n, seed, out, e);
}

static int neighbours(const struct space *s, const char *arch, int64_t n, uint64_t seed, json_t **out, struct errbuf *e)
{
    char text[ARCH_TEXT_MAX];
    struct arch_list all = { 0 };
    json_t *list = NULL;
    (void)n;
    (void)seed;
    int rc = canon(s, arch, text, e);
    if (rc == 0)
        rc = s->neighbours(s, text, &all, e);
    if (rc == 0 && all.n > SPACE_DRAW_MAX)
        rc = err_set(e, ERR_INPUT, "it has %zu neighbours, more than %d", all.n, SPACE_DRAW_MAX);
    if (rc == 0) {
        list = json_array();
        for (size_t i = 0; i < all.n; i++)
            json_array_append_new(list, item(s, all.text[i])); /* what did not fit is missed in finish */
        rc = finish(s, text, -1, list, all.n, out, e);
    }
    arch_list_fini(&all);
    return rc;
}

const struct space_draw *space_draw_find(const char *name)
{
    static const struct space_draw table[] = { { "sample", false, sample }, { "mutate", true, mutate }, { "neighbours", true, neighbours } };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}
