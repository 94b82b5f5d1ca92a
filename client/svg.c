/* svg.c - a layered drawing. Every box has a level; a value that is read further down than on the next level passes each level between
 * at a place of its own (a lane), which all of its readers share. Then: order the places of each level by the mean
 * place of their neighbours, a few times up and down; give them coordinates likewise, keeping order and distance. */
#include "client/graph.h"
#include "client/print.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ITEMS   100000
#define BOX_H       42.0
#define LEVEL_H     74.0
#define GAP         22.0
#define LANE_W      12.0
#define SWEEPS      12

struct item {
    int    box;         /* -1: a lane */
    int    level, at;   /* its place on the level: 0 … */
    double x, w, wish;
};
struct link { int from, to; }; /* items of neighbouring levels */

struct layout {
    const struct graph *g;
    struct item *item;
    struct link *link;
    int  n_items, cap_items, n_links, cap_links, n_levels;
    int *order, *first; /* items by level and place; level l is order[first[l]] … order[first[l + 1] - 1] */
    bool nomem;
};

static int add_item(struct layout *l, int box, int level, double w)
{
    if (l->n_items == l->cap_items) {
        int cap = l->cap_items ? 2 * l->cap_items : 64;
        struct item *bigger = realloc(l->item, (size_t)cap * sizeof *bigger);
        if (!bigger || l->n_items >= MAX_ITEMS) {
            l->item = bigger ? bigger : l->item;
            l->nomem = true;
            return 0;
        }
        l->item = bigger;
        l->cap_items = cap;
    }
    l->item[l->n_items] = (struct item){ .box = box, .level = level, .w = w };
    return l->n_items++;
}

static void add_link(struct layout *l, int from, int to)
{
    if (l->n_links == l->cap_links) {
        int cap = l->cap_links ? 2 * l->cap_links : 64;
        struct link *bigger = realloc(l->link, (size_t)cap * sizeof *bigger);
        if (!bigger) {
            l->nomem = true;
            return;
        }
        l->link = bigger;
        l->cap_links = cap;
    }
    l->link[l->n_links++] = (struct link){ from, to };
}

static void detail_text(char *out, size_t cap, const struct box *x)
{
    char shape[40];
    short_str s;
    size_t n = (size_t)snprintf(out, cap, "%s", shape_text(shape, &x->shape));
    if (x->params)
        n += (size_t)snprintf(out + n, cap - n, ", %s parameters", fmt_count(s, (double)x->params));
    if (x->macs)
        snprintf(out + n, cap - n, ", %s MACs", fmt_count(s, (double)x->macs));
}

static double box_width(const struct box *x)
{
    char detail[160];
    detail_text(detail, sizeof detail, x);
    double label = 7.0 * print_columns(x->label), small = 5.8 * print_columns(detail);
    return (label > small ? label : small) + 22;
}

/* Items 0 … n - 1 are the boxes; lanes follow, those of one value one below the other. */
static void make_items(struct layout *l)
{
    const struct graph *g = l->g;
    for (int b = 0; b < g->n; b++)
        add_item(l, b, g->box[b].level, box_width(&g->box[b]));
    size_t n = g->n > 0 ? (size_t)g->n : 1;
    int *tail = calloc(n, sizeof *tail), *tail_level = calloc(n, sizeof *tail_level);
    if (!tail || !tail_level)
        l->nomem = true;
    for (int b = 0; b < g->n && !l->nomem; b++) { /* by level of the readers: a lane grows as far as the next needs it */
        tail[b] = b;
        tail_level[b] = g->box[b].level;
    }
    for (int level = 1; level < l->n_levels && !l->nomem; level++)
        for (int b = 0; b < g->n && !l->nomem; b++) {
            const struct box *x = &g->box[b];
            for (int k = 0; x->level == level && k < x->n_in && !l->nomem; k++) {
                int u = x->in[k];
                for (; tail_level[u] < level - 1 && !l->nomem; tail_level[u]++) {
                    int lane = add_item(l, -1, tail_level[u] + 1, LANE_W);
                    add_link(l, tail[u], lane);
                    tail[u] = lane;
                }
                add_link(l, tail[u], b);
            }
        }
    free(tail);
    free(tail_level);
}

