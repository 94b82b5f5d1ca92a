/* logits.c - what our own engine says to images, for the test that reads an exported ONNX file with another runtime.
 *   logits WEIGHTS.safetensors IMAGES C H W CLASSES OUT
 * IMAGES holds 8-bit pixels [n,C,H,W]; OUT gets float32 logits [n,CLASSES], batch norms on their running statistics. */
#include "common/fsio.h"
#include "common/safetensors.h"
#include "common/space_file.h"
#include "worker/engine/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    struct st_file f;
    struct net     net;
    struct eng_plan *plan;
    float *outside, *w, *stats, *x, *logits;
    char  *pixels;
    int    c, h, wd, K;
};

static int load_weights(struct job *j, struct errbuf *e)
{
    const struct st_tensor *t;
    for (int i = 0; i < j->net.n_params; i++) {
        const struct net_param *p = &j->net.param[i];
        if (!(t = st_find(&j->f, p->name)) || t->dtype != ST_F32 || t->count != p->size)
            return err_set(e, ERR_INPUT, "tensor %s is missing or has another size", p->name);
        memcpy(j->outside + p->offset, t->data, t->bytes);
    }
    size_t at = 0, count = eng_running_count(&j->net);
    static const char *const kinds[] = { "running_mean", "running_var" };
    for (int i = 0; i < j->net.n_nodes; i++) {
        if (j->net.node[i].op != NET_BN)
            continue;
        for (int k = 0; k < 2; k++) {
            char name[128];
            snprintf(name, sizeof name, "%s.%s", j->net.node[i].path, kinds[k]);
            if (!(t = st_find(&j->f, name)) || t->dtype != ST_F32 || at + t->count > count)
                return err_set(e, ERR_INPUT, "tensor %s is missing or has another size", name);
            memcpy(j->stats + at, t->data, t->bytes);
            at += t->count;
        }
    }
    return at == count ? 0 : err_set(e, ERR_INPUT, "%zu running statistics, expected %zu", at, count);
}

static int run(struct job *j, const char *images, const char *out, struct errbuf *e)
{
    const char *space = st_meta(&j->f, "space"), *arch = st_meta(&j->f, "arch");
    const struct space *s = space ? space_find(space) : NULL;
    if (!s || !arch)
        return err_set(e, ERR_INPUT, "the metadata name no space or architecture");
    struct proxy proxy = space_proxy_from(st_meta(&j->f, "channels"), st_meta(&j->f, "cells"));
    size_t bytes = 0, image = (size_t)j->c * (size_t)j->h * (size_t)j->wd;
    int rc = space_build(s, arch, j->c, j->h, j->wd, j->K, &proxy, &j->net, e);
    if (rc < 0 || (rc = fs_read_all(images, (size_t)1 << 30, &j->pixels, &bytes, e)) < 0)
        return rc;
    int n = (int)(bytes / image);
    if (n < 1 || (rc = eng_plan_new(&j->net, n, ENG_F32, ENG_RUNNING, &j->plan, e)) < 0)
        return n < 1 ? err_set(e, ERR_INPUT, "%s holds no image", images) : rc;
    j->outside = calloc(j->net.param_count, sizeof(float));
    j->w = calloc(j->net.param_count, sizeof(float));
    j->stats = calloc(eng_running_count(&j->net) + 1, sizeof(float));
    j->x = calloc((size_t)n * image, sizeof(float));
    j->logits = calloc((size_t)n * (size_t)j->K, sizeof(float));
    if (!j->outside || !j->w || !j->stats || !j->x || !j->logits)
        return err_set(e, ERR_NOMEM, "out of memory");
    if ((rc = load_weights(j, e)) < 0)
        return rc;
    eng_params_import(&j->net, ENG_F32, j->outside, j->w);
    eng_running_set(j->plan, j->stats);
    eng_set_evaluation(j->plan, true);
    eng_images_from_u8((size_t)n, j->c, j->h, j->wd, (const uint8_t *)j->pixels, j->x);
    eng_forward(j->plan, j->w, j->x, j->logits);
    return fs_write_atomic(out, j->logits, (size_t)n * (size_t)j->K * sizeof(float), e);
}

int main(int argc, char **argv)
{
    if (argc != 8 && argc != 9) {
        fprintf(stderr, "usage: logits WEIGHTS IMAGES C H W CLASSES OUT [SPACE.yaml]\n");
        return 64;
    }
    const struct space *own;
    struct job j = { .c = atoi(argv[3]), .h = atoi(argv[4]), .wd = atoi(argv[5]), .K = atoi(argv[6]) };
    struct errbuf e = { 0 };
    int rc = eng_init(NULL, &e);
    if (rc == 0 && argc == 9)
        rc = space_file_load(argv[8], &own, &e);
    if (rc == 0 && (rc = st_open(&j.f, argv[1], &e)) == 0) {
        rc = run(&j, argv[2], argv[7], &e);
        eng_plan_free(j.plan);
        net_fini(&j.net);
        st_close(&j.f);
    }
    free(j.outside);
    free(j.w);
    free(j.stats);
    free(j.x);
    free(j.logits);
    free(j.pixels);
    if (rc < 0)
        fprintf(stderr, "logits: %s\n", err_message(&e, rc));
    return rc < 0 ? err_exit_status(rc) : 0;
}
