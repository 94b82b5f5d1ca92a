/* place.c - when each buffer of a plan lives, what is computed a second time, and where everything lies.
 *
 * Time runs through a pass: node i's forward is at time i, the loss at n, node i's backward at 2n - i. Each buffer lives
 * from its first writing to its last reading on that line; buffers whose lives do not meet may share a place. Places are
 * given largest first, each the lowest that is free over its whole life: the arena's size is known before anything runs.
 *
 * Again.  A value that only the way back still reads may die after its last reading on the way forth and be made once more
 * just before its first reading on the way back, from its op's inputs, which then must be there. Worth it for cheap ops
 * alone (op_traits.again). To come below a wished size all of these are dropped at first; then one after the other, the
 * most expensive first, is kept after all where the size allows it.
 *
 * Runs.  Steps go in runs, block by block of images (blocks.c): every buffer that a run touches is alive for all of it. One that
 * no other run touches has room for one block. So places come after runs, and runs after what is computed again; the choice of the
 * latter goes by lives without runs, which need more, and is made anew where the arena then misses the wish.
 *
 * Keeping.  A plan that keeps is run twice a step: the plain pass at times 0 … 2n, the tangent pass a whole 2n + 1 later.
 * What the second would have to find again lies apart, in memory of its own for every step: values that a backward reads,
 * the adjoints that a tangent multiplies, what ops keep. */
#include "worker/engine/plan.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct life {
    uint64_t *place, bytes, image; /* image: bytes of one; 0: it has none */
    int from, to, number;          /* with the runs that touch it */
    int written, read;             /* first and last, op by op */
};

struct need {              /* of a root's value */
    int forth, back, last; /* last reading before the way back; first and last one there (back INT_MAX: none) */
};

struct placing {
    struct eng_plan *p;
    struct need *need;     /* [n_tensors] */
    struct life *life;     /* [n_tensors * (N_BUFFERS + 2) + n_nodes] */
    int         *candidate, n_candidates, n_lives;
    int64_t     *change;   /* [n_times + 1]: of the bytes alive, from one time to the next */
    int         *first, *end; /* [n_times]: of the runs at that time, when they begin and end */
    bool         keep, runs;  /* runs: lives as they are in runs */
};

static uint64_t aligned(uint64_t n) { return (n + 63) & ~(uint64_t)63; }
static uint64_t bytes_of(const struct eng_plan *p, const struct tensor *t) { return aligned(t->elems * eng_dtype_size(p->dtype)); }
static bool has_buffers(const struct eng_plan *p, int r) { return !p->tensor[r].param && p->tensor[r].root == r && p->tensor[r].producer >= 0; }

/* ---- lives ---- */

static void read_back(struct need *n, int t)
{
    if (t < n->back) n->back = t;
    if (t > n->last) n->last = t;
}

static bool goes_again(const struct placing *a, int r) { return a->p->tensor[r].redo && a->need[r].back < INT_MAX; }

static void find_needs(struct placing *a)
{
    const struct eng_plan *p = a->p;
    const int n = p->n_nodes;
    for (int r = 0; r < p->n_tensors; r++)
        a->need[r] = (struct need){ p->tensor[r].producer, INT_MAX, -1 };
    a->need[p->tensor[p->output].root].forth = n;
    for (int i = 0; i < n; i++) {
        const struct node *q = &p->node[i];
        const bool back = (p->need & ENG_GRAD) && p->tensor[q->out].needs_adj;
        for (int k = 0; k < q->n_in; k++) {
            struct need *x = &a->need[p->tensor[q->in[k]].root];
            if (i > x->forth) x->forth = i;
            if (back && plan_keeps_in(q)) read_back(x, 2 * n - i);
        }
        if (back && plan_keeps_out(q)) read_back(&a->need[p->tensor[q->out].root], 2 * n - i);
    }
    /* Tensors are numbered in the order in which they are made: whoever needs r again stands after r. */
    for (int r = p->n_tensors - 1; r >= 0; r--)
        if (has_buffers(p, r) && goes_again(a, r)) {
            const struct node *q = &p->node[p->tensor[r].producer];
            for (int k = 0; k < q->n_in; k++)
                read_back(&a->need[p->tensor[q->in[k]].root], a->need[r].back);
        }
}

static int first_adjoint(const struct eng_plan *p, int r)
{
    const int n = p->n_nodes;
    if (p->tensor[p->output].root == r)
        return n;
    for (int i = n - 1; i >= 0; i--)
        for (int k = 0; k < p->node[i].n_in; k++)
            if (p->tensor[p->node[i].in[k]].root == r)
                return 2 * n - i;
    return 2 * n - p->tensor[r].producer;
}

/* The node that is at work at a time of either pass. */
static int node_at(const struct eng_plan *p, int t)
{
    const int last = 2 * p->n_nodes, in = t % (last + 1);
    return in < p->n_nodes ? in : in > p->n_nodes ? last - in : -1;
}

