/* cmd_plan.c - what the engine would do with an architecture: ops, memory, operations, before anything is computed. */
#include "worker/cmd.h"

#include "common/fsio.h"
#include "common/space.h"
#include "worker/case.h"
#include "worker/plan_print.h"
#include "worker/spaces.h"

#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "Example: didact-worker plan --arch net.json --batch 128 --steps 32 --budget-bytes 1000000000\n"
    "         didact-worker plan --arch cell.txt --space nasbench201 --image 3x32x32 --classes 10\n"
    "\n"
    "Print how a meta-step of this architecture would run: its ops in order with shapes and kernels, the bytes of the arena in use at\n"
    "each, what is held for the way back, kept for the tangent pass or recomputed, operations, and the memory it would take. Nothing is run.\n"
    "  --arch FILE         a network (JSON: image, classes, learner, as docs/networks.md says), or with --space an architecture's text\n"
    "  --space NAME        its space: chain, nasbench201, nasnet, or the path of a space file\n"
    "  --image CxHxW       for --space: the images, default 1x28x28\n"
    "  --classes K         for --space: the classes, default 10\n"
    "  --batch N           images of an inner step, default the file's or 128\n"
    "  --steps T           inner steps, default the file's or 32\n"
    "  --meta-batch N      images of the real batch, default the file's or 512; 0: training alone, no way back\n"
    "  --budget-bytes N    memory that a meta-step may take, generator left out: decides what is kept and what is recomputed\n"
    "  --json              one JSON object\n"
    "DIDACT_ISA=portable|avx2|avx512|neon caps the kernels.\n"
    "Exit: 0 done, 65 bad input, 75 the budget is too small.\n";

struct options {
    const char *arch, *space, *image;
    long long   classes, batch, steps, meta_batch, budget;
    bool        json;
};

static int fail(const struct errbuf *e, int rc)
{
    fprintf(stderr, "didact-worker plan: %s\n", err_message(e, rc));
    return err_exit_status(rc);
}

static int load_text(const struct options *o, struct gcase *c, struct errbuf *e)
{
    const struct space *space;
    char text[ARCH_TEXT_MAX], trailing;
    char   *raw = NULL;
    size_t  n = 0;
    int rc = spaces_given(o->space, NULL, &space, e);
    if (rc < 0)
        return err_wrap(e, rc, "--space");
    if (sscanf(o->image, "%dx%dx%d%c", &c->c, &c->h, &c->w, &trailing) != 3)
        return err_set(e, ERR_USAGE, "--image: must be like 3x32x32");
    if ((rc = fs_read_all(o->arch, ARCH_TEXT_MAX, &raw, &n, e)) < 0)
        return rc;
    while (n > 0 && (raw[n - 1] == '\n' || raw[n - 1] == '\r' || raw[n - 1] == ' '))
        raw[--n] = 0;
    c->K = (int)o->classes;
    c->B = 128;
    c->T = 32;
    c->meta_batch = 512;
    c->inner = inner_default();
    rc = space->canon(space, raw, text, e);
    if (rc == 0)
        rc = space_build(space, text, c->c, c->h, c->w, c->K, NULL, &c->learner, e);
    free(raw);
    return rc < 0 ? err_wrap(e, rc, "%s", o->arch) : 0;
}

