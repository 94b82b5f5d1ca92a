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
 * Passing.  A buffer that only one run touches is written and read anew in every block. It has room for one block, which every block
 * uses in turn: what is in it never leaves the cache, and the arena is the smaller for it. place.c gives out places after
 * the runs are known, and lets whatever a run touches live as long as the run.
 *
 * Runs, and with them the arena, are the same on every machine; how many images a block has depends on the cache and the threads. */
#include "worker/engine/cpu/cut.h"
#include "worker/engine/plan.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_USES = N_BUFFERS * (OP_MAX_IN + 1) };
#define FEW_WEIGHTS (64u << 10) /* bytes: a convolution prepares its weights in every call; with more it takes the whole batch */
#define RUN_BYTES   (1u << 20)   /* of a block, when runs are made: half of a common second-level cache */
#define PASS_BYTES  (4u << 20)   /* and at most: several threads' blocks at once */

/* A buffer that a step reads or writes; image: bytes of one, 0 where it is not batched. */
struct use { int root, which; uint64_t image; };

static void tensor_uses(const struct eng_plan *p, int tensor, bool back, bool values, bool adjoints, struct use *u, int *n)
{
    const int root = p->tensor[tensor].root;
    const struct tensor *t = &p->tensor[root];
    const bool there[N_BUFFERS] = { values, values && t->has_dot, adjoints && t->needs_adj, adjoints && t->needs_adj && (p->need & ENG_TANGENT) };
    if (t->param || t->producer < 0)
        return;
    for (int i = 0; i < N_BUFFERS; i++)
        if (there[i])
            u[(*n)++] = (struct use){ root, plan_use(t, i, back), t->batched ? t->elems / (uint64_t)p->batch * eng_dtype_size(p->dtype) : 0 };
}

/* What one call of the step reads or writes beside parameters and the network's input. */
static int uses_of(const struct eng_plan *p, const struct step *s, bool back, struct use *u)
{
    const struct node *q = &p->node[s->node];
    const bool adjoints = back && !s->again, writes = s->part != OP_GATHER;
    int n = 0;
    for (int k = 0; k < q->n_in; k++)
        tensor_uses(p, q->in[k], back, !adjoints || plan_keeps_in(q), adjoints && writes, u, &n);
    tensor_uses(p, q->out, back, adjoints ? plan_keeps_out(q) : writes, adjoints, u, &n);
    return n;
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
    if (q->op != OP_CONV && q->op != OP_UPCONV)
        return true;
    return !((p->need & ENG_BLAS) && eng_blas_serves()) && p->tensor[q->in[1]].elems * eng_dtype_size(p->dtype) <= FEW_WEIGHTS;
}

struct run { struct use *use; int n, multiple; uint64_t image[2]; }; /* image: bytes of one in a plain pass, in a tangent pass */

/* Half of the second-level cache: what is left is for weights, scratch, and what comes in. */
static uint64_t block_bytes(void)
{
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return (uint64_t)(l2 < 512 << 10 ? 512 << 10 : l2 > 2 << 20 ? 2 << 20 : l2) / 2;
}

/* Images that make a block of at most so many bytes, where it can be. */
static int images_of(int multiple, uint64_t image, uint64_t bytes)
{
    int n = multiple;
    while (image && (uint64_t)n * 2 * image <= bytes)
        n *= 2;
    return n;
}

static bool used(const struct run *r, const struct use *u)
{
    for (int i = 0; i < r->n; i++)
        if (r->use[i].root == u->root && r->use[i].which == u->which)
            return true;
    return false;
}

/* May the step join the run? Not where its sums ask for blocks that leave the cache. */
static bool joins(const struct eng_plan *p, struct run *r, const struct step *s, bool back)
{
    struct use own[MOST_USES];
    struct run with = *r;
    const int n = uses_of(p, s, back, own);
    for (int i = 0; i < n; i++) {
        if (used(&with, &own[i]))
            continue;
        with.use[with.n++] = own[i];
        with.image[1] += own[i].image;
        with.image[0] += own[i].which == VAL || own[i].which == ADJ || own[i].which == N_BUFFERS + VAL ? own[i].image : 0;
    }
    if (multiple(p, s, back) > with.multiple)
        with.multiple = multiple(p, s, back);
    if (r->n && with.multiple > 1 && (uint64_t)with.multiple * with.image[0] > RUN_BYTES)
        return false;
    *r = with;
    return true;
}

