#include "worker/task.h"

#include "common/curriculum.h"
#include "tests/support/learnable.h"
#include "worker/generator.h"
#include "worker/heldout.h"
#include "worker/teacher_int.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bench { struct desk desk; struct task task; };

static void prepare(void **state, struct bench *b, int threads)
{
    struct tmp *t = *state;
    const char *data = tmp_path(t, "data.st");
    hash_str h;
    assert_int_equal(eng_init(NULL, NULL), 0);
    memset(b, 0, sizeof *b);
    desk_init(&b->desk, t, threads);
    learnable_write(data, h);
    desk_add(&b->desk, h, data);
    b->task.kind = TASK_TEACH;
    b->task.teach.seed = 21;
    memcpy(b->task.teach.dataset, h, sizeof h);
    b->task.teach.cfg = (struct teach_cfg){
        .kind = "gtn", .steps = 4, .batch = 8, .meta_steps = 6, .learners = 3, .inits = 1, .meta_batch = 16, .n_meta_at = 1, .meta_at = { 2 },
        .meta_weight = { 0.5 }, .lr = 0.05, .mu = 0.5, .inner = { .type = INNER_LARS, .eps = 1e-6, .scale_1d = 0.3 }, .outer_lr = 0.01, .outer_beta1 = 0.9,
        .outer_beta2 = 0.99, .outer_eps = 1e-8, .outer_lr_end = 0.1, .outer_schedule = 1, .clip = 2, .z_dim = 4, .g_hidden = 16, .g_channels1 = 8,
        .g_channels2 = 4, .learn_labels = true, .n_mix = 1, .mix_space = { "chain" }, .mix_weight = { 1 }, .max_macs = 60000,
        .eval_every = 3, .checkpoint_every = 3 };
}

static struct trial_result teach(struct bench *b)
{
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    int rc = task_teach(&b->task, &b->desk.env, &r, &e);
    if (rc < 0)
        fail_msg("%s", err_message(&e, rc));
    return r;
}

static void a_teacher_ends_with_a_curriculum_and_a_checkpoint(void **state)
{
    struct bench b;
    struct curriculum c;
    prepare(state, &b, 1);
    struct trial_result r = teach(&b);
    assert_int_equal(r.state, TRIAL_SCORED);
    assert_int_equal(r.meta_steps, 6);
    assert_true(r.score > 0 && r.score <= 1);
    assert_int_equal(r.n_checkpoints, 3); /* before the first step, at 3, at 6 */
    assert_int_equal(r.checkpoint[2], 6);
    assert_non_null(desk_path(&b.desk, r.checkpoint_blob));
    assert_int_equal(curriculum_load(&c, desk_path(&b.desk, r.artifact), NULL), 0);
    assert_int_equal(c.T, 4);
    assert_int_equal(c.B, 8);
    assert_int_equal(c.K, LEARNABLE_CLASSES);
    assert_int_equal(c.inner.type, INNER_LARS);
    assert_non_null(strstr(c.provenance, b.task.teach.dataset));
    for (int t = 0; t < 4; t++)
        assert_true(c.lr[t] > 0.03f && c.lr[t] < 0.08f);
    curriculum_fini(&c);
    assert_true(b.desk.last.done == 6 && b.desk.last.total == 6);
    assert_string_equal(b.desk.last.checkpoint_blob, r.checkpoint_blob);
}

static void the_curriculum_has_the_same_bits_with_one_two_and_four_threads(void **state)
{
    struct bench b;
    hash_str first = "";
    for (int threads = 1; threads <= 4; threads *= 2) { /* four threads for three learners */
        prepare(state, &b, threads);
        struct trial_result r = teach(&b);
        if (threads == 1)
            memcpy(first, r.artifact, sizeof first);
        assert_string_equal(r.artifact, first);
    }
}

static void two_threads_inside_one_learner_change_no_bit(void **state)
{
    struct bench b;
    prepare(state, &b, 1);
    b.task.teach.cfg.learners = 1;
    struct trial_result one = teach(&b);
    prepare(state, &b, 2);
    b.task.teach.cfg.learners = 1;
    struct trial_result two = teach(&b);
    assert_string_equal(one.artifact, two.artifact);
}

