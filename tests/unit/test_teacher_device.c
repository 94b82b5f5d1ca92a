/* test_teacher_device.c - a teacher whose learners and generator compute on a device, beside one on the CPU. The device is the GPU
 * backend's own source by an emulator (tests/support/emulated.h), with a memory as small as a test wants it. */
#include "common/space_file.h"
#include "tests/support/emulated.h"
#include "tests/support/learnable.h"
#include "worker/teacher_int.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the device: counts what it is asked for ---- */

enum { BLOCKS = 256 };
static const struct device *whole;
static struct device small;
static struct { void *at; uint64_t bytes; } block[BLOCKS];
static uint64_t room, taken, hidden;   /* hidden: of what is free, so much is not there after all */
static int      slabs_made, played;    /* allocations, recordings played */
static int      refused, drawn;        /* which allocation from now on is refused; batches drawn from the device's data */

static uint64_t free_bytes(void) { return room - taken; }
static void *take(uint64_t bytes)
{
    int i = 0;
    while (block[i].at)
        i++;
    assert_true(i < BLOCKS);
    if (bytes + hidden > room - taken || (refused > 0 && --refused == 0))
        return NULL;
    slabs_made++;
    taken += bytes;
    block[i].bytes = bytes;
    return block[i].at = whole->alloc(bytes);
}
static void release(void *p)
{
    int i = 0;
    while (block[i].at != p)
        i++;
    block[i].at = NULL;
    taken -= block[i].bytes;
    whole->release(p);
}
static void draw(void *q, int K, int n, const struct dev_data *from, const int *row, struct dev_rows x, struct dev_rows y)
{
    drawn += K;
    whole->draw(q, K, n, from, row, x, y);
}
static void play(void *q, void *recorded)
{
    played++;
    whole->play(q, recorded);
}
static int find_device(void **state)
{
    (void)state;
    if (!(whole = emulated_device()) || eng_init(NULL, NULL) < 0)
        return -1;
    small = *whole;
    small.free_bytes = free_bytes;
    small.alloc = take;
    small.release = release;
    small.play = play;
    small.draw = draw;
    return 0;
}

/* ---- the teacher ---- */

struct bench { struct desk desk; struct task task; const struct real_data *data; };

/* Two networks of which one is too large (max_params): equal learners in every meta-step. */
static const char one_network[] = "name: single\nslots:\n  - {name: body, op: conv, width: [4, 64], kernel: 3, stride: 2}\nhead: gap\n";

static void prepare(void **state, struct bench *b)
{
    struct tmp *t = *state;
    const char *data = tmp_path(t, "data.st");
    hash_str h;
    memset(b, 0, sizeof *b);
    desk_init(&b->desk, t, 2);
    learnable_write(data, h);
    desk_add(&b->desk, h, data);
    assert_int_equal(datacache_data(data, &b->data, NULL), 0);
    room = UINT64_C(1) << 29;
    taken = hidden = 0;
    slabs_made = played = 0;
    b->desk.env.device = &small;
    b->task.kind = TASK_TEACH;
    b->task.teach.seed = 21;
    memcpy(b->task.teach.dataset, h, sizeof h);
    b->task.teach.cfg = (struct teach_cfg){
        .kind = "gtn", .steps = 3, .batch = 4, .meta_steps = 3, .learners = 2, .inits = 1, .meta_batch = 8, .n_meta_at = 1, .meta_at = { 2 },
        .meta_weight = { 0.5 }, .lr = 0.05, .mu = 0.5, .inner = { .type = INNER_SGD }, .outer_lr = 0.01, .outer_beta1 = 0.9,
        .outer_beta2 = 0.99, .outer_eps = 1e-8, .outer_lr_end = 0.1, .outer_schedule = 1, .clip = 2, .z_dim = 4, .g_hidden = 12, .g_channels1 = 6,
        .g_channels2 = 4, .learn_labels = true, .n_mix = 1, .mix_space = { "chain" }, .mix_weight = { 1 }, .max_macs = 20000,
        .eval_every = 100, .checkpoint_every = 2 };
}

