/* draw.c - a network in a terminal. Boxes stand one below the other in the order of evaluation; at the left runs a rail for every value
 * that is still to be read. A box takes over the leftmost rail that ends in it, or opens a new one; a row of turns before it
 * shows where its inputs come from:
 *
 *     ●    conv 3×3, 24 · bn · relu
 *     ├─╮
 *     │ ●  conv 3×3, 24 · bn · relu
 *     ├─╯
 *     ●    add
 */
#include "client/graph.h"
#include "client/verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RAILS 256

struct rails {
    int n, value[MAX_RAILS]; /* the box whose value it carries; -1: free */
};

static int rail_of(const struct rails *r, int box)
{
    for (int i = 0; i < r->n; i++)
        if (r->value[i] == box)
            return i;
    return -1;
}

static int free_rail(struct rails *r)
{
    int i = rail_of(r, -1);
    if (i < 0 && r->n < MAX_RAILS) {
        i = r->n++;
        r->value[i] = -1;
    }
    return i;
}

/* The character of a rail in a row of turns: what goes up, down, left and right from it. */
static const char *turn(bool up, bool down, bool left, bool right)
{
    static const char *const table[16] = { " ", "╶", "╴", "─", "╷", "╭", "╮", "┬", "╵", "╰", "╯", "┴", "│", "├", "┤", "┼" };
    return table[up << 3 | down << 2 | left << 1 | (int)right];
}

/* Inputs of a box, as rails: all lie between lo and hi, with its own. */
struct joint { bool joined[MAX_RAILS]; int lo, hi; };

static void row_of_turns(const struct rails *before, const struct rails *after, const struct joint *j, FILE *f)
{
    int n = before->n > after->n ? before->n : after->n;
    while (n > 1 && !(n <= before->n && before->value[n - 1] >= 0) && !(n <= after->n && after->value[n - 1] >= 0))
        n--; /* no blanks at the end */
    for (int i = 0; i < n; i++) {
        bool up = i < before->n && before->value[i] >= 0, down = i < after->n && after->value[i] >= 0;
        bool on = j->joined[i], within = i > j->lo && i < j->hi;
        bool passes = up && down && !on; /* crosses without touching */
        fputs(turn(up, down, !passes && (on ? i > j->lo : within), !passes && (on ? i < j->hi : within)), f);
        if (i + 1 < n)
            fputs(i >= j->lo && i < j->hi ? "─" : " ", f);
    }
    fputc('\n', f);
}

/* Moves the rails past box b; returns its rail, or -1 when there are too many. */
static int advance(struct rails *r, const struct graph *g, int b, struct joint *j)
{
    const struct box *x = &g->box[b];
    int own = -1, in[NET_MAX_IN];
    *j = (struct joint){ .lo = MAX_RAILS, .hi = -1 };
    for (int k = 0; k < x->n_in; k++)
        in[k] = rail_of(r, x->in[k]);
    for (int k = 0; k < x->n_in; k++)
        if (in[k] >= 0 && g->box[x->in[k]].last_use == b) {
            r->value[in[k]] = -1;
            own = own < 0 || in[k] < own ? in[k] : own;
        }
    if (own < 0)
        own = free_rail(r);
    if (own < 0)
        return -1;
    r->value[own] = b;
    for (int k = 0; k <= x->n_in; k++) {
        int at = k < x->n_in ? in[k] : own;
        if (at < 0)
            continue;
        j->joined[at] = true;
        j->lo = at < j->lo ? at : j->lo;
        j->hi = at > j->hi ? at : j->hi;
    }
    return own;
}

static void pad(FILE *f, const char *text, int width, bool right)
{
    int gap = width - print_columns(text);
    if (!right)
        fputs(text, f);
    fprintf(f, "%*s", gap > 0 ? gap : 0, "");
    if (right)
        fputs(text, f);
}

static void row_of_box(const struct rails *r, int own, int width, int label, const struct box *x, FILE *f)
{
    char shape[40];
    short_str s;
    for (int i = 0; i < r->n; i++)
        fprintf(f, "%s%s", i == own ? "●" : r->value[i] >= 0 ? "│" : " ", i + 1 < r->n ? " " : "");
    fprintf(f, "%*s", width - (2 * r->n - 1), "");
    pad(f, x->label, label, false);
    fputs("  ", f);
    pad(f, shape_text(shape, &x->shape), 12, true);
    if (x->params || x->macs)
        pad(f, x->params ? fmt_count(s, (double)x->params) : "", 9, true);
    if (x->macs)
        pad(f, fmt_count(s, (double)x->macs), 9, true);
    fputc('\n', f);
}

void graph_draw(const struct graph *g, FILE *f)
{
    struct rails r = { 0 }, before;
    struct joint j;
    int width = 1, label = 5;
    for (int b = 0; b < g->n; b++) { /* how wide the rails become */
        advance(&r, g, b, &j);
        width = 2 * r.n + 1 > width ? 2 * r.n + 1 : width;
        label = print_columns(g->box[b].label) > label ? print_columns(g->box[b].label) : label;
    }
    r = (struct rails){ 0 };
    fprintf(f, "%*s", width, "");
    pad(f, "LAYER", label, false);
    fputs("         SHAPE   PARAMS     MACS\n", f);
    for (int b = 0; b < g->n; b++) {
        before = r;
        int own = advance(&r, g, b, &j);
        if (b > 0 && j.hi > j.lo)
            row_of_turns(&before, &r, &j, f);
        row_of_box(&r, own, width, label, &g->box[b], f);
        while (r.n > 1 && r.value[r.n - 1] < 0)
            r.n--;
    }
}