/* Two initialisations of each of two networks: four learners, each with weights and real batches of its own, at any number of threads. */
static void initialisations_of_one_network_are_learners_of_their_own(void **state)
{
    struct bench b;
    struct errbuf e = { 0 };
    const struct real_data *data;
    struct teacher *t;
    prepare(state, &b, 1);
    b.task.teach.cfg.learners = b.task.teach.cfg.inits = 2;
    struct trial_result one = teach(&b), usual;
    prepare(state, &b, 4);
    b.task.teach.cfg.learners = b.task.teach.cfg.inits = 2;
    assert_string_equal(teach(&b).artifact, one.artifact);
    assert_int_equal(datacache_data(desk_path(&b.desk, b.task.teach.dataset), &data, &e), 0);
    assert_int_equal(teacher_new(&b.task.teach.cfg, 21, data, 2, 0, NULL, 0, &t, &e), 0);
    assert_int_equal(teacher_step(t, &e), 0);
    assert_int_equal(t->n_learners, 4);
    for (int k = 0; k < 4; k += 2) {
        assert_string_equal(t->run[k].arch, t->run[k + 1].arch);
        assert_true(t->run[k].rc != 0 || t->run[k].loss != t->run[k + 1].loss);
    }
    assert_string_not_equal(t->run[0].arch, t->run[2].arch);
    teacher_free(t);
    datacache_release(data);
    prepare(state, &b, 1);
    b.task.teach.cfg.learners = 2;
    usual = teach(&b);
    assert_string_not_equal(usual.artifact, one.artifact);
}

static void a_teacher_short_of_memory_computes_more_again_and_changes_no_bit(void **state)
{
    struct bench b;
    struct errbuf e = { 0 };
    int done = 0, refused = 0;
    prepare(state, &b, 1);
    struct trial_result usual = teach(&b);
    for (uint64_t percent = 99; percent >= 50 && !refused; percent--) {
        struct trial_result r = { 0 };
        prepare(state, &b, 1);
        b.desk.env.mem_bytes = usual.mem_bytes * percent / 100;
        int rc = task_teach(&b.task, &b.desk.env, &r, &e);
        if (rc < 0) {
            assert_int_equal(rc, -ERR_NOMEM);
            refused++;
            continue;
        }
        assert_true(r.mem_bytes <= b.desk.env.mem_bytes);
        assert_string_equal(r.artifact, usual.artifact);
        done++;
    }
    assert_true(done > 0 && refused > 0);
}

static void a_stopped_teacher_goes_on_as_if_it_had_never_stopped(void **state)
{
    struct bench b;
    prepare(state, &b, 1);
    struct trial_result whole = teach(&b), part = { 0 };
    struct errbuf e = { 0 };
    for (int polls = 2; polls <= 5; polls++) { /* stopped before meta-step 2, 3, 4, 5: beside a checkpoint and on it */
        prepare(state, &b, 2);
        b.desk.polls_left = polls;
        memset(&part, 0, sizeof part);
        assert_int_equal(task_teach(&b.task, &b.desk.env, &part, &e), -ERR_CANCELLED);
        assert_int_equal(part.meta_steps, polls - 1);
        assert_non_null(desk_path(&b.desk, part.checkpoint_blob));
        memcpy(b.task.teach.resume, part.checkpoint_blob, sizeof part.checkpoint_blob);
        b.desk.polls_left = -1;
        struct trial_result rest = teach(&b);
        assert_string_equal(rest.artifact, whole.artifact); /* its history is in it too */
        assert_int_equal(rest.meta_steps, 6);
    }
}

static void a_checkpoint_of_another_job_is_refused_by_name(void **state)
{
    struct bench b;
    struct errbuf e = { 0 };
    prepare(state, &b, 1);
    struct trial_result r = teach(&b), again = { 0 };
    memcpy(b.task.teach.resume, r.checkpoint_blob, sizeof r.checkpoint_blob);
    b.task.teach.seed = 22;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &again, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "seed"));
    b.task.teach.seed = 21;
    b.task.teach.cfg.g_hidden = 24;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &again, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "generator"));
}

/* A learner that has run away says nothing about the rest: its loss counts as that of guessing. */
static double bounded_loss(const struct teacher *t)
{
    double sum = 0, guess = 1.5 * log(LEARNABLE_CLASSES);
    for (int k = 0; k < t->n_learners; k++)
        sum += t->run[k].rc == 0 ? fmin(t->run[k].loss, guess) : guess;
    return sum / t->n_learners;
}

