/* A layer list: "C H W BATCH" (H = W = 0: a flat vector), then the JSON. What is accepted has a plan of a known size or a
 * reason; small ones are run through every pass, so that a shape that the kernels cannot bear is found. */
#include "common/net.h"
#include "tests/fuzz/fuzz.h"
#include "worker/engine/engine.h"

#include <jansson.h>
#include <string.h>

#define RUN_BYTES (1 << 20)
#define RUN_MACS  100000

static void *numbers(size_t n, enum eng_dtype t)
{
    void *p = calloc(n ? n : 1, eng_dtype_size(t));
    FUZZ_CHECK(p);
    for (size_t i = 0; i < n; i++) {
        double v = 0.25 * (double)(i % 9) - 0.9;
        if (t == ENG_F64)
            ((double *)p)[i] = v;
        else
            ((float *)p)[i] = (float)v;
    }
    return p;
}

static size_t elems(const struct net_shape *s) { return (size_t)s->c * (size_t)s->h * (size_t)s->w; }

static void run(const struct net *n, int batch, enum eng_dtype t, uint64_t predicted)
{
    struct eng_plan *p;
    struct errbuf e = { 0 };
    FUZZ_CHECK(eng_plan_new(n, batch, t, ENG_TANGENT | ENG_INPUT_GRAD, &p, &e) == 0);
    FUZZ_CHECK(eng_plan_bytes(p) == predicted);
    const size_t P = n->param_count, in = (size_t)batch * elems(&n->node[0].shape), out = (size_t)batch * elems(&n->node[n->out].shape);
    void *buf[] = { numbers(P, t), numbers(P, t), numbers(in, t), numbers(out, t), numbers(out, t),
                    numbers(P, t), numbers(P, t), numbers(in, t), numbers(out, t) };
    eng_forward(p, buf[0], buf[2], buf[4]);
    eng_grad(p, buf[0], buf[2], buf[3], buf[5], buf[7]);
    eng_tangent(p, buf[0], buf[2], buf[3], buf[1], buf[6], buf[7], buf[8], buf[5]);
    for (size_t i = 0; i < sizeof buf / sizeof *buf; i++)
        free(buf[i]);
    eng_plan_free(p);
}

static void plan(const struct net *n, int batch)
{
    static const unsigned needs[] = { ENG_FORWARD, ENG_GRAD, ENG_TANGENT | ENG_INPUT_GRAD };
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        for (int t = ENG_F32; t <= ENG_F64; t++) {
            uint64_t bytes = 0;
            struct errbuf e = { 0 };
            int rc = eng_plan_predict(n, batch, (enum eng_dtype)t, needs[i], &bytes, &e);
            FUZZ_CHECK(rc == 0 || e.text[0]);
            if (rc == 0 && i == 2 && bytes < RUN_BYTES && n->param_count < 65536 && net_macs(n) * (uint64_t)batch < RUN_MACS)
                run(n, batch, (enum eng_dtype)t, bytes);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    char *text = fuzz_text(data, size), *list = strchr(text, '\n');
    int c, h, w, batch;
    struct net n = { 0 };
    struct errbuf e = { 0 };
    if (!started)
        FUZZ_CHECK(eng_init(NULL, NULL) == 0);
    started = true;
    if (list && sscanf(text, "%d %d %d %d", &c, &h, &w, &batch) == 4 && net_init(&n, c, h, w, &e) == 0) {
        json_t *j = json_loads(list, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
        int rc = j ? net_from_json(&n, j, "net", &e) : -ERR_INPUT;
        FUZZ_CHECK(!j || rc == 0 || strncmp(e.text, "net", 3) == 0);
        if (rc == 0 && n.n_nodes < 300)
            plan(&n, batch);
        json_decref(j);
    }
    net_fini(&n);
    free(text);
    return 0;
}