/* early: written by whatever the run does first with the node at that time. Else a batch norm writes in the run that it begins. */
static void live(struct placing *a, uint64_t *place, uint64_t bytes, uint64_t image, int from, int to, bool early)
{
    const int written = from, read = to;
    if (a->runs) {
        const int node = node_at(a->p, from);
        if (early || node < 0 || !op_traits[a->p->node[node].op].gathers)
            from = a->first[from];
        to = a->end[to];
    }
    a->life[a->n_lives] = (struct life){ place, bytes, image, from, to, a->n_lives, written, read };
    a->n_lives++;
}

static uint64_t image_bytes(const struct eng_plan *p, const struct tensor *t)
{
    return t->batched ? t->elems / (uint64_t)p->batch * eng_dtype_size(p->dtype) : 0;
}

/* Room for all images, or for those of a block. */
static uint64_t room_of(const struct placing *a, const struct tensor *t, int use)
{
    return a->runs && t->passing[use] ? aligned((uint64_t)t->passing[use] * image_bytes(a->p, t)) : bytes_of(a->p, t);
}

static void keep(struct eng_plan *p, uint64_t *place, uint64_t bytes)
{
    *place = p->kept_bytes;
    p->kept_bytes += bytes;
}

static void tensor_lives(struct placing *a, int r)
{
    struct eng_plan *p = a->p;
    struct tensor *t = &p->tensor[r];
    const struct need *w = &a->need[r];
    const int n = p->n_nodes, adj = first_adjoint(p, r), made = t->producer, last = w->last > w->forth ? w->last : w->forth;
    const int later = a->keep ? 2 * n + 1 : 0; /* when the tangent pass begins */
    const bool output = p->tensor[p->output].root == r;
    const struct { bool wanted, kept; int from, to; } part[N_BUFFERS] = {
        [VAL] = { true, a->keep && (w->back < INT_MAX || output), made, goes_again(a, r) ? w->forth : last },
        [DOT] = { t->has_dot, false, later + made, later + (goes_again(a, r) ? w->forth : last) },
        [ADJ] = { t->needs_adj, a->keep && (op_traits[p->node[made].op].keeps_adj || output), adj, 2 * n - made },
        [ADJ_DOT] = { t->needs_adj && (p->need & ENG_TANGENT), false, later + adj, later + 2 * n - made },
    };
    for (int i = 0; i < N_BUFFERS; i++) {
        t->kept[i] = part[i].kept;
        if (part[i].kept)
            t->passing[i] = 0;
        if (part[i].wanted && part[i].kept)
            keep(p, &t->place[i], bytes_of(p, t));
        else if (part[i].wanted)
            live(a, &t->place[i], room_of(a, t, i), image_bytes(p, t), part[i].from, part[i].to, false);
        if (i <= DOT && part[i].wanted && goes_again(a, r))
            live(a, &t->again[i], room_of(a, t, N_BUFFERS + i), image_bytes(p, t), w->back, w->last, true);
    }
}

static void find_lives(struct placing *a)
{
    struct eng_plan *p = a->p;
    const int n = p->n_nodes;
    a->n_lives = 0;
    p->kept_bytes = 0;
    find_needs(a);
    for (int r = 0; r < p->n_tensors; r++)
        if (has_buffers(p, r))
            tensor_lives(a, r);
    for (int i = 0; i < n; i++) {
        struct node *q = &p->node[i];
        if (q->aux_bytes && a->keep)
            keep(p, &q->aux, q->aux_bytes);
        else if (q->aux_bytes)
            live(a, &q->aux, q->aux_bytes, 0, i, p->need & ENG_GRAD ? 2 * n - i : i, true);
    }
}

/* ---- places ---- */

/* Ties go by number, not by address: the same network takes the same room every time. */
static int by_size(const void *a, const void *b)
{
    const struct life *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->from != y->from ? x->from - y->from : x->number - y->number;
}

static int by_place(const void *a, const void *b)
{
    const struct life *x = *(struct life *const *)a, *y = *(struct life *const *)b;
    return *x->place < *y->place ? -1 : *x->place > *y->place;
}

/* May both begin at one place, though a run keeps both alive? Where the one is read for the last time before the other is written, and an
 * image takes the same bytes in both: block by block the bytes see readers and writers in the same order. */
static bool coincide(const struct life *a, const struct life *b)
{
    return a->image && a->image == b->image && a->bytes == b->bytes && (a->read < b->written || b->read < a->written);
}

static bool meet(const struct life *a, const struct life *b) { return a->from <= b->to && b->from <= a->to; }