static void training_lowers_the_meta_loss(void **state)
{
    struct bench b;
    struct errbuf e = { 0 };
    const struct real_data *data;
    struct teacher *t;
    prepare(state, &b, 2);
    struct teach_cfg *c = &b.task.teach.cfg;
    c->meta_steps = 60;
    c->outer_lr = 0.02;
    c->learners = 2;
    assert_int_equal(datacache_data(desk_path(&b.desk, b.task.teach.dataset), &data, &e), 0);
    assert_int_equal(teacher_new(c, 4, data, 2, 0, NULL, 0, &t, &e), 0);
    double first = 0, last = 0;
    for (int i = 0; i < 60; i++) {
        assert_int_equal(teacher_step(t, &e), 0);
        first += i < 15 ? bounded_loss(t) : 0;
        last += i >= 45 ? bounded_loss(t) : 0;
    }
    assert_true(last < 0.85 * first);
    teacher_free(t);
    datacache_release(data);
}

/* The class whose quarter of the image is the brightest (tests/support/learnable.h). */
static int brightest(const uint8_t *pixel)
{
    int best = 0, sum[4] = { 0 };
    for (int p = 0; p < 64; p++)
        sum[(p / 8 >= 4) * 2 + (p % 8 >= 4)] += pixel[p];
    for (int k = 1; k < 4; k++)
        best = sum[k] > sum[best] ? k : best;
    return best;
}

/* The teacher's images now, as pixels in their slots. */
static void look(struct teacher *t, struct lessons *l)
{
    struct errbuf e = { 0 };
    if (teacher_lessons(t, l, &e) < 0)
        fail_msg("%s", e.text);
}

static void a_distilled_teacher_starts_at_real_images_and_moves_them(void **state)
{
    struct bench b;
    struct errbuf e = { 0 };
    const struct real_data *data;
    struct teacher *t;
    struct lessons before, after;
    prepare(state, &b, 2);
    struct teach_cfg *c = &b.task.teach.cfg;
    snprintf(c->kind, sizeof c->kind, "distilled");
    assert_int_equal(datacache_data(desk_path(&b.desk, b.task.teach.dataset), &data, &e), 0);
    assert_int_equal(teacher_new(c, 4, data, 2, 0, NULL, 0, &t, &e), 0);
    look(t, &before);
    int moved = 0;
    for (int i = 0; i < 4 * 8; i++) {
        int found = 0;
        for (uint32_t r = 0; r < data->d.n[SPLIT_TRAIN] && !found; r++)
            found = dataset_label(&data->d, SPLIT_TRAIN, r) == t->label[i] &&
                    memcmp(dataset_image(&data->d, SPLIT_TRAIN, r), before.c.images + i * 64, 64) == 0;
        assert_true(found); /* of its own class, pixel for pixel */
    }
    assert_int_equal(teacher_step(t, &e), 0);
    look(t, &after);
    for (int i = 0; i < 4 * 8 * 64; i++)
        moved += before.c.images[i] != after.c.images[i];
    assert_true(moved > 4 * 8 * 64 / 2);
    for (uint64_t i = 0; i < t->part[PART_IMAGES].n; i++)
        assert_true(fabsf(t->theta[t->part[PART_IMAGES].first + i]) <= 1);
    lessons_fini(&before);
    lessons_fini(&after);
    teacher_free(t);
    datacache_release(data);
}

static void a_distilled_teacher_goes_on_from_its_checkpoint(void **state)
{
    struct bench b;
    struct errbuf e = { 0 };
    prepare(state, &b, 1);
    snprintf(b.task.teach.cfg.kind, sizeof b.task.teach.cfg.kind, "distilled");
    struct trial_result whole = teach(&b), part = { 0 };
    b.desk.polls_left = 4;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &part, &e), -ERR_CANCELLED);
    memcpy(b.task.teach.resume, part.checkpoint_blob, sizeof part.checkpoint_blob);
    b.desk.polls_left = -1;
    assert_string_equal(teach(&b).artifact, whole.artifact);
}