static void find_runs(const struct eng_plan *p, struct step *s, int n, bool back, struct use *room)
{
    for (int i = 0; i < n; i += s[i].run) {
        struct run r = { .use = room, .multiple = 1 };
        int len = 0;
        while (i + len < n && len < STEP_MOST && goes_by_image(p, &s[i + len]) && (len == 0 || s[i + len].part != OP_APPLY) && joins(p, &r, &s[i + len], back))
            if (s[i + len++].part == OP_GATHER)
                break;
        const bool small = (uint64_t)p->batch * r.image[0] <= RUN_BYTES; /* is in the cache as it is */
        s[i].run = len > 1 && !small && !(p->need & ENG_WHOLE) ? len : 1;
        s[i].least = r.multiple;
        s[i].most = images_of(r.multiple, r.image[0], PASS_BYTES);
        for (int k = 0; k < 2; k++)
            s[i].images[k] = images_of(r.multiple, r.image[k], block_bytes());
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

/* Which run touches which buffer: 0 none, -1 more than one or one that does not go in blocks. */
static void find_owners(const struct eng_plan *p, const struct step *s, int n, bool back, int *owner, int *run)
{
    struct use u[MOST_USES];
    for (int i = 0; i < n; i += s[i].run) {
        const int me = s[i].run > 1 && s[i].most < p->batch ? ++*run : -1;
        for (int k = 0; k < s[i].run; k++)
            for (int m = uses_of(p, &s[i + k], back, u) - 1; m >= 0; m--) {
                int *o = &owner[u[m].root * N_USES + u[m].which];
                *o = *o == 0 || *o == me ? me : -1;
            }
    }
}

static void let_pass(struct eng_plan *p, const struct step *s, int n, const int *owner, int *run)
{
    for (int i = 0; i < n; i += s[i].run) {
        if (s[i].run == 1 || s[i].most >= p->batch)
            continue;
        ++*run;
        for (int t = 0; t < p->n_tensors * N_USES; t++)
            if (owner[t] == *run && p->tensor[t / N_USES].batched)
                p->tensor[t / N_USES].passing[t % N_USES] = s[i].most;
    }
}

static void find_passing(struct eng_plan *p, int *owner)
{
    const int out = p->tensor[p->output].root;
    int run = 0;
    for (int t = 0; t < p->n_tensors; t++)
        memset(p->tensor[t].passing, 0, sizeof p->tensor[t].passing);
    for (int i = 0; i < N_USES; i++)
        owner[out * N_USES + i] = -1; /* the loss reads and writes there, too */
    find_owners(p, p->forth, p->n_forth, false, owner, &run);
    find_owners(p, p->back, p->n_back, true, owner, &run);
    run = 0;
    let_pass(p, p->forth, p->n_forth, owner, &run);
    let_pass(p, p->back, p->n_back, owner, &run);
}

int plan_steps(struct eng_plan *p, struct errbuf *e)
{
    struct use *room = malloc(sizeof *room * MOST_USES * (STEP_MOST + 1));
    int *owner = calloc((size_t)p->n_tensors * N_USES, sizeof *owner);
    free(p->forth);
    free(p->back);
    p->n_forth = p->n_back = 0;
    p->forth = calloc(2 * (size_t)p->n_nodes, sizeof *p->forth);
    p->back = calloc(2 * (size_t)p->n_nodes + (size_t)p->n_redo, sizeof *p->back);
    if (!room || !owner || !p->forth || !p->back) {
        free(room);
        free(owner);
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
    find_passing(p, owner);
    free(room);
    free(owner);
    return 0;
}