static int make_levels(struct layout *l)
{
    l->order = calloc((size_t)l->n_items + 1, sizeof *l->order);
    l->first = calloc((size_t)l->n_levels + 2, sizeof *l->first);
    if (!l->order || !l->first)
        return -1;
    for (int i = 0; i < l->n_items; i++)
        l->first[l->item[i].level + 1]++;
    for (int v = 0; v < l->n_levels; v++)
        l->first[v + 1] += l->first[v];
    int *fill = calloc((size_t)l->n_levels + 1, sizeof *fill);
    if (!fill)
        return -1;
    for (int i = 0; i < l->n_items; i++) {
        struct item *t = &l->item[i];
        t->at = fill[t->level]++;
        l->order[l->first[t->level] + t->at] = i;
    }
    free(fill);
    return 0;
}

/* Each item's wish: the mean of its neighbours above (down) or below; where it has none, what it is. `place`: at, not x. */
static void wishes(struct layout *l, bool down, bool place)
{
    double *sum = calloc((size_t)l->n_items, sizeof *sum);
    int *n = calloc((size_t)l->n_items, sizeof *n);
    for (int k = 0; sum && n && k < l->n_links; k++) {
        int me = down ? l->link[k].to : l->link[k].from, other = down ? l->link[k].from : l->link[k].to;
        sum[me] += place ? l->item[other].at : l->item[other].x;
        n[me]++;
    }
    for (int i = 0; i < l->n_items; i++)
        l->item[i].wish = sum && n && n[i] ? sum[i] / n[i] : place ? l->item[i].at : l->item[i].x;
    free(sum);
    free(n);
}

static void order_level(struct layout *l, int level) /* insertion sort: stable, and levels are short */
{
    int a = l->first[level], b = l->first[level + 1];
    for (int i = a + 1; i < b; i++)
        for (int k = i; k > a && l->item[l->order[k - 1]].wish > l->item[l->order[k]].wish; k--) {
            int t = l->order[k];
            l->order[k] = l->order[k - 1];
            l->order[k - 1] = t;
        }
    for (int i = a; i < b; i++)
        l->item[l->order[i]].at = i - a;
}

static double distance(const struct layout *l, int left, int right)
{
    return (l->item[left].w + l->item[right].w) / 2 + GAP;
}

/* As near to the wishes as order and distance allow: the mean of the leftmost and the rightmost solution, which keeps both. */
static void place_level(struct layout *l, int level)
{
    int a = l->first[level], b = l->first[level + 1];
    for (int i = a; i < b; i++) {
        struct item *t = &l->item[l->order[i]];
        t->x = t->wish;
        if (i > a && t->x < l->item[l->order[i - 1]].x + distance(l, l->order[i - 1], l->order[i]))
            t->x = l->item[l->order[i - 1]].x + distance(l, l->order[i - 1], l->order[i]);
    }
    for (int i = b - 1; i >= a; i--) { /* wish becomes the leftmost solution */
        struct item *t = &l->item[l->order[i]];
        if (i + 1 < b && t->wish > l->item[l->order[i + 1]].wish - distance(l, l->order[i], l->order[i + 1]))
            t->wish = l->item[l->order[i + 1]].wish - distance(l, l->order[i], l->order[i + 1]);
    }
    for (int i = a; i < b; i++) {
        struct item *t = &l->item[l->order[i]];
        t->x = (t->x + t->wish) / 2;
    }
}

static void arrange(struct layout *l)
{
    for (int s = 0; s < SWEEPS; s++)
        for (int v = 0; v < l->n_levels; v++) {
            int level = s % 2 ? l->n_levels - 1 - v : v;
            wishes(l, s % 2 == 0, true);
            order_level(l, level);
        }
    for (int s = 0; s < SWEEPS; s++)
        for (int v = 0; v < l->n_levels; v++) {
            int level = s % 2 ? l->n_levels - 1 - v : v;
            wishes(l, s % 2 == 0, false);
            place_level(l, level);
        }
}