static void a_warm_start_makes_images_of_the_right_classes(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    int right[2] = { 0 };
    for (int warm = 0; warm < 2; warm++) {
        struct curriculum c;
        prepare(state, &b, 1 + warm);
        b.task.teach.cfg.meta_steps = 1;
        b.task.teach.cfg.warm_start = 150 * warm;
        r = teach(&b);
        assert_int_equal(curriculum_load(&c, desk_path(&b.desk, r.artifact), NULL), 0);
        for (int i = 0; i < 4 * 8; i++)
            right[warm] += brightest(c.images + i * 64) == i % LEARNABLE_CLASSES;
        curriculum_fini(&c);
    }
    assert_true(right[0] < 20); /* a generator fresh from its random numbers guesses */
    assert_true(right[1] >= 30);
    hash_str one;
    memcpy(one, r.artifact, sizeof one);
    b.desk.polls_left = 50; /* a stop is heard in the middle of it */
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_CANCELLED);
    b.desk.polls_left = -1;
    assert_string_equal(teach(&b).artifact, one);
    snprintf(b.task.teach.cfg.kind, sizeof b.task.teach.cfg.kind, "real");
    b.task.teach.cfg.learn_labels = false;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "warm_start"));
}

static void the_control_learns_only_the_schedule_and_ships_real_images(void **state)
{
    struct bench b;
    struct curriculum c;
    prepare(state, &b, 2);
    snprintf(b.task.teach.cfg.kind, sizeof b.task.teach.cfg.kind, "real");
    b.task.teach.cfg.learn_labels = false;
    struct trial_result r = teach(&b), again = teach(&b);
    assert_string_equal(r.artifact, again.artifact);
    assert_int_equal(curriculum_load(&c, desk_path(&b.desk, r.artifact), NULL), 0);
    for (int i = 0; i < 4 * 8; i++) {
        const float *y = c.labels + i * LEARNABLE_CLASSES;
        assert_true(y[0] + y[1] + y[2] + y[3] == 1);
        assert_true(y[brightest(c.images + i * 64)] == 1); /* a real image beside its real label */
    }
    assert_true(c.lr[0] != 0.05f);
    curriculum_fini(&c);
}

static void divergence_without_end_is_a_failed_job(void **state)
{
    struct bench b;
    prepare(state, &b, 2);
    b.task.teach.cfg.meta_steps = 100;
    b.task.teach.cfg.learners = 1;
    b.task.teach.cfg.inner = (struct inner_cfg){ .type = INNER_SGD, .weight_decay = 1e30 }; /* weights explode in two steps */
    struct trial_result r = teach(&b);
    assert_int_equal(r.state, TRIAL_FAILED);
    assert_int_equal(r.reason, FAIL_NAN);
    assert_non_null(strstr(r.detail, "teach.lr"));
    assert_non_null(strstr(r.detail, "not finite at inner step "));
    assert_non_null(strstr(r.detail, "layer "));
}

/* Learners whose step is too large fall out one by one; those beside them teach on. */
static void a_learner_that_diverges_leaves_the_others_alone(void **state)
{
    struct bench b;
    const struct real_data *data;
    struct teacher *t;
    struct errbuf e = { 0 };
    prepare(state, &b, 2);
    b.task.teach.cfg.learners = 8;
    b.task.teach.cfg.lr = 10;
    b.task.teach.cfg.inner = (struct inner_cfg){ .type = INNER_SGD, .weight_decay = 0.1 };
    assert_int_equal(datacache_data(desk_path(&b.desk, b.task.teach.dataset), &data, &e), 0);
    if (teacher_new(&b.task.teach.cfg, 21, data, 2, 0, NULL, 0, &t, &e) < 0)
        fail_msg("%s", e.text);
    for (int i = 0; i < 4; i++)
        assert_int_equal(teacher_step(t, &e), 0);
    assert_true(t->left_out > 0 && t->left_out < 32);
    assert_int_equal(t->skipped, 0);
    assert_true(eng_finite(ENG_F32, t->n_theta, t->theta));
    teacher_free(t);
    datacache_release(data);
}

