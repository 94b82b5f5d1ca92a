/* blocks.c - in which order a pass calls the rules: op by op over the whole batch, or a run of ops block by block of images.
 *
 * A tensor of the batch is larger than a core's cache, one image's part is not. So neighbouring ops whose rules go image by
 * image (op_traits.by_image) make a run: all of them for a few images, then all of them for the next few. What one op has
 * written the next one finds in the cache. A batch norm needs sums over all images: it gathers them as the last of a run and
 * applies them as the first of the next (op_part).
 *
 *     lrelu dwconv conv bn lrelu …    as   [lrelu dwconv conv bn-gather]  [bn-apply lrelu …]  …      [ ]: block by block
 *
 * The results have the same bits: sums over images go on from block to block in the same order (op_call.first), and are cut
 * at images that blocks respect (cpu/cut.h).
 *
 * Places were given out for op by op (place.c). Two buffers of a run that share bytes are no hindrance where they begin at one
 * place and an image takes the same bytes in both: block by block the bytes see the same writers and readers in the same order.
 * Any other overlap ends the run before it. */
#include "worker/engine/cpu/cut.h"
#include "worker/engine/plan.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_SPANS = 4 * (OP_MAX_IN + 1) + 1 };
#define FEW_WEIGHTS (64u << 10) /* bytes: a convolution prepares its weights in every call; with more it takes the whole batch */

struct span { uint64_t from, bytes, image; int buffer; bool kept; }; /* image: bytes of one; 0: not batched */

static void add_span(struct span *s, int *n, bool kept, uint64_t from, uint64_t bytes, uint64_t image, int buffer)
{
    if (from != NO_PLACE && bytes)
        s[(*n)++] = (struct span){ from, bytes, image, buffer, kept };
}

static void tensor_spans(const struct eng_plan *p, int tensor, bool back, bool values, struct span *s, int *n)
{
    const struct tensor *t = &p->tensor[p->tensor[tensor].root];
    const uint64_t bytes = t->elems * eng_dtype_size(p->dtype), image = t->batched ? bytes / (uint64_t)p->batch : 0;
    if (t->param || t->producer < 0)
        return;
    for (int i = 0; i < N_BUFFERS; i++)
        if (i <= DOT ? values : back)
            add_span(s, n, t->kept[i], back && i <= DOT ? t->again[i] : t->place[i], bytes, image, i);
}

/* What one call of the step reads or writes beside parameters and the network's input. */
static int spans_of(const struct eng_plan *p, const struct step *s, bool back, struct span *span)
{
    const struct node *q = &p->node[s->node];
    const bool adjoints = back && !s->again;
    int n = 0;
    for (int k = 0; k < q->n_in; k++)
        tensor_spans(p, q->in[k], back, !adjoints || plan_keeps_in(q), span, &n);
    tensor_spans(p, q->out, back, !adjoints || plan_keeps_out(q), span, &n);
    add_span(span, &n, p->kept_bytes > 0, q->aux, q->aux_bytes, 0, N_BUFFERS);
    return n;
}

static bool meet(const struct span *a, const struct span *b)
{
    return a->kept == b->kept && a->from < b->from + b->bytes && b->from < a->from + a->bytes;
}

/* What has no images (made weights, a norm's statistics) is as a whole read or written in every block: it may share with nobody. */
static bool same(const struct span *a, const struct span *b)
{
    return a->image > 0 && a->from == b->from && a->bytes == b->bytes && a->image == b->image;
}

/* Images that a block has to be a multiple of, for this step's sums over images and places. */
static int multiple(const struct eng_plan *p, const struct step *s, bool back)
{
    const struct net_shape y = p->tensor[p->node[s->node].out].s;
    return s->part == OP_GATHER || (back && p->node[s->node].op == OP_CONV) ? cut_images(y.h * y.w) : 1;
}

static bool goes_by_image(const struct eng_plan *p, const struct step *s)
{
    const struct node *q = &p->node[s->node];
    if (!op_traits[q->op].by_image)
        return false;
    if (q->op != OP_CONV)
        return true;
    return !((p->need & ENG_BLAS) && eng_blas_serves()) && p->tensor[q->in[1]].elems * eng_dtype_size(p->dtype) <= FEW_WEIGHTS;
}

