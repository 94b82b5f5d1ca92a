/* space_doc.c - spaces/NAME/sample, mutate and neighbours: what an outside searcher needs to know of a space, without knowing its texts. */
#include "coordinator/docs_int.h"

#include "common/space_draw.h"

#include <string.h>

int doc_space(const struct query *q, json_t **out, struct errbuf *e)
{
    const struct space *space = space_find(q->part[1]);
    const struct space_draw *draw = space_draw_find(q->part[2]);
    if (!space)
        return err_set(e, ERR_NOTFOUND, "there is no search space \"%s\"", q->part[1]);
    if (!draw)
        return err_set(e, ERR_NOTFOUND, "there is no document spaces/NAME/%s", q->part[2]);
    if (draw->of_arch && !q->arch[0])
        return err_set(e, ERR_INPUT, "arch: of which architecture?");
    return draw->list(space, q->arch, q->n, q->seed, out, e);
}