/* The ablation: what is shown is the same set of inputs in another order, and gradients find their way back to them. */
static void orders_are_taken_away_step_by_step(void **state)
{
    static const char *const kinds[] = { "gtn-batches", "gtn-shuffled", "gtn-noise" };
    enum { B = 8, TB = 32, Z = 4 };
    for (int i = 0; i < 3; i++) {
        struct bench b;
        struct errbuf e = { 0 };
        const struct real_data *data;
        struct teacher *t;
        prepare(state, &b, 1);
        struct teach_cfg *c = &b.task.teach.cfg;
        c->learn_labels = false;
        snprintf(c->kind, sizeof c->kind, "%s", kinds[i]);
        assert_int_equal(datacache_data(desk_path(&b.desk, b.task.teach.dataset), &data, &e), 0);
        assert_int_equal(teacher_new(c, 21, data, 2, 0, NULL, 0, &t, &e), 0);
        float first[TB * Z];
        int   seen[TB] = { 0 }, moved = 0;
        assert_int_equal(teacher_unfold(t, 0, true, &e), 0);
        memcpy(first, t->z, sizeof first);
        for (int p = 0; p < TB; p++) {
            const uint32_t slot = t->slot[p];
            seen[slot]++;
            moved += (int)slot != p;
            assert_int_equal(t->label[p], slot % LEARNABLE_CLASSES);
            assert_true(t->y[p * LEARNABLE_CLASSES + t->label[p]] == 1);
            if (i < 2)
                assert_memory_equal(t->z + p * Z, t->theta + t->part[PART_Z].first + slot * Z, Z * sizeof(float));
            if (i == 0)
                assert_true(slot % B == (uint32_t)p % B && slot / B == t->slot[p / B * B] / B);
        }
        for (int p = 0; p < TB; p++)
            assert_int_equal(seen[p], 1);
        assert_true(i == 2 ? moved == 0 && t->part[PART_Z].n == 0 : moved > 0);
        assert_int_equal(teacher_unfold(t, 1, true, &e), 0);
        assert_memory_not_equal(first, t->z, sizeof first);
        assert_int_equal(teacher_unfold(t, 0, true, &e), 0);
        assert_memory_equal(first, t->z, sizeof first);
        assert_int_equal(teacher_step(t, &e), 0);
        for (int p = 0; p < TB && i < 2; p++) /* where the step's place p came from: unfold(0) again says it */
            assert_memory_equal(t->grad + t->part[PART_Z].first + t->slot[p] * Z, t->dz + p * Z, Z * sizeof(float));
        teacher_free(t);
        datacache_release(data);
        prepare(state, &b, 1);
        c->learn_labels = false;
        snprintf(c->kind, sizeof c->kind, "%s", kinds[i]);
        struct trial_result one = teach(&b);
        prepare(state, &b, 3);
        c->learn_labels = false;
        snprintf(c->kind, sizeof c->kind, "%s", kinds[i]);
        assert_string_equal(teach(&b).artifact, one.artifact);
    }
}

static void bad_settings_are_refused_by_name(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b, 1);
    struct teach_cfg good = b.task.teach.cfg, *c = &b.task.teach.cfg;
    c->max_params = 3;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "max_params"));
    *c = good;
    c->meta_at[0] = 4;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "meta_at"));
    *c = good;
    snprintf(c->kind, sizeof c->kind, "magic");
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "magic"));
    snprintf(c->kind, sizeof c->kind, "gtn-shuffled"); /* and labels of its own */
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "teach.learn_labels"));
    snprintf(c->kind, sizeof c->kind, "gtn-noise");
    c->learn_labels = false;
    c->warm_start = 1;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "teach.warm_start"));
    *c = good;
    b.desk.env.mem_bytes = 10000;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_NOMEM);
}

static void the_generator_refuses_sides_it_cannot_double_up_to(void **state)
{
    (void)state;
    struct generator_cfg c = { .T = 1, .B = 2, .z_dim = 4, .K = 3, .c = 3, .h = 30, .w = 32, .hidden = 8, .channels1 = 4, .channels2 = 4 };
    struct net n;
    struct errbuf e = { 0 };
    assert_int_equal(generator_net(&c, &n, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "30x32"));
    c.h = 32;
    assert_int_equal(generator_net(&c, &n, &e), 0);
    const struct net_shape *s = &n.node[n.out].shape;
    assert_true(s->c == 3 && s->h == 32 && s->w == 32 && !s->flat);
    net_fini(&n);
}