/* Is [at, at + bytes) free of those that l meets, but for one that begins there and may? */
static bool fits(const struct life *l, uint64_t at, struct life *const *met, int m)
{
    for (int j = 0; j < m; j++)
        if (at < *met[j]->place + met[j]->bytes && *met[j]->place < at + l->bytes && !(at == *met[j]->place && coincide(l, met[j])))
            return false;
    return true;
}

/* Lowest gap among the placed lives that meet this one, or lower still a place that it may share with one of them. */
static int place_all(struct life *l, int n, uint64_t *total)
{
    struct life **met = malloc((size_t)(n ? n : 1) * sizeof *met);
    if (!met)
        return -ERR_NOMEM;
    qsort(l, (size_t)n, sizeof *l, by_size);
    *total = 0;
    for (int i = 0; i < n; i++) {
        int m = 0;
        for (int j = 0; j < i; j++)
            if (meet(&l[i], &l[j]))
                met[m++] = &l[j];
        qsort(met, (size_t)m, sizeof *met, by_place);
        uint64_t at = 0;
        for (int j = 0; j < m && at + l[i].bytes > *met[j]->place; j++)
            if (*met[j]->place + met[j]->bytes > at)
                at = *met[j]->place + met[j]->bytes;
        for (int j = 0; j < m && *met[j]->place < at; j++)
            if (coincide(&l[i], met[j]) && fits(&l[i], *met[j]->place, met, m))
                at = *met[j]->place;
        *l[i].place = at;
        if (at + l[i].bytes > *total)
            *total = at + l[i].bytes;
    }
    free(met);
    return 0;
}

/* ---- what is computed again ---- */

/* The most bytes alive at any time: no arena is smaller, and most are hardly larger. alive: [times], or NULL. */
static uint64_t most_alive(struct placing *a, int times, uint64_t *alive)
{
    int64_t now = 0, most = 0;
    find_lives(a);
    memset(a->change, 0, (size_t)(times + 1) * sizeof *a->change);
    for (int i = 0; i < a->n_lives; i++) {
        a->change[a->life[i].from] += (int64_t)a->life[i].bytes;
        a->change[a->life[i].to + 1] -= (int64_t)a->life[i].bytes;
    }
    for (int t = 0; t < times; t++) {
        now += a->change[t];
        if (now > most) most = now;
        if (alive) alive[t] = (uint64_t)now;
    }
    return (uint64_t)most;
}

/* Passes over an element that making it again costs. */
static int cost(const struct eng_plan *p, int r)
{
    const struct node *q = &p->node[p->tensor[r].producer];
    return q->op == OP_DWCONV ? q->at.k * q->at.k : op_traits[q->op].again;
}

static void find_candidates(struct placing *a)
{
    const struct eng_plan *p = a->p;
    find_needs(a);
    for (int r = 0; r < p->n_tensors; r++) {
        if (!has_buffers(p, r) || !p->tensor[r].batched || !op_traits[p->node[p->tensor[r].producer].op].again)
            continue;
        int i = a->n_candidates++; /* most expensive first; among equals the order of the network */
        for (; i > 0 && cost(p, a->candidate[i - 1]) < cost(p, r); i--)
            a->candidate[i] = a->candidate[i - 1];
        a->candidate[i] = r;
    }
}

static void drop_down_to(struct placing *a, uint64_t arena)
{
    struct tensor *t = a->p->tensor;
    for (int i = 0; i < a->n_candidates; i++)
        t[a->candidate[i]].redo = false;
    const uint64_t before = most_alive(a, a->p->n_times, NULL);
    if (before <= arena)
        return;
    for (int i = 0; i < a->n_candidates; i++)
        t[a->candidate[i]].redo = true;
    uint64_t now = most_alive(a, a->p->n_times, NULL);
    for (int i = 0; i < a->n_candidates; i++) {
        t[a->candidate[i]].redo = false;
        uint64_t then = most_alive(a, a->p->n_times, NULL);
        if (then <= arena || then <= now)
            now = then;
        else
            t[a->candidate[i]].redo = true;
    }
}

static int list_again(struct placing *a, struct errbuf *e)
{
    struct eng_plan *p = a->p;
    const int n = p->n_nodes;
    free(p->redo);
    p->n_redo = 0;
    p->redo = calloc((size_t)a->n_candidates + 1, sizeof *p->redo);
    if (!p->redo)
        return err_set(e, ERR_NOMEM, "no memory to plan %d ops", n);
    find_needs(a);
    for (int i = n - 1; i >= 0; i--)
        for (int r = 0; r < p->n_tensors; r++)
            if (has_buffers(p, r) && goes_again(a, r) && a->need[r].back == 2 * n - i)
                p->redo[p->n_redo++] = (struct redo){ i, p->tensor[r].producer };
    for (int r = 0; r < p->n_tensors; r++) {
        struct tensor *t = &p->tensor[r];
        t->redo = goes_again(a, r);
        t->stays = !t->redo && a->need[r].back < INT_MAX;
    }
    return 0;
}