struct run { struct span *span; int n, multiple; uint64_t image[2]; }; /* image: bytes of one in a plain pass, in a tangent pass */

/* Half of the second-level cache: what is left is for weights, scratch, and what comes in. */
static uint64_t block_bytes(void)
{
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return (uint64_t)(l2 < 512 << 10 ? 512 << 10 : l2 > 2 << 20 ? 2 << 20 : l2) / 2;
}

/* Images that make a block of about that size. */
static int images_of(int multiple, uint64_t image)
{
    int n = multiple;
    while (image && (uint64_t)n * 2 * image <= block_bytes())
        n *= 2;
    return n;
}

/* May the step join the run? Then its spans are added. Not where its sums ask for blocks that leave the cache. */
static bool joins(const struct eng_plan *p, struct run *r, const struct step *s, bool back)
{
    struct span *own = r->span + r->n;
    struct run   with = *r;
    const int n = spans_of(p, s, back, own);
    for (int i = 0; i < n; i++) {
        const struct span x = own[i];
        bool seen = false;
        for (int j = 0; j < with.n; j++) {
            if (j < r->n && meet(&x, &r->span[j]) && !same(&x, &r->span[j]))
                return false;
            seen |= meet(&x, &with.span[j]);
        }
        if (seen)
            continue;
        with.span[with.n++] = x;
        with.image[1] += x.image;
        with.image[0] += x.buffer == VAL || x.buffer == ADJ ? x.image : 0;
    }
    if (multiple(p, s, back) > with.multiple)
        with.multiple = multiple(p, s, back);
    if (r->n && with.multiple > 1 && (uint64_t)with.multiple * with.image[0] > block_bytes())
        return false;
    *r = with;
    return true;
}

static void find_runs(const struct eng_plan *p, struct step *s, int n, bool back, struct span *room)
{
    for (int i = 0; i < n; i += s[i].run) {
        struct run r = { .span = room, .multiple = 1 };
        int len = 0;
        while (i + len < n && len < STEP_MOST && goes_by_image(p, &s[i + len]) && (len == 0 || s[i + len].part != OP_APPLY) && joins(p, &r, &s[i + len], back))
            if (s[i + len++].part == OP_GATHER)
                break;
        s[i].run = len > 1 ? len : 1;
        s[i].least = r.multiple;
        for (int k = 0; k < 2; k++)
            s[i].images[k] = images_of(r.multiple, r.image[k]);
    }
}

/* A batch norm's step is two, but where its sums are known. */
static void add_step(const struct eng_plan *p, struct step *s, int *n, int node, bool again)
{
    if (op_traits[p->node[node].op].gathers && !again) {
        s[(*n)++] = (struct step){ .node = node, .part = OP_GATHER };
        s[(*n)++] = (struct step){ .node = node, .part = OP_APPLY };
    } else
        s[(*n)++] = (struct step){ .node = node, .again = again, .part = OP_WHOLE };
}

int plan_steps(struct eng_plan *p, struct errbuf *e)
{
    struct span *room = malloc(sizeof *room * MOST_SPANS * (STEP_MOST + 1));
    p->forth = calloc(2 * (size_t)p->n_nodes, sizeof *p->forth);
    p->back = calloc(2 * (size_t)p->n_nodes + (size_t)p->n_redo, sizeof *p->back);
    if (!room || !p->forth || !p->back) {
        free(room);
        return err_set(e, ERR_NOMEM, "no memory to plan %d ops", p->n_nodes);
    }
    for (int i = 0; i < p->n_nodes; i++)
        add_step(p, p->forth, &p->n_forth, i, false);
    for (int i = p->n_nodes - 1, r = 0; i >= 0; i--) {
        if (!p->tensor[p->node[i].out].needs_adj)
            continue;
        for (; r < p->n_redo && p->redo[r].before == i; r++)
            add_step(p, p->back, &p->n_back, p->redo[r].node, true);
        add_step(p, p->back, &p->n_back, i, false);
    }
    find_runs(p, p->forth, p->n_forth, false, room);
    find_runs(p, p->back, p->n_back, true, room);
    free(room);
    return 0;
}