/* Central differences of <G(phi, z), r> along random directions of phi and z. */
static void the_generator_backward_agrees_with_differences(void **state)
{
    struct generator_cfg c = { .T = 3, .B = 6, .z_dim = 5, .K = 3, .c = 1, .h = 8, .w = 8, .hidden = 12, .channels1 = 6, .channels2 = 4,
                               .threads = 2 };
    enum { NZ = 3 * 6 * 5, NX = 3 * 6 * 64, NL = 18 };
    struct generator *g;
    struct rng r;
    int label[NL];
    static float z[NZ], zz[NZ], dz[NZ], dir_z[NZ], x[NX], w[NX];
    (void)state;
    assert_int_equal(eng_init(NULL, NULL), 0);
    assert_int_equal(generator_new(&c, &g, NULL), 0);
    uint64_t G = generator_get_net(g)->param_count;
    float *phi = calloc(G, 4), *moved = calloc(G, 4), *dphi = calloc(G, 4), *dir = calloc(G, 4);
    rng_init(&r, 1, RNG_TEST, 1);
    eng_params_init(generator_get_net(g), ENG_F32, 9, phi);
    for (int i = 0; i < NL; i++)
        label[i] = i % 3;
    for (int i = 0; i < NZ; i++) {
        z[i] = (float)rng_normal(&r);
        dir_z[i] = (float)rng_normal(&r);
    }
    for (int i = 0; i < NX; i++)
        w[i] = (float)rng_normal(&r);
    for (uint64_t i = 0; i < G; i++)
        dir[i] = (float)rng_normal(&r);
    generator_forward(g, phi, z, label, x, NULL);
    generator_backward(g, phi, z, label, w, dphi, dz, NULL);
    double along = eng_dot(ENG_F32, G, dphi, dir) + eng_dot(ENG_F32, NZ, dz, dir_z), f[2], h = 2e-4;
    for (int s = 0; s < 2; s++) {
        float step = (float)(s ? -h : h);
        for (uint64_t i = 0; i < G; i++)
            moved[i] = phi[i] + step * dir[i];
        for (int i = 0; i < NZ; i++)
            zz[i] = z[i] + step * dir_z[i];
        generator_forward(g, moved, zz, label, x, NULL);
        f[s] = eng_dot(ENG_F32, NX, x, w);
    }
    double numeric = (f[0] - f[1]) / (2 * h);
    if (!(fabs(numeric - along) < 0.02 * fabs(numeric) + 0.05)) /* float32, with kinks on the way */
        fail_msg("gradient %g, differences %g", along, numeric);
    free(phi);
    free(moved);
    free(dphi);
    free(dir);
    generator_free(g);
}

static void held_out_architectures_build_for_every_image_size(void **state)
{
    (void)state;
    const int size[][3] = { { 1, 8, 8 }, { 1, 28, 28 }, { 3, 32, 32 } };
    for (int i = 0; i < heldout_count(); i++)
        for (size_t s = 0; s < sizeof size / sizeof size[0]; s++) {
            struct net n;
            assert_int_equal(heldout_build(i, size[s][0], size[s][1], size[s][2], 10, &n, NULL), 0);
            assert_int_equal(n.node[n.out].shape.c, 10);
            assert_true(n.node[n.out].shape.flat);
            assert_true(net_macs(&n) < 6000000);
            net_fini(&n);
        }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_teacher_ends_with_a_curriculum_and_a_checkpoint),
        TEST(the_curriculum_has_the_same_bits_with_one_two_and_four_threads),
        TEST(two_threads_inside_one_learner_change_no_bit),
        TEST(initialisations_of_one_network_are_learners_of_their_own),
        TEST(a_teacher_short_of_memory_computes_more_again_and_changes_no_bit),
        TEST(a_stopped_teacher_goes_on_as_if_it_had_never_stopped),
        TEST(a_checkpoint_of_another_job_is_refused_by_name),
        TEST(training_lowers_the_meta_loss),
        TEST(a_distilled_teacher_starts_at_real_images_and_moves_them),
        TEST(a_distilled_teacher_goes_on_from_its_checkpoint),
        TEST(a_warm_start_makes_images_of_the_right_classes),
        TEST(the_control_learns_only_the_schedule_and_ships_real_images),
        TEST(divergence_without_end_is_a_failed_job),
        TEST(a_learner_that_diverges_leaves_the_others_alone),
        TEST(orders_are_taken_away_step_by_step),
        TEST(bad_settings_are_refused_by_name),
        TEST(the_generator_refuses_sides_it_cannot_double_up_to),
        TEST(the_generator_backward_agrees_with_differences),
        TEST(held_out_architectures_build_for_every_image_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
