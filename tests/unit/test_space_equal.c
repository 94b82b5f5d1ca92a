/* Which cells of nasbench201 are one network. Three views of all 15,625 are compared: the canonical text; what the cells
 * compute, in numbers; and the numbering of the published tables (Structure.to_unique_str of NAS-Bench-201, whose classes are
 * the column isomorphic_id: compared with that column on 5,000 cells, the function below gives the same classes). */
#include "common/space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_CELLS 15625
enum { NONE, SKIP, CONV1, CONV3, AVG };
static const char *const op_name[] = { "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3" };

struct view { int canon, computed, published, conv1, conv3; }; /* classes, numbered; convolutions that are alive */
static struct view view[N_CELLS];

static void ops_of(int code, int op[4][4]) /* op[from][to] */
{
    for (int to = 1; to < 4; to++)
        for (int from = 0; from < to; from++, code /= 5)
            op[from][to] = code % 5;
}

static void text_of(int code, char *text)
{
    int o[4][4];
    ops_of(code, o);
    snprintf(text, ARCH_TEXT_MAX, "|%s~0|+|%s~0|%s~1|+|%s~0|%s~1|%s~2|", op_name[o[0][1]], op_name[o[0][2]], op_name[o[1][2]],
             op_name[o[0][3]], op_name[o[1][3]], op_name[o[2][3]]);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* NAS-Bench-201's own: '#' is zero, a skip is its source, and a node is the sorted list of its edges. */
static void published(int code, char *out)
{
    static char node[4][4096];
    int o[4][4];
    ops_of(code, o);
    strcpy(node[0], "0");
    for (int to = 1; to < 4; to++) {
        static char edge[3][4096];
        size_t n = 0;
        for (int from = 0; from < to; from++) {
            int op = o[from][to];
            if (op == NONE || strcmp(node[from], "#") == 0)
                strcpy(edge[from], "#");
            else if (op == SKIP)
                strcpy(edge[from], node[from]);
            else
                snprintf(edge[from], sizeof edge[from], "(%.4000s)@%s", node[from], op_name[op]);
        }
        qsort(edge, (size_t)to, sizeof edge[0], by_text);
        for (int from = 0; from < to; from++)
            n += (size_t)snprintf(node[to] + n, sizeof node[to] - n, "%s%.1300s", from ? "+" : "", edge[from]);
    }
    strcpy(out, node[3]);
}

/* The cell on one number. Convolutions are functions with a weight each, never linear, nor is the pooling: equal cells agree to
 * rounding, others do not. */
static double run(int o[4][4], const double *weight, const int *order)
{
    double v[4] = { 0.7, 0, 0, 0 };
    bool   live[4] = { true };
    int    conv = 0;
    for (int to = 1; to < 4; to++)
        for (int from = 0; from < to; from++) {
            int op = o[from][to];
            double w = op == CONV1 || op == CONV3 ? weight[order[conv++]] : 0;
            if (op == NONE || !live[from])
                continue;
            live[to] = true;
            v[to] += op == SKIP ? v[from] : op == AVG ? cos(1.3 * v[from]) : op == CONV1 ? sin(w * v[from] + 0.4) : exp(-w * v[from]);
        }
    return v[3];
}

/* The sum over all ways of giving out the weights: who has which is not part of what a cell is. Dead convolutions are cut before. */
static double computed(int o[4][4], int n)
{
    static const double weight[6] = { 0.31, 0.57, 0.83, 1.09, 1.37, 1.61 };
    int order[6] = { 0, 1, 2, 3, 4, 5 }, c[6] = { 0 };
    double sum = run(o, weight, order);
    for (int i = 1; i < n;) { /* Heap's permutations */
        if (c[i] >= i) {
            c[i++] = 0;
            continue;
        }
        int *a = &order[i % 2 ? c[i] : 0], t = *a;
        *a = order[i];
        order[i] = t;
        sum += run(o, weight, order);
        c[i]++;
        i = 1;
    }
    return sum;
}

/* Set to none what lies on no path, looking at one edge after another until nothing changes. */
static void cut(int o[4][4])
{
    for (int round = 0; round < 6; round++)
        for (int to = 1; to < 4; to++)
            for (int from = 0; from < to; from++) {
                bool in = from == 0, out = to == 3;
                for (int k = 0; k < 4; k++) {
                    in |= k < from && o[k][from] != NONE;
                    out |= k > to && o[to][k] != NONE;
                }
                if (!in || !out)
                    o[from][to] = NONE;
            }
}

static char   (*key)[ARCH_TEXT_MAX];
static double value[N_CELLS];

static int by_key(const void *a, const void *b)
{
    return strcmp(key[*(const int *)a], key[*(const int *)b]);
}

static int by_value(const void *a, const void *b)
{
    double x = value[*(const int *)a], y = value[*(const int *)b];
    return (x > y) - (x < y);
}

/* Number the classes into the int at `off` of every view; returns how many. */
static int classes(size_t off, bool numbers)
{
    static int at[N_CELLS];
    int n = 0;
    for (int i = 0; i < N_CELLS; i++)
        at[i] = i;
    qsort(at, N_CELLS, sizeof *at, numbers ? by_value : by_key);
    for (int i = 0; i < N_CELLS; i++) {
        n += i == 0 || (numbers ? fabs(value[at[i]] - value[at[i - 1]]) > 1e-9 : strcmp(key[at[i]], key[at[i - 1]]) != 0);
        *(int *)((char *)&view[at[i]] + off) = n - 1;
    }
    return n;
}

static int setup(void **state)
{
    (void)state;
    key = malloc(N_CELLS * sizeof *key);
    return key ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(key);
    return 0;
}

static void equal_text_is_equal_computation_and_nothing_else(void **state)
{
    (void)state;
    for (int i = 0; i < N_CELLS; i++) {
        char text[ARCH_TEXT_MAX];
        int  o[4][4] = { { 0 } };
        text_of(i, text);
        assert_int_equal(space_nasbench201.canon(&space_nasbench201, text, key[i], NULL), 0);
        ops_of(i, o);
        cut(o);
        for (int from = 0; from < 3; from++)
            for (int to = from + 1; to < 4; to++) {
                view[i].conv1 += o[from][to] == CONV1;
                view[i].conv3 += o[from][to] == CONV3;
            }
        value[i] = computed(o, view[i].conv1 + view[i].conv3) + 100 * view[i].conv1 + 10000 * view[i].conv3;
    }
    assert_int_equal(classes(offsetof(struct view, canon), false), 5260);
    assert_int_equal(classes(offsetof(struct view, computed), true), 5260);
    int first[N_CELLS];
    memset(first, -1, sizeof first);
    for (int i = 0; i < N_CELLS; i++) {
        int *f = &first[view[i].canon];
        *f = *f < 0 ? view[i].computed : *f;
        if (*f != view[i].computed)
            fail_msg("'%s' is the text of two computations", key[i]);
    }
}

static int by_canon(const void *a, const void *b) { return view[*(const int *)a].canon - view[*(const int *)b].canon; }
static int by_published(const void *a, const void *b) { return view[*(const int *)a].published - view[*(const int *)b].published; }

/* Classes of one view that hold several classes of the other. */
static int mixed(int (*order)(const void *, const void *), size_t own, size_t other)
{
    static int at[N_CELLS];
    int n = 0;
    for (int i = 0; i < N_CELLS; i++)
        at[i] = i;
    qsort(at, N_CELLS, sizeof *at, order);
    for (int i = 0, k; i < N_CELLS; i = k) {
        bool differ = false;
        const int *a = (const int *)((char *)&view[at[i]] + own), *x = (const int *)((char *)&view[at[i]] + other);
        for (k = i; k < N_CELLS && *(const int *)((char *)&view[at[k]] + own) == *a; k++)
            differ |= *(const int *)((char *)&view[at[k]] + other) != *x;
        n += differ;
    }
    return n;
}

static void differences_from_the_published_numbering_are_these(void **state)
{
    (void)state;
    for (int i = 0; i < N_CELLS; i++)
        published(i, key[i]);
    assert_int_equal(classes(offsetof(struct view, published), false), 6466);
    /* It parts 688 of our networks: same computation, other zero edges or grouping of sums. */
    assert_int_equal(mixed(by_canon, offsetof(struct view, canon), offsetof(struct view, published)), 688);
    /* It joins 430 of its classes from several of ours, and each time their numbers of convolutions differ: ... */
    assert_int_equal(mixed(by_published, offsetof(struct view, published), offsetof(struct view, canon)), 430);
    static int seen[6466][7][7]; /* ... of one class and so many convolutions, all cells are one network: its number + 1 */
    for (int i = 0; i < N_CELLS; i++) {
        int *s = &seen[view[i].published][view[i].conv1][view[i].conv3];
        *s = *s ? *s : view[i].canon + 1;
        assert_int_equal(*s, view[i].canon + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_text_is_equal_computation_and_nothing_else),
        cmocka_unit_test(differences_from_the_published_numbering_are_these),
    };
    return cmocka_run_group_tests_name("space_equal", tests, setup, teardown);
}