static void only_one_network(struct bench *b)
{
    const struct space *s;
    struct errbuf e = { 0 };
    if (space_file_register(one_network, strlen(one_network), "single.yaml", &s, &e) < 0)
        fail_msg("%s", e.text);
    b->task.teach.cfg.max_params = 200;
    snprintf(b->task.teach.cfg.mix_space[0], sizeof b->task.teach.cfg.mix_space[0], "%s", s->name);
}

static struct teacher *teacher_on(struct bench *b, const struct device *d)
{
    struct teacher *t;
    struct errbuf e = { 0 };
    if (teacher_new(&b->task.teach.cfg, b->task.teach.seed, b->data, 2, 0, d, 0, &t, &e) < 0)
        fail_msg("%s", e.text);
    return t;
}

static void step(struct teacher *t)
{
    struct errbuf e = { 0 };
    if (teacher_step(t, &e) < 0)
        fail_msg("%s", e.text);
}

static double distance(size_t n, const float *a, const float *b)
{
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        all += (double)b[i] * (double)b[i];
    }
    return sqrt(off / fmax(all, 1e-20));
}

/* Meta-step by meta-step from the same theta: losses, norms, and the gradient of all that is learned. */
static void agree(struct bench *b, int steps)
{
    struct teacher *cpu = teacher_on(b, NULL), *gpu = teacher_on(b, &small);
    for (int i = 0; i < steps; i++) {
        step(cpu);
        step(gpu);
        assert_true(fabs(gpu->meta_loss - cpu->meta_loss) < 1e-4 * cpu->meta_loss);
        assert_true(fabs(gpu->last_norm - cpu->last_norm) < 2e-3 * cpu->last_norm);
        for (int k = 0; k < cpu->n_learners; k++) {
            assert_int_equal(gpu->run[k].rc, cpu->run[k].rc);
            assert_true(cpu->run[k].rc < 0 || fabs(gpu->run[k].norm - cpu->run[k].norm) < 2e-3 * cpu->run[k].norm);
        }
        const double off = distance(cpu->n_theta, gpu->grad, cpu->grad);
        if (!(off < 5e-3))
            fail_msg("meta-step %d: the gradient is off by %.2g", i, off);
        memcpy(gpu->theta, cpu->theta, cpu->n_theta * sizeof *cpu->theta);
    }
    teacher_free(cpu);
    teacher_free(gpu);
}

static void a_device_teaches_as_the_cpu_does(void **state)
{
    struct bench b;
    for (int kind = 0; kind < 4; kind++) {
        prepare(state, &b);
        struct teach_cfg *c = &b.task.teach.cfg;
        snprintf(c->kind, sizeof c->kind, "%s", (const char *const[]){ "gtn", "distilled", "real", "gtn-shuffled" }[kind]);
        c->learn_labels = kind < 2;
        c->inner.label_smoothing = kind == 1 ? 0.1 : 0;
        c->inits = 1 + kind % 2;
        agree(&b, 2);
        assert_int_equal(taken, 0);
        datacache_release(b.data);
    }
}

/* Learners of one network are one slab, however they were drawn; it is recorded once and played again. */
static void equal_networks_are_one_slab(void **state)
{
    struct bench b;
    prepare(state, &b);
    only_one_network(&b);
    b.task.teach.cfg.inits = 2; /* of the one network, drawn twice */
    struct teacher *t = teacher_on(&b, &small);
    const int before = slabs_made;
    for (int i = 0; i < 4; i++)
        step(t);
    assert_int_equal(t->n_learners, 4);
    assert_int_equal(slabs_made - before, 1);
    assert_int_equal(played, 3 * 3); /* learners, generator there and back: not the first time */
    teacher_free(t);
    played = 0;
    agree(&b, 3);
    assert_true(played > 0);
    assert_int_equal(taken, 0);
    datacache_release(b.data);
}

