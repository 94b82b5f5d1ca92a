/* space_draw.c - didact space sample, mutate, neighbours: architectures as text, one a line, for programs that search from outside. */
#include "common/space_draw.h"

#include "client/spaces.h"

static int print_draw(struct cli *c, const char *what)
{
    const struct space_draw *draw = space_draw_find(what);
    const struct space *s;
    int64_t n = 10, seed = 1;
    json_t *doc = NULL, *v;
    size_t i;
    int rc;
    if ((rc = cli_int(c, "number", 1, SPACE_DRAW_MAX, &n)) < 0 || (rc = cli_int(c, "seed", 0, INT64_MAX, &seed)) < 0)
        return rc;
    rc = space_named(c, c->arg[0], &s);
    if (rc == 0)
        rc = draw->list(s, draw->of_arch ? c->arg[1] : NULL, n, (uint64_t)seed, &doc, c->e);
    if (rc == 0 && c->json)
        print_json(stdout, doc);
    else if (rc == 0)
        json_array_foreach(json_object_get(doc, "archs"), i, v)
            printf("%s\n", doc_str(v, "arch"));
    json_decref(doc);
    return rc;
}

int verb_space_sample(struct cli *c)     { return print_draw(c, "sample"); }
int verb_space_mutate(struct cli *c)     { return print_draw(c, "mutate"); }
int verb_space_neighbours(struct cli *c) { return print_draw(c, "neighbours"); }
