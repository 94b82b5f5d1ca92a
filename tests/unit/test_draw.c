/* Networks as boxes, and the drawings of them. */
#include "client/graph.h"
#include "client/print.h"
#include "client/torch.h"
#include "common/space.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct errbuf e;

/* A convolution, two ways from it, one with a depthwise pair, and their sum; a dead branch; a head. */
static void small_net(struct net *n)
{
    assert_int_equal(net_init(n, 1, 8, 8, &e), 0);
    int a = net_lrelu(n, net_bn(n, net_conv(n, 0, 4, 3, 1, 1, "stem.conv", &e), false, "stem.bn", &e), 0, "stem.act", &e);
    int b = net_conv(n, net_dwconv(n, a, 3, 1, 1, "left.dw", &e), 4, 1, 1, 0, "left.pw", &e);
    net_conv(n, a, 7, 3, 1, 1, "dead.conv", &e);
    int s = net_add2(n, a, b, "add", &e);
    int out = net_linear(n, net_unary(n, NET_GAP, s, "head.gap", &e), 3, "head.linear", &e);
    assert_true(out > 0);
    assert_int_equal(net_set_out(n, out, &e), 0);
}

static char *text_of(const struct graph *g, int how)
{
    char  *text = NULL;
    size_t len = 0;
    FILE  *f = open_memstream(&text, &len);
    if (how == 0)
        graph_draw(g, f);
    else if (how == 1)
        graph_dot(g, "a \"title\"", f);
    else
        assert_int_equal(graph_svg(g, "a <title>", f, &e), 0);
    fclose(f);
    return text;
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part))
        n++;
    return n;
}

static void what_follows_shares_a_box_and_dead_layers_have_none(void **state)
{
    (void)state;
    static const char *const labels[] = { "input", "conv 3×3, 4 · bn · relu", "dwconv 3×3, 4 · conv 1×1, 4", "add", "gap · linear 3" };
    struct net n;
    struct graph g;
    small_net(&n);
    assert_int_equal(graph_from_net(&g, &n, &e), 0);
    assert_int_equal(g.n, 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(g.box[i].label, labels[i]);
    assert_true(g.box[3].n_in == 2 && g.box[3].in[0] == 1 && g.box[3].in[1] == 2);
    assert_int_equal(g.box[1].params, 4 * 9 + 8);
    assert_int_equal(g.box[2].macs, 64 * (4 * 9 + 16));
    assert_int_equal(g.box[3].level, 3);
    assert_int_equal(g.box[1].last_use, 3);
    graph_fini(&g);
    net_fini(&n);
}

static void a_terminal_shows_the_ways(void **state)
{
    (void)state;
    struct net n;
    struct graph g;
    small_net(&n);
    assert_int_equal(graph_from_net(&g, &n, &e), 0);
    char *text = text_of(&g, 0);
    assert_string_equal(text, "     LAYER                               SHAPE   PARAMS     MACS\n"
                              "●    input                               1×8×8\n"
                              "●    conv 3×3, 4 · bn · relu             4×8×8       44    2.30k\n"
                              "├─╮\n"
                              "│ ●  dwconv 3×3, 4 · conv 1×1, 4         4×8×8       52    3.33k\n"
                              "├─╯\n"
                              "●    add                                 4×8×8\n"
                              "●    gap · linear 3                          3       15       12\n");
    free(text);
    text = text_of(&g, 1);
    assert_non_null(strstr(text, "label=\"a \\\"title\\\"\""));
    assert_non_null(strstr(text, "n1 -> n3;"));
    assert_int_equal(count(text, " -> "), 5);
    free(text);
    graph_fini(&g);
    net_fini(&n);
}

struct rect { double x, y, w, h; };

static void rects_lie_apart(const char *svg, int want)
{
    static struct rect r[256];
    int n = 0;
    for (const char *p = svg; (p = strstr(p, "<rect ")); p++)
        if (n < 256 && sscanf(p, "<rect x=\"%lf\" y=\"%lf\" width=\"%lf\" height=\"%lf\" rx", &r[n].x, &r[n].y, &r[n].w, &r[n].h) == 4 &&
            strncmp(strchr(p, '>') - 1, "/", 1) == 0 && strstr(p, "rx=") && strstr(p, "rx=") < strchr(p, '>'))
            n++;
    assert_int_equal(n, want);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            if (r[i].x < r[k].x + r[k].w && r[k].x < r[i].x + r[i].w && r[i].y < r[k].y + r[k].h && r[k].y < r[i].y + r[i].h)
                fail_msg("boxes %d and %d overlap", k, i);
}

static void torch_loads_every_weight(const struct net *n, const char *arch)
{
    char  *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    struct torch_about about = { arch, "a test", "w.safetensors" };
    assert_int_equal(torch_write(n, &about, f, &e), 0);
    fclose(f);
    for (int p = 0; p < n->n_params; p++) {
        char quoted[96];
        snprintf(quoted, sizeof quoted, "\"%s\"", n->param[p].name);
        if (!strstr(text, quoted))
            fail_msg("%s: the weight %s is never loaded", arch, quoted);
    }
    free(text);
}

/* Every space, many networks: nothing is lost in folding, boxes do not overlap, every way is drawn, PyTorch knows each layer. */
static void drawings_hold_the_whole_network(void **state)
{
    (void)state;
    const struct space *sp;
    for (int s = 0; (sp = space_at(s)); s++)
        for (uint64_t i = 0; i < 40; i++) {
            char arch[ARCH_TEXT_MAX], *text;
            struct rng r;
            struct net n;
            struct graph g;
            uint64_t params = 0, macs = 0;
            int ways = 0;
            rng_init(&r, 3, RNG_TEST, i);
            sp->random(sp, &r, arch);
            if (space_build(sp, arch, 3, 32, 32, 10, NULL, &n, &e) < 0)
                fail_msg("%s", e.text);
            assert_int_equal(graph_from_net(&g, &n, &e), 0);
            for (int b = 0; b < g.n; b++) {
                params += g.box[b].params;
                macs += g.box[b].macs;
                ways += g.box[b].n_in;
                for (int k = 0; k < g.box[b].n_in; k++)
                    assert_true(g.box[b].in[k] < b && g.box[g.box[b].in[k]].level < g.box[b].level);
            }
            assert_int_equal(params, n.param_count);
            assert_int_equal(macs, net_macs(&n));
            text = text_of(&g, 0);
            assert_int_equal(count(text, "●"), g.n);
            if (strstr(text, " \n"))
                fail_msg("a blank at the end of a line:\n%s", text);
            free(text);
            text = text_of(&g, 1);
            assert_int_equal(count(text, " -> "), ways);
            free(text);
            text = text_of(&g, 2);
            assert_int_equal(count(text, "marker-end"), ways);
            assert_null(strstr(text, "nan"));
            rects_lie_apart(text, g.n);
            char *again = text_of(&g, 2);
            assert_string_equal(text, again);
            free(again);
            free(text);
            torch_loads_every_weight(&n, arch);
            graph_fini(&g);
            net_fini(&n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_follows_shares_a_box_and_dead_layers_have_none),
        cmocka_unit_test(a_terminal_shows_the_ways),
        cmocka_unit_test(drawings_hold_the_whole_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