/* ---- drawing ---- */

static void put_text(FILE *f, const char *s)
{
    for (; *s; s++)
        if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '&')
            fputs("&amp;", f);
        else
            fputc(*s, f);
}

static void draw_links(const struct layout *l, FILE *f)
{
    fprintf(f, "<g fill=\"none\" stroke=\"#7a8699\" stroke-width=\"1.4\">\n");
    for (int k = 0; k < l->n_links; k++) {
        const struct item *a = &l->item[l->link[k].from], *b = &l->item[l->link[k].to];
        double y0 = a->level * LEVEL_H + BOX_H / 2, y1 = b->level * LEVEL_H - BOX_H / 2, mid = (y0 + y1) / 2;
        fprintf(f, "<path d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", a->x, y0, a->x, mid, b->x, mid, b->x, y1);
        if (b->box < 0)
            fprintf(f, "V%.1f\"/>\n", y1 + BOX_H);
        else
            fprintf(f, "\" marker-end=\"url(#arrow)\"/>\n");
    }
    fprintf(f, "</g>\n");
}

static void draw_boxes(const struct layout *l, FILE *f)
{
    char detail[160];
    for (int i = 0; i < l->n_items; i++) {
        const struct item *t = &l->item[i];
        if (t->box < 0)
            continue;
        const struct box *x = &l->g->box[t->box];
        detail_text(detail, sizeof detail, x);
        fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"6\" fill=\"%s\" stroke=\"#44546a\"/>\n", t->x - t->w / 2,
                t->level * LEVEL_H - BOX_H / 2, t->w, BOX_H, x->params ? "#e8f0fb" : "#f6f6f2");
        fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"13\">", t->x, t->level * LEVEL_H - 3);
        put_text(f, x->label);
        fprintf(f, "</text>\n<text x=\"%.1f\" y=\"%.1f\" font-size=\"10.5\" fill=\"#556\">%s</text>\n", t->x, t->level * LEVEL_H + 13, detail);
    }
}

static void draw(const struct layout *l, const char *title, FILE *f)
{
    double left = l->item[0].x, right = left; /* a graph has its input at least */
    for (int i = 0; i < l->n_items; i++) {
        const struct item *t = &l->item[i];
        left = t->x - t->w / 2 < left ? t->x - t->w / 2 : left;
        right = t->x + t->w / 2 > right ? t->x + t->w / 2 : right;
    }
    double head = 3.6 * print_columns(title), mid = (left + right) / 2;
    left = left < mid - head ? left : mid - head;
    right = right > mid + head ? right : mid + head;
    double w = right - left + 40, h = (l->n_levels - 1) * LEVEL_H + BOX_H + 64;
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"%.1f %.1f %.1f %.1f\""
            " font-family=\"sans-serif\" text-anchor=\"middle\">\n<title>", w, h, left - 20, -BOX_H / 2 - 44, w, h);
    put_text(f, title);
    fprintf(f, "</title>\n<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\""
            " orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#7a8699\"/></marker></defs>\n"
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"white\"/>\n<text x=\"%.1f\" y=\"%.1f\" font-size=\"12\">",
            left - 20, -BOX_H / 2 - 44, w, h, mid, -BOX_H / 2 - 22);
    put_text(f, title);
    fprintf(f, "</text>\n");
    draw_links(l, f);
    draw_boxes(l, f);
    fprintf(f, "</svg>\n");
}

int graph_svg(const struct graph *g, const char *title, FILE *f, struct errbuf *e)
{
    struct layout l = { .g = g };
    for (int b = 0; b < g->n; b++)
        l.n_levels = g->box[b].level + 1 > l.n_levels ? g->box[b].level + 1 : l.n_levels;
    make_items(&l);
    int rc = l.nomem || make_levels(&l) < 0 ? err_set(e, ERR_NOMEM, "no memory for a drawing of %d boxes", g->n) : 0;
    if (rc == 0) {
        arrange(&l);
        draw(&l, title, f);
    }
    free(l.item);
    free(l.link);
    free(l.order);
    free(l.first);
    return rc;
}