static void settle_again(struct eng_plan *p)
{
    for (int r = 0; r < p->n_tensors; r++)
        for (int i = VAL; i <= DOT && !p->tensor[r].redo; i++)
            p->tensor[r].again[i] = p->tensor[r].place[i];
}

/* ---- runs ---- */

/* When step s works: what is computed again, together with the step that follows. */
static int time_of(const struct eng_plan *p, const struct step *s, bool back)
{
    while (s->again)
        s++;
    return back ? 2 * p->n_nodes - s->node : s->node;
}

static void find_times(struct placing *a, const struct step *s, int n, bool back)
{
    const int pass = 2 * a->p->n_nodes + 1;
    for (int i = 0; i < n; i += s[i].run) {
        const int from = time_of(a->p, &s[i], back), to = time_of(a->p, &s[i + s[i].run - 1], back);
        for (int at = 0; at < a->p->n_times; at += pass)
            for (int t = from; t <= to; t++) {
                if (a->first[at + t] > at + from) a->first[at + t] = at + from;
                if (a->end[at + t] < at + to) a->end[at + t] = at + to;
            }
    }
}

static int make_runs(struct placing *a, struct errbuf *e)
{
    int rc = list_again(a, e);
    if (rc == 0)
        rc = plan_steps(a->p, e);
    for (int t = 0; t < a->p->n_times; t++)
        a->first[t] = a->end[t] = t;
    if (rc == 0) {
        find_times(a, a->p->forth, a->p->n_forth, false);
        find_times(a, a->p->back, a->p->n_back, true);
    }
    return rc;
}

/* ---- the whole ---- */

static void op_sizes(struct eng_plan *p, const struct plan_wish *wish)
{
    size_t (*const *scratch)(const struct op_call *) = wish->scratch ? wish->scratch : p->k->scratch;
    for (int i = 0; i < p->n_nodes; i++) {
        struct node *q = &p->node[i];
        struct op_call c = plan_call(p, q);
        q->aux_bytes = p->k->aux[q->op] ? aligned(p->k->aux[q->op](&c)) : 0;
        uint64_t s = scratch[q->op] ? aligned(scratch[q->op](&c)) : 0;
        if (s > p->scratch_bytes)
            p->scratch_bytes = s;
    }
}

static int place_within(struct placing *a, uint64_t at_most, struct errbuf *e)
{
    enum { ROUNDS = 6 }; /* aim as much lower as the last arena was too large */
    struct eng_plan *p = a->p;
    uint64_t aim = UINT64_MAX;
    find_candidates(a);
    for (int i = 0; i < ROUNDS; i++) {
        if (aim < UINT64_MAX)
            drop_down_to(a, aim);
        int rc = make_runs(a, e);
        if (rc < 0)
            return rc;
        a->runs = true;
        most_alive(a, p->n_times, p->alive);
        if (place_all(a->life, a->n_lives, &p->scratch) < 0)
            return err_set(e, ERR_NOMEM, "no memory to plan %d ops", p->n_nodes);
        a->runs = false;
        p->bytes = p->scratch + p->scratch_bytes;
        const uint64_t over = p->bytes > at_most ? p->bytes - at_most : 0;
        if (!over)
            break;
        if (aim == UINT64_MAX)
            aim = most_alive(a, p->n_times, NULL);
        aim = aim > over ? aim - over : 0;
    }
    settle_again(p);
    return 0;
}

int plan_place(struct eng_plan *p, const struct plan_wish *wish, struct errbuf *e)
{
    const size_t tensors = (size_t)p->n_tensors;
    struct placing a = { .p = p, .keep = wish->keep };
    int rc;
    a.need = calloc(tensors, sizeof *a.need);
    a.life = calloc(tensors * (N_BUFFERS + 2) + (size_t)p->n_nodes, sizeof *a.life);
    a.candidate = calloc(tensors, sizeof *a.candidate);
    p->n_times = (wish->keep ? 2 : 1) * (2 * p->n_nodes + 1);
    a.change = calloc((size_t)p->n_times + 1, sizeof *a.change);
    a.first = calloc((size_t)p->n_times, sizeof *a.first);
    a.end = calloc((size_t)p->n_times, sizeof *a.end);
    p->alive = calloc((size_t)p->n_times, sizeof *p->alive);
    op_sizes(p, wish);
    if (!a.need || !a.life || !a.candidate || !a.change || !a.first || !a.end || !p->alive)
        rc = err_set(e, ERR_NOMEM, "no memory to plan %d ops", p->n_nodes);
    else
        rc = place_within(&a, wish->keep ? UINT64_MAX : wish->at_most, e);
    free(a.need);
    free(a.life);
    free(a.candidate);
    free(a.change);
    free(a.first);
    free(a.end);
    return rc;
}
