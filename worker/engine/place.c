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
 * Keeping.  A plan that keeps is run twice a step: the plain pass at times 0 … 2n, the tangent pass a whole 2n + 1 later.
 * What the second would have to find again lies apart, in memory of its own for every step: values that a backward reads,
 * the adjoints that a tangent multiplies, what ops keep. */
#include "worker/engine/plan.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct life { uint64_t *place, bytes; int from, to, number; };

struct need {              /* of a root's value */
    int forth, back, last; /* last reading before the way back; first and last one there (back INT_MAX: none) */
};

struct placing {
    struct eng_plan *p;
    struct need *need;     /* [n_tensors] */
    struct life *life;     /* [n_tensors * (N_BUFFERS + 2) + n_nodes] */
    int         *candidate, n_candidates, n_lives;
    int64_t     *change;   /* [n_times + 1]: of the bytes alive, from one time to the next */
    bool         keep;
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

static void live(struct placing *a, uint64_t *place, uint64_t bytes, int from, int to)
{
    a->life[a->n_lives] = (struct life){ place, bytes, from, to, a->n_lives };
    a->n_lives++;
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
    const uint64_t bytes = bytes_of(p, t);
    const struct { bool wanted, kept; int from, to; } part[N_BUFFERS] = {
        [VAL] = { true, a->keep && (w->back < INT_MAX || output), made, goes_again(a, r) ? w->forth : last },
        [DOT] = { t->has_dot, false, later + made, later + (goes_again(a, r) ? w->forth : last) },
        [ADJ] = { t->needs_adj, a->keep && (op_traits[p->node[made].op].keeps_adj || output), adj, 2 * n - made },
        [ADJ_DOT] = { t->needs_adj && (p->need & ENG_TANGENT), false, later + adj, later + 2 * n - made },
    };
    for (int i = 0; i < N_BUFFERS; i++) {
        t->kept[i] = part[i].kept;
        if (part[i].wanted && part[i].kept)
            keep(p, &t->place[i], bytes);
        else if (part[i].wanted)
            live(a, &t->place[i], bytes, part[i].from, part[i].to);
        if (i <= DOT && part[i].wanted && goes_again(a, r))
            live(a, &t->again[i], bytes, w->back, w->last);
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
            live(a, &q->aux, q->aux_bytes, i, p->need & ENG_GRAD ? 2 * n - i : i);
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

/* Lowest gap among the placed lives that meet this one. */
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
            if (l[j].from <= l[i].to && l[i].from <= l[j].to)
                met[m++] = &l[j];
        qsort(met, (size_t)m, sizeof *met, by_place);
        uint64_t at = 0;
        for (int j = 0; j < m && at + l[i].bytes > *met[j]->place; j++)
            if (*met[j]->place + met[j]->bytes > at)
                at = *met[j]->place + met[j]->bytes;
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
    p->redo = calloc((size_t)a->n_candidates + 1, sizeof *p->redo);
    if (!p->redo)
        return err_set(e, ERR_NOMEM, "no memory to plan %d ops", n);
    for (int i = n - 1; i >= 0; i--)
        for (int r = 0; r < p->n_tensors; r++)
            if (has_buffers(p, r) && goes_again(a, r) && a->need[r].back == 2 * n - i)
                p->redo[p->n_redo++] = (struct redo){ i, p->tensor[r].producer };
    for (int r = 0; r < p->n_tensors; r++) {
        struct tensor *t = &p->tensor[r];
        t->redo = goes_again(a, r);
        t->stays = !t->redo && a->need[r].back < INT_MAX;
        for (int i = VAL; i <= DOT && !t->redo; i++)
            t->again[i] = t->place[i];
    }
    return 0;
}

/* ---- the whole ---- */

static void op_sizes(struct eng_plan *p)
{
    for (int i = 0; i < p->n_nodes; i++) {
        struct node *q = &p->node[i];
        struct op_call c = plan_call(p, q);
        q->aux_bytes = p->k->aux[q->op] ? aligned(p->k->aux[q->op](&c)) : 0;
        uint64_t s = p->k->scratch[q->op] ? aligned(p->k->scratch[q->op](&c)) : 0;
        if (s > p->scratch_bytes)
            p->scratch_bytes = s;
    }
}

static int place_within(struct placing *a, uint64_t at_most, struct errbuf *e)
{
    enum { ROUNDS = 4 }; /* an arena has gaps: aim as much lower as the last one was too large */
    struct eng_plan *p = a->p;
    uint64_t aim = at_most > p->scratch_bytes ? at_most - p->scratch_bytes : 0;
    find_candidates(a);
    for (int i = 0; i < ROUNDS; i++) {
        if (at_most < UINT64_MAX)
            drop_down_to(a, aim);
        most_alive(a, p->n_times, p->alive);
        if (place_all(a->life, a->n_lives, &p->scratch) < 0)
            return err_set(e, ERR_NOMEM, "no memory to plan %d ops", p->n_nodes);
        p->bytes = p->scratch + p->scratch_bytes;
        const uint64_t over = p->bytes > at_most ? p->bytes - at_most : 0;
        if (!over)
            break;
        aim = aim > over ? aim - over : 0;
    }
    return list_again(a, e);
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
    p->alive = calloc((size_t)p->n_times, sizeof *p->alive);
    op_sizes(p);
    if (!a.need || !a.life || !a.candidate || !a.change || !p->alive)
        rc = err_set(e, ERR_NOMEM, "no memory to plan %d ops", p->n_nodes);
    else
        rc = place_within(&a, wish->keep ? UINT64_MAX : wish->at_most, e);
    free(a.need);
    free(a.life);
    free(a.candidate);
    free(a.change);
    return rc;
}
