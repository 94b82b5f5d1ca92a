/* teacher_file.c - a teacher's checkpoint: one safetensors file with everything that the next meta-step needs.
 * theta.PART, m.PART and v.PART (the generator's in the outside layout, so that a change of the engine's does not void
 * old checkpoints), state F64, history F64 [n,5]; metadata: format, kind, seed, dataset. */
#include "worker/teacher_int.h"

#include "common/safetensors.h"
#include "worker/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define FORMAT "didact-teacher-1"

static const char *const part_name[PART_COUNT] = { "generator", "z", "images", "labels", "log_lr", "logit_mu" };

enum { S_META_STEP, S_ADAM_STEP, S_LEFT_OUT, S_SKIPPED, S_IN_A_ROW, S_NORM_MEAN, S_LAST_NORM, S_META_LOSS,
       S_SECONDS, S_COUNT };

static void describe(struct st_tensor *t, const char *group, const char *name, enum st_dtype type, int ndim, uint64_t d0, uint64_t d1,
                     const void *data)
{
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s%s%s", group, *group ? "." : "", name);
    t->dtype = type;
    t->ndim = ndim;
    t->dim[0] = d0;
    t->dim[1] = d1;
    t->count = d0 * (ndim > 1 ? d1 : 1);
    t->bytes = t->count * st_dtype_size(type);
    t->data = data;
}

int teacher_save(const struct teacher *t, const char *path, struct errbuf *e)
{
    const float *const vec[3] = { t->theta, t->adam.m, t->adam.v };
    static const char *const group[3] = { "theta", "m", "v" };
    struct st_tensor tensor[3 * PART_COUNT + 2];
    uint64_t G = t->part[PART_GENERATOR].n;
    float *outside = mem_array(3 * G, sizeof *outside);
    int n = 0;
    if (!outside)
        return err_set(e, ERR_NOMEM, "a checkpoint");
    for (int g = 0; g < 3; g++)
        for (int p = 0; p < PART_COUNT; p++) {
            const float *src = vec[g] + t->part[p].first;
            if (t->part[p].n == 0)
                continue;
            if (p == PART_GENERATOR) {
                eng_params_export(generator_get_net(t->gen), ENG_F32, src, outside + (uint64_t)g * G);
                src = outside + (uint64_t)g * G;
            }
            describe(&tensor[n++], group[g], part_name[p], ST_F32, 1, t->part[p].n, 0, src);
        }
    double state[S_COUNT] = { (double)t->meta_step, (double)t->adam.step, (double)t->left_out, (double)t->skipped, t->skipped_in_a_row,
                              t->norm_mean, t->last_norm, t->meta_loss, t->seconds };
    describe(&tensor[n++], "", "state", ST_F64, 1, S_COUNT, 0, state);
    if (t->n_history)
        describe(&tensor[n++], "", "history", ST_F64, 2, (uint64_t)t->n_history, 5, t->history);
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, t->seed);
    const char *meta[] = { "format", FORMAT, "kind", t->kind->name, "seed", seed, "dataset", t->data->d.hash };
    int rc = st_write(path, tensor, n, meta, (int)(sizeof meta / sizeof meta[0]) / 2, e);
    free(outside);
    return rc;
}

static int check_meta(const struct teacher *t, const struct st_file *f, struct errbuf *e)
{
    char seed[24];
    snprintf(seed, sizeof seed, "%" PRIu64, t->seed);
    const struct { const char *key, *want; } row[] = {
        { "format", FORMAT }, { "kind", t->kind->name }, { "seed", seed }, { "dataset", t->data->d.hash } };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const char *got = st_meta(f, row[i].key);
        if (!got || strcmp(got, row[i].want) != 0)
            return err_set(e, ERR_INPUT, "%s is %s, this job's is %s", row[i].key, got ? got : "missing", row[i].want);
    }
    return 0;
}

static int load_vectors(struct teacher *t, const struct st_file *f, struct errbuf *e)
{
    float *const vec[3] = { t->theta, t->adam.m, t->adam.v };
    static const char *const group[3] = { "theta", "m", "v" };
    for (int g = 0; g < 3; g++)
        for (int p = 0; p < PART_COUNT; p++) {
            char name[64];
            const struct st_tensor *s;
            int64_t dim = (int64_t)t->part[p].n;
            if (dim == 0)
                continue;
            snprintf(name, sizeof name, "%s.%s", group[g], part_name[p]);
            int rc = st_need(f, name, ST_F32, 1, &dim, &s, e);
            if (rc < 0)
                return rc;
            float *copy = mem_array(s->count, sizeof *copy);
            if (!copy)
                return err_set(e, ERR_NOMEM, "a checkpoint");
            memcpy(copy, s->data, s->bytes);
            bool finite = eng_finite(ENG_F32, s->count, copy);
            if (p == PART_GENERATOR)
                eng_params_import(generator_get_net(t->gen), ENG_F32, copy, vec[g] + t->part[p].first);
            else
                memcpy(vec[g] + t->part[p].first, copy, s->bytes);
            free(copy);
            if (!finite)
                return err_set(e, ERR_INPUT, "tensor %s is not finite", name);
        }
    return 0;
}

static int load_state(struct teacher *t, const struct st_file *f, struct errbuf *e)
{
    const struct st_tensor *s;
    double v[S_COUNT];
    int rc = st_need(f, "state", ST_F64, 1, (int64_t[]){ S_COUNT }, &s, e);
    if (rc < 0)
        return rc;
    memcpy(v, s->data, sizeof v);
    for (int i = 0; i < S_COUNT; i++)
        if (!isfinite(v[i]) || v[i] < 0 || v[i] > 1e15)
            if (i != S_META_LOSS || !isfinite(v[i]))
                return err_set(e, ERR_INPUT, "tensor state: value %d is %g", i, v[i]);
    if ((s = st_find(f, "history"))) {
        if ((rc = st_need(f, "history", ST_F64, 2, (int64_t[]){ -1, 5 }, &s, e)) < 0)
            return rc;
        if (s->dim[0] > 1000000 || !(t->history = mem_array(s->dim[0], sizeof *t->history)))
            return err_set(e, ERR_NOMEM, "a history of %" PRIu64 " evaluations", s->dim[0]);
        memcpy(t->history, s->data, s->bytes);
        t->n_history = (int)s->dim[0];
    }
    t->meta_step = (uint64_t)v[S_META_STEP];
    t->adam.step = (uint64_t)v[S_ADAM_STEP];
    t->left_out = (uint64_t)v[S_LEFT_OUT];
    t->skipped = (uint64_t)v[S_SKIPPED];
    t->skipped_in_a_row = (int)fmin(v[S_IN_A_ROW], 1e6);
    t->norm_mean = v[S_NORM_MEAN];
    t->last_norm = v[S_LAST_NORM];
    t->meta_loss = v[S_META_LOSS];
    t->seconds = v[S_SECONDS];
    return 0;
}

int teacher_load(struct teacher *t, const char *path, struct errbuf *e)
{
    struct st_file f = { 0 };
    int rc = st_open(&f, path, e);
    if (rc < 0)
        return rc;
    if ((rc = check_meta(t, &f, e)) < 0 || (rc = load_vectors(t, &f, e)) < 0 || (rc = load_state(t, &f, e)) < 0)
        rc = err_wrap(e, rc, "checkpoint %s", path);
    st_close(&f);
    return rc;
}