static int show(const struct options *o, struct gcase *c, struct errbuf *e)
{
    struct unroll_cfg cfg = { .learner = &c->learner, .dtype = ENG_F32, .T = o->steps ? (int)o->steps : c->T, .B = o->batch ? (int)o->batch : c->B,
                              .meta_batch = o->meta_batch >= 0 ? (int)o->meta_batch : c->meta_batch, .want_dx = true, .want_dy = c->soft_labels,
                              .inner = c->inner, .budget_bytes = (uint64_t)o->budget };
    struct plan_doc d = { .cfg = &cfg, .n_meta = cfg.meta_batch == 0 ? 0 : c->n_meta_at ? c->n_meta_at : 1 };
    struct unroll   *u = NULL;
    struct eng_plan *g = NULL;
    int rc = unroll_plan(&cfg, &u, e);
    if (rc == 0 && c->generator_mode && cfg.meta_batch)
        rc = plan_compile(&c->generator, cfg.B, ENG_F32, ENG_GRAD | ENG_INPUT_GRAD, NULL, &g, e);
    d.unroll = u;
    d.generator = g;
    if (rc == 0 && o->json) {
        json_t *doc = plan_to_json(&d);
        if (!doc || json_dumpf(doc, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER) < 0)
            rc = err_set(e, ERR_IO, "cannot write to standard output");
        putchar('\n');
        json_decref(doc);
    } else if (rc == 0)
        plan_print(&d, stdout);
    if (rc == 0 && fflush(stdout) != 0)
        rc = err_set(e, ERR_IO, "cannot write to standard output");
    unroll_free(u);
    eng_plan_free(g);
    return rc;
}

static int read_number(const char *name, const char *text, long long low, long long high, long long *to)
{
    char *end;
    *to = strtoll(text, &end, 10);
    if (end != text && !*end && *to >= low && *to <= high)
        return 0;
    fprintf(stderr, "didact-worker plan: --%s: must be a whole number from %lld to %lld\n", name, low, high);
    return -ERR_USAGE;
}

/* 0, -ERR_USAGE (said), or 1: help was asked for. */
static int read_options(struct options *o, int argc, char **argv)
{
    enum { NUMBERS = 256 };
    static const struct option opts[] = { { "arch", required_argument, NULL, 'a' }, { "space", required_argument, NULL, 's' },
                                          { "image", required_argument, NULL, 'i' }, { "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' },
                                          { "classes", required_argument, NULL, NUMBERS }, { "batch", required_argument, NULL, NUMBERS + 1 },
                                          { "steps", required_argument, NULL, NUMBERS + 2 }, { "meta-batch", required_argument, NULL, NUMBERS + 3 },
                                          { "budget-bytes", required_argument, NULL, NUMBERS + 4 }, { 0 } };
    const struct { const char *name; long long low, high, *to; } number[] = {
        { "classes", 1, CASE_MAX_SIDE, &o->classes }, { "batch", 1, CASE_MAX_SIDE, &o->batch }, { "steps", 1, CASE_MAX_SIDE, &o->steps },
        { "meta-batch", 0, CASE_MAX_SIDE, &o->meta_batch }, { "budget-bytes", 1, INT64_MAX, &o->budget },
    };
    int k;
    optind = 1;
    while ((k = getopt_long(argc, argv, "", opts, NULL)) != -1)
        switch (k) {
        case 'a': o->arch = optarg; break;
        case 's': o->space = optarg; break;
        case 'i': o->image = optarg; break;
        case 'j': o->json = true; break;
        case 'h': return 1;
        case '?': return -ERR_USAGE;
        default:
            if (read_number(number[k - NUMBERS].name, optarg, number[k - NUMBERS].low, number[k - NUMBERS].high, number[k - NUMBERS].to) < 0)
                return -ERR_USAGE;
        }
    return o->arch && optind == argc ? 0 : -ERR_USAGE;
}

int cmd_plan(int argc, char **argv)
{
    struct options o = { .image = "1x28x28", .classes = 10, .meta_batch = -1 };
    struct errbuf e = { 0 };
    struct gcase  c;
    int rc = read_options(&o, argc, argv);
    if (rc != 0) {
        fputs(USAGE, rc < 0 ? stderr : stdout);
        return rc < 0 ? err_exit_status(rc) : 0;
    }
    memset(&c, 0, sizeof c);
    if ((rc = eng_init(getenv("DIDACT_ISA"), &e)) == 0)
        rc = o.space ? load_text(&o, &c, &e) : case_load_networks(&c, o.arch, &e);
    if (rc == 0)
        rc = show(&o, &c, &e);
    case_fini(&c);
    return rc < 0 ? fail(&e, rc) : 0;
}
