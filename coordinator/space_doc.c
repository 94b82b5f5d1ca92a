/* space_doc.c - spaces/NAME/sample, mutate and neighbours: what an outside searcher needs to know of a space, without knowing its texts. */
#include "coordinator/docs_int.h"

#include "common/space_draw.h"

#include <string.h>

int doc_space(struct coord *c, const struct query *q, json_t **out, struct errbuf *e)
{
    const struct space_draw *draw = space_draw_find(q->part[2]);
    const struct space *space;
    name_str name = "";
    hash_str hash;
    if (!draw)
        return err_set(e, ERR_NOTFOUND, "there is no document spaces/NAME/%s", q->part[2]);
    if (strlen(q->part[1]) >= sizeof name)
        return err_set(e, ERR_INPUT, "a search space's name has at most %zu bytes", sizeof name - 1);
    memcpy(name, q->part[1], strlen(q->part[1]));
    int rc = spaces_resolve(c, name, hash, e);
    if (rc < 0)
        return rc;
    if (!(space = space_find(name)))
        return err_set(e, ERR_NOTFOUND, "there is no search space \"%s\"", name);
    if (draw->of_arch && !q->arch[0])
        return err_set(e, ERR_INPUT, "arch: of which architecture?");
    return draw->list(space, q->arch, q->n, q->seed, out, e);
}