/* With room for some of the learners at a time the rest comes later: same bits. */
static void what_does_not_fit_comes_in_a_later_slab(void **state)
{
    struct bench b;
    prepare(state, &b);
    only_one_network(&b);
    b.task.teach.cfg.learners = 1;
    b.task.teach.cfg.inits = 5;
    struct teacher *t = teacher_on(&b, &small), *tight[2];
    const uint64_t beside = taken;
    step(t);
    step(t);
    const uint64_t slab = taken - beside;
    for (int how = 0; how < 2; how++) { /* known before; found out */
        teacher_free(how ? tight[0] : NULL);
        if (how == 0)
            room = taken + beside + slab * 5 / 8; /* 0.8 of it for learners: two of five at a time, the last one beside a repeat */
        else {
            room = UINT64_C(1) << 29;
            hidden = room - taken - beside - slab * 5 / 8;
        }
        tight[how] = teacher_on(&b, &small);
        const int before = slabs_made;
        step(tight[how]);
        step(tight[how]);
        if (how == 0)
            assert_int_equal(slabs_made - before, 1);
        assert_memory_equal(tight[how]->theta, t->theta, t->n_theta * sizeof *t->theta);
    }
    teacher_free(tight[1]);
    teacher_free(t);
    datacache_release(b.data);
}

/* Networks that do not fit beside each other take turns. */
static void slabs_give_way_to_others(void **state)
{
    struct bench b;
    prepare(state, &b);
    b.task.teach.cfg.learners = 3;
    struct teacher *t = teacher_on(&b, &small);
    const uint64_t beside = taken;
    step(t);
    const uint64_t all = taken - beside;
    step(t);
    room = taken + beside + all;
    struct teacher *tight = teacher_on(&b, &small);
    step(tight);
    step(tight);
    assert_memory_equal(tight->theta, t->theta, t->n_theta * sizeof *t->theta);
    teacher_free(tight);
    teacher_free(t);
    assert_int_equal(taken, 0);
    datacache_release(b.data);
}

static void too_small_a_device_is_a_clear_error(void **state)
{
    struct bench b;
    struct trial_result r = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b);
    const struct { uint64_t room; const char *says; } row[] = { { 1000, "the images need" }, { 30000, "the generator needs" }, { 200000, "evaluation: " }, { 200000, "learner " } };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct teacher *t;
        room = row[i].room;
        b.task.teach.cfg.max_macs = 300000; /* and networks that need more than this device has */
        if (i < 3)
            assert_int_equal(task_teach(&b.task, &b.desk.env, &r, &e), -ERR_NOMEM);
        else {
            t = teacher_on(&b, &small);
            assert_int_equal(teacher_step(t, &e), -ERR_NOMEM);
            teacher_free(t);
        }
        if (!strstr(e.text, row[i].says) || !strstr(e.text, "MiB on the device"))
            fail_msg("%s", e.text);
        assert_int_equal(taken, 0);
    }
    datacache_release(b.data);
}

/* The whole task: checkpoints, resume, curriculum, and who made it. */
static void a_stopped_teacher_goes_on_with_the_same_bits(void **state)
{
    struct bench b;
    struct curriculum c;
    struct trial_result whole_run = { 0 }, part = { 0 };
    struct errbuf e = { 0 };
    prepare(state, &b);
    b.task.teach.cfg.warm_start = 1;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &whole_run, &e), 0);
    assert_int_equal(whole_run.state, TRIAL_SCORED);
    assert_int_equal(curriculum_load(&c, desk_path(&b.desk, whole_run.artifact), NULL), 0);
    assert_non_null(strstr(c.provenance, "\"engine\":\"" ENGINE_VERSION "/cuda\""));
    assert_non_null(strstr(c.provenance, whole->name()));
    curriculum_fini(&c);
    b.desk.polls_left = 3;
    assert_int_equal(task_teach(&b.task, &b.desk.env, &part, &e), -ERR_CANCELLED);
    memcpy(b.task.teach.resume, part.checkpoint_blob, sizeof part.checkpoint_blob);
    b.desk.polls_left = -1;
    memset(&part, 0, sizeof part);
    assert_int_equal(task_teach(&b.task, &b.desk.env, &part, &e), 0);
    assert_string_equal(part.artifact, whole_run.artifact);
    datacache_release(b.data);
}

/* Step sizes too large: the same learners fall out as on the CPU, and the others teach on. */
static void a_learner_that_diverges_is_left_out(void **state)
{
    struct bench b;
    prepare(state, &b);
    struct teach_cfg *c = &b.task.teach.cfg;
    c->learners = 4;
    c->lr = 40;
    c->inner = (struct inner_cfg){ .type = INNER_SGD, .weight_decay = 1e5 };
    struct teacher *t = teacher_on(&b, &small);
    for (int i = 0; i < 3; i++)
        step(t);
    assert_true(t->left_out > 0);
    assert_true(eng_finite(ENG_F32, t->n_theta, t->theta));
    for (int k = 0; k < t->n_learners; k++)
        if (t->run[k].rc < 0)
            assert_non_null(strstr(t->run[k].err.text, "finite"));
    teacher_free(t);
    datacache_release(b.data);
}

/* Real batches are drawn there from the dataset's own bytes, or come from the host where it is too large: same bits. */
static void the_dataset_stays_on_the_device(void **state)
{
    enum { STEPS = 2 };
    struct bench b;
    prepare(state, &b);
    drawn = 0;
    struct teacher *there = teacher_on(&b, &small);
    for (int i = 0; i < STEPS; i++)
        step(there);
    assert_int_equal(drawn, STEPS * there->n_learners * 2); /* at the last step and at meta_at */
    refused = 2; /* the images, then the dataset */
    struct teacher *host = teacher_on(&b, &small);
    assert_int_equal(refused, 0);
    for (int i = 0; i < STEPS; i++)
        step(host);
    assert_int_equal(drawn, STEPS * there->n_learners * 2);
    assert_memory_equal(there->theta, host->theta, host->n_theta * sizeof *host->theta);
    teacher_free(there);
    teacher_free(host);
    assert_int_equal(taken, 0);
    datacache_release(b.data);
}

/* And it goes before a learner that would fit without it does not. */
static void the_dataset_gives_way_to_a_learner(void **state)
{
    struct bench b;
    prepare(state, &b);
    only_one_network(&b);
    b.task.teach.cfg.learners = 1;
    b.task.teach.cfg.meta_batch = 100; /* four times the dataset and more */
    refused = 2;
    struct teacher *host = teacher_on(&b, &small);
    const uint64_t without = taken;
    step(host);
    const uint64_t slab = taken - without;
    teacher_free(host);
    struct teacher *t = teacher_on(&b, &small);
    const uint64_t with = taken, data = with - without;
    teacher_free(t);
    assert_true(data > 0);
    room = with + (uint64_t)((double)(slab - data / 2) / DEVICE_SHARE);
    drawn = 0;
    t = teacher_on(&b, &small);
    assert_int_equal(taken, with);
    step(t);
    assert_int_equal(drawn, 0);
    assert_int_equal(taken, without + slab);
    step(t);
    teacher_free(t);
    assert_int_equal(taken, 0);
    datacache_release(b.data);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, tmp_setup, tmp_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_device_teaches_as_the_cpu_does),
        TEST(equal_networks_are_one_slab),
        TEST(what_does_not_fit_comes_in_a_later_slab),
        TEST(slabs_give_way_to_others),
        TEST(too_small_a_device_is_a_clear_error),
        TEST(a_stopped_teacher_goes_on_with_the_same_bits),
        TEST(a_learner_that_diverges_is_left_out),
        TEST(the_dataset_stays_on_the_device),
        TEST(the_dataset_gives_way_to_a_learner),
    };
    return cmocka_run_group_tests(tests, find_device, NULL);
}
