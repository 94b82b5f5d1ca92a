/* The wire: every kind there and back; everything else refused with a message; damage never crashes. */
#include "common/blob.h"
#include "common/rng.h"
#include "common/wire.h"
#include "didact.pb-c.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define H1 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define H2 "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"

static struct lease_ref     refs[3] = { { 1, 0, 1 }, { 2, 70, 2 }, { 3, 1u << 31, 3 } };
static struct task_progress progress[2] = {
    { .job = 1, .trial = 4, .attempt = 1, .done = 3, .total = 10, .loss = 0.5, .accuracy = 0.7, .held_out = 0.6, .rate = 2,
      .checkpoint_blob = H1 },
    { .job = 1, .trial = 5, .attempt = 2, .done = 1, .total = 10 },
};
static struct task         tasks[4];
static struct trial_result scored, failed;
static uint8_t             bytes[1000];
static char                yaml[] = "kind: search\nname: \xc3\xa9t\xc3\xa9\n", text[] = "fine\n", json[] = "{\"a\":1}", path[] = "jobs?limit=2", csv[] = "space,arch\nchain,x\n";
static char                set1[] = "budget.trials=3", set2[] = "seed=4";
static char               *set[2] = { set1, set2 };

#define N_SAMPLES 29
static struct wire_msg sample[N_SAMPLES];

static void fill_tasks(void)
{
    tasks[0] = (struct task){ .job = 4, .trial = 9, .attempt = 1, .timeout_s = 60, .kind = TASK_SCORE };
    tasks[0].score = (struct score_task){ .space = "chain", .space_hash = H2, .arch = "c16k3-gap", .dataset = H1, .curriculum = H2, .seed = ~0ull, .zero_cost = 1u << ZC_SYNFLOW | 1u << ZC_SNIP,
                                           .latency_batch = 16, .untrained = true };
    tasks[0].score.fidelity = (struct fidelity){ .steps = 32, .inits = 2, .valid_images = 2000, .n_checkpoints = 2,
                                                 .checkpoint = { 8, 16 }, .n_lr_scales = 2, .lr_scale = { 1, 0.5 },
                                                 .proxy = { 16, 5, 2 } };
    tasks[1] = (struct task){ .job = 4, .trial = 10, .attempt = 3, .timeout_s = 0, .kind = TASK_TRAIN };
    tasks[1].train = (struct train_task){ .space = "chain", .space_hash = H1, .arch = "x", .dataset = H1, .epochs = 1.5, .batch = 64, .lr = 0.1,
                                          .momentum = 0.9, .weight_decay = 5e-4, .flip = true, .shift = 2, .seed = 11,
                                          .keep_weights = true, .no_test = true, .proxy = { 16, 5, 0 } };
    struct job_spec *s = calloc(1, sizeof *s);
    job_defaults(s, JOB_TEACH);
    tasks[2] = (struct task){ .job = 5, .trial = 0, .attempt = 1, .timeout_s = 3600, .kind = TASK_TEACH };
    tasks[2].teach = (struct teach_task){ .dataset = H1, .resume = H2, .cfg = s->teach, .seed = 12 };
    tasks[2].teach.cfg.meta_steps = 77;
    tasks[3] = tasks[0];
    tasks[3].device = DEVICE_CUDA;
    tasks[3].score.fidelity.first_init = 4;
    tasks[3].score.fidelity.inits = 60; /* as many as there may be */
    tasks[2].teach.cfg.outer_lr = 0.0123456789012345;
    free(s);
}

static int setup(void **state)
{
    (void)state;
    int n = 0;
    fill_tasks();
    scored = (struct trial_result){ .state = TRIAL_SCORED, .score = 0.8125, .score_se = 0.01, .n_inits = 2,
                                    .init_score = { 0.8, 0.825 }, .n_checkpoints = 1, .checkpoint = { 8 },
                                    .checkpoint_score = { 0.5 }, .loss_sum = 12.25, .lr_scale = 1, .valid_score = 0.7,
                                    .params = 12345, .macs = 1ull << 40,
                                    .zero_cost = { 1u << ZC_NASWOT | 1u << ZC_SNIP, { [ZC_NASWOT] = -3.5, [ZC_SNIP] = 1e300 } }, .meta_steps = 7, .artifact = H1,
                                    .checkpoint_blob = H2, .seconds = 1.5, .mem_bytes = 1 << 20, .latency_ms = 0.375 };
    failed = (struct trial_result){ .state = TRIAL_FAILED, .reason = FAIL_NAN, .detail = "step 3: loss is not finite" };
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    struct wire_msg all[] = {
        { .kind = WIRE_WORKER_HELLO, .seq = 1, .hello = { "w-1", "box", "1", "cpu", "avx2", "host", 4, 1 << 30, 77, 0, "", 3, refs } },
        { .kind = WIRE_WORKER_HELLO, .seq = 2, .hello = { "w-1", "box", "1", "cpu", "avx2", "host", 1, 0, 0, 0, "", 0, NULL } },
        { .kind = WIRE_WORKER_HELLO, .seq = 3, .hello = { "w-2", "box", "1", "cuda", "avx2", "host", 1, 0, 0, 80ull << 30, "NVIDIA H100 80GB HBM3", 0, NULL } },
        { .kind = WIRE_WORKER_WELCOME, .seq = 1, .welcome = { 1000, 30000, 2, refs, "0.1.0" } },
        { .kind = WIRE_HEARTBEAT, .seq = 3, .heartbeat = { 3, refs, 2, progress } },
        { .kind = WIRE_HEARTBEAT, .seq = 3 },
        { .kind = WIRE_HEARTBEAT_ACK, .seq = 3, .heartbeat_ack = { 1, refs } },
        { .kind = WIRE_WANT_WORK, .seq = 0, .want_work = { 2 } },
        { .kind = WIRE_LEASE, .lease = &tasks[0] },
        { .kind = WIRE_LEASE, .lease = &tasks[1] },
        { .kind = WIRE_LEASE, .lease = &tasks[2] },
        { .kind = WIRE_RESULT, .seq = 9, .result = { { 4, 9, 1 }, &scored } },
        { .kind = WIRE_RESULT, .seq = 10, .result = { { 4, 9, 1 }, &failed } },
        { .kind = WIRE_RESULT_ACK, .seq = 10, .result_ack = { { 4, 9, 1 }, ACK_STALE } },
        { .kind = WIRE_HAND_BACK, .hand_back = { { 4, 9, 1 }, false } },
        { .kind = WIRE_GOODBYE, .seq = 1ull << 63 },
        { .kind = WIRE_BLOB_GET, .seq = 5, .blob_get = { H1, 262144 } },
        { .kind = WIRE_BLOB_CHUNK, .seq = 5, .blob = { H1, 10, 1010, bytes, sizeof bytes, "", "" } },
        { .kind = WIRE_BLOB_PUT, .seq = 6, .blob = { H1, 0, 1000, bytes, sizeof bytes, "fashion", "dataset" } },
        { .kind = WIRE_BLOB_PUT_ACK, .seq = 6, .blob_put_ack = { H1, 1000, true } },
        { .kind = WIRE_SUBMIT, .seq = 7, .submit = { yaml, "job.yaml", 2, set, true } },
        { .kind = WIRE_JOB_ACTION, .seq = 8, .job_action = { "12", "extend", "budget.trials=300\nbudget.time=2h" } },
        { .kind = WIRE_BOOK_ADD, .seq = 8, .book_add = { csv, 4001, true, true } },
        { .kind = WIRE_PROPOSE, .seq = 8, .propose = { "12", json } },
        { .kind = WIRE_QUERY, .seq = 8, .query = { path } },
        { .kind = WIRE_REPLY, .seq = 8, .reply = { 0, text, json } },
        { .kind = WIRE_ERROR, .seq = 8, .reply = { ERR_STATE, text, NULL } },
        { .kind = WIRE_LEASE, .lease = &tasks[3] },
        { .kind = WIRE_HAND_BACK, .hand_back = { { 4, 9, 2 }, true } },
    };
    for (; n < (int)(sizeof all / sizeof all[0]); n++)
        sample[n] = all[n];
    assert_int_equal(n, N_SAMPLES);
    return 0;
}

static uint8_t *encode(const struct wire_msg *m, size_t *len)
{
    struct errbuf e = { 0 };
    uint8_t      *p = NULL;
    if (wire_encode(m, &p, len, &e) < 0)
        fail_msg("kind %d: %s", (int)m->kind, e.text);
    return p;
}

static void same_refs(const struct lease_ref *a, const struct lease_ref *b, int n)
{
    for (int i = 0; i < n; i++)
        assert_true(a[i].job == b[i].job && a[i].trial == b[i].trial && a[i].attempt == b[i].attempt);
}

/* The content that a byte comparison of the two encodings could hide: where pointers and unions are involved. */
static void same_content(const struct wire_msg *a, const struct wire_msg *b)
{
    switch (a->kind) {
    case WIRE_WORKER_HELLO:
        assert_string_equal(a->hello.worker_id, b->hello.worker_id);
        assert_string_equal(a->hello.host, b->hello.host);
        assert_string_equal(a->hello.device_name, b->hello.device_name);
        assert_true(a->hello.device_bytes == b->hello.device_bytes);
        assert_int_equal(a->hello.slots, b->hello.slots);
        assert_int_equal(a->hello.n_holding, b->hello.n_holding);
        same_refs(a->hello.holding, b->hello.holding, a->hello.n_holding);
        break;
    case WIRE_HEARTBEAT:
        assert_int_equal(a->heartbeat.n_progress, b->heartbeat.n_progress);
        for (int i = 0; i < a->heartbeat.n_progress; i++)
            assert_memory_equal(&a->heartbeat.progress[i], &b->heartbeat.progress[i], sizeof progress[0]);
        same_refs(a->heartbeat.holding, b->heartbeat.holding, a->heartbeat.n_holding);
        break;
    case WIRE_LEASE: assert_memory_equal(a->lease, b->lease, sizeof *a->lease); break;
    case WIRE_RESULT: assert_memory_equal(a->result.r, b->result.r, sizeof *a->result.r); break;
    case WIRE_BLOB_CHUNK:
    case WIRE_BLOB_PUT:
        assert_int_equal(a->blob.len, b->blob.len);
        assert_memory_equal(a->blob.data, b->blob.data, a->blob.len);
        assert_string_equal(a->blob.name, b->blob.name);
        assert_int_equal(a->blob.offset, b->blob.offset);
        break;
    case WIRE_SUBMIT:
        assert_string_equal(a->submit.yaml, b->submit.yaml);
        assert_int_equal(a->submit.n_set, b->submit.n_set);
        assert_string_equal(a->submit.set[1], b->submit.set[1]);
        assert_true(b->submit.dry_run);
        break;
    case WIRE_BOOK_ADD:
        assert_string_equal(a->book_add.csv, b->book_add.csv);
        assert_true(b->book_add.first_row == 4001 && b->book_add.check_only && b->book_add.remove);
        break;
    case WIRE_PROPOSE:
        assert_string_equal(a->propose.job, b->propose.job);
        assert_string_equal(a->propose.json, b->propose.json);
        break;
    case WIRE_REPLY: assert_string_equal(a->reply.json, b->reply.json); break;
    default: break;
    }
}

static void every_kind_survives_the_round_trip(void **state)
{
    (void)state;
    bool seen[WIRE_KIND_COUNT] = { false };
    for (int i = 0; i < N_SAMPLES; i++) {
        struct errbuf   e = { 0 };
        struct wire_msg back;
        size_t          n = 0, n2 = 0;
        uint8_t        *p = encode(&sample[i], &n);
        if (wire_decode(p, n, &back, &e) < 0)
            fail_msg("kind %d: %s", (int)sample[i].kind, e.text);
        assert_int_equal(back.kind, sample[i].kind);
        assert_int_equal(back.seq, sample[i].seq);
        same_content(&sample[i], &back);
        uint8_t *again = encode(&back, &n2);
        assert_int_equal(n, n2);
        assert_memory_equal(p, again, n);
        seen[back.kind] = true;
        wire_msg_fini(&back);
        free(p);
        free(again);
    }
    for (int k = WIRE_NONE + 1; k < WIRE_KIND_COUNT; k++)
        assert_true(seen[k]);
}

static void refused(const void *p, size_t n, int want, const char *says)
{
    struct errbuf   e = { 0 };
    struct wire_msg m;
    int             rc = wire_decode(p, n, &m, &e);
    if (rc != want || !strstr(e.text, says))
        fail_msg("got %s \"%s\", wanted %s \"%s\"", err_name(rc), e.text, err_name(want), says);
    assert_int_equal(m.kind, WIRE_NONE);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) {
        size_t   n = 0;
        uint8_t *p = encode(&sample[i], &n);
        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *part = malloc(cut ? cut : 1); /* its own block: a read past the end shows under ASan */
            memcpy(part, p, cut);
            refused(part, cut, -ERR_INPUT, "");
            free(part);
        }
        free(p);
    }
}

static void a_message_of_another_version_is_refused_and_its_number_kept(void **state)
{
    (void)state;
    Didact__Envelope env = DIDACT__ENVELOPE__INIT;
    Didact__Goodbye  bye = DIDACT__GOODBYE__INIT;
    uint8_t          buf[64];
    struct wire_msg  m;
    struct errbuf    e = { 0 };
    env.version = WIRE_VERSION + 1;
    env.seq = 4711;
    env.body_case = DIDACT__ENVELOPE__BODY_GOODBYE;
    env.goodbye = &bye;
    size_t n = didact__envelope__pack(&env, buf);
    assert_int_equal(wire_decode(buf, n, &m, &e), -ERR_VERSION);
    assert_int_equal(m.seq, 4711);
    assert_non_null(strstr(e.text, "version 2"));
}

static void unknown_missing_and_double_bodies_are_refused(void **state)
{
    (void)state;
    static const uint8_t none[] = { 0x08, 1, 0x10, 5 };
    static const uint8_t unknown[] = { 0x08, 1, 0x10, 5, 0xba, 0x03, 0 }; /* field 55: of the bodies' range, not known */
    static const uint8_t two[] = { 0x08, 1, 0x10, 5, 0x9a, 0x01, 0, 0x9a, 0x01, 0 };
    static const uint8_t later[] = { 0x08, 1, 0x10, 5, 0x9a, 0x01, 0, 0xf8, 0x07, 3 }; /* a newer envelope field: ignored */
    struct wire_msg      m;
    struct errbuf        e = { 0 };
    refused(none, sizeof none, -ERR_INPUT, "0 bodies");
    refused(unknown, sizeof unknown, -ERR_INPUT, "unknown kind");
    refused(two, sizeof two, -ERR_INPUT, "2 bodies");
    assert_int_equal(wire_decode(later, sizeof later, &m, &e), 0);
    assert_int_equal(m.kind, WIRE_GOODBYE);
    wire_msg_fini(&m);
    assert_int_equal(wire_decode(unknown, sizeof unknown, &m, &e), -ERR_INPUT);
    assert_int_equal(m.seq, 5);
}

static void an_oversized_message_is_refused_unread(void **state)
{
    (void)state;
    uint8_t *big = calloc(1, WIRE_MAX_BYTES + 1);
    refused(big, WIRE_MAX_BYTES + 1, -ERR_INPUT, "more than");
    free(big);
    /* Small on the wire, large in memory: empty strings, two bytes each. */
    size_t   n = 3u << 20, at = 0;
    uint8_t *bomb = malloc(n + 32);
    const uint8_t head[] = { 0x08, 1, 0x10, 5, 0x92, 0x03 };
    memcpy(bomb, head, sizeof head);
    at = sizeof head;
    for (size_t v = n; at < n; v >>= 7) {
        bomb[at++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        if (v <= 0x7f)
            break;
    }
    size_t body = at;
    bomb[at++] = 0x0a; /* yaml "" */
    bomb[at++] = 0;
    while (at < body + n) {
        bomb[at++] = 0x1a;
        bomb[at++] = 0;
    }
    refused(bomb, body + n, -ERR_INPUT, "");
    free(bomb);
}

/* Everything that the encoder refuses, one change at a time. */
static void encode_refuses(const struct wire_msg *m, const char *says)
{
    struct errbuf e = { 0 };
    uint8_t      *p = NULL;
    size_t        n = 0;
    int           rc = wire_encode(m, &p, &n, &e);
    if (rc != -ERR_INPUT || !strstr(e.text, says))
        fail_msg("got %s \"%s\", wanted \"%s\"", err_name(rc), e.text, says);
    assert_null(p);
}

static void the_encoder_refuses_what_the_wire_does(void **state)
{
    (void)state;
    struct wire_msg     m = sample[0];
    struct trial_result r = scored;
    struct task         t = tasks[0];
    memset(m.hello.name, 'x', sizeof m.hello.name);
    encode_refuses(&m, "name: longer");
    m = sample[0];
    memcpy(m.hello.name, "a\nb", 4);
    encode_refuses(&m, "printable");
    m = sample[0];
    m.hello.slots = 0;
    encode_refuses(&m, "slots");
    struct wire_msg res = { .kind = WIRE_RESULT, .result = { { 1, 1, 1 }, &r } };
    r.score = NAN;
    encode_refuses(&res, "score: not a finite");
    r = scored;
    r.state = TRIAL_RUNNING;
    encode_refuses(&res, "neither scored");
    r = scored;
    r.reason = FAIL_OOM;
    encode_refuses(&res, "reason");
    r = scored;
    r.n_inits = MAX_INITS + 1;
    encode_refuses(&res, "n_inits");
    struct wire_msg lease = { .kind = WIRE_LEASE, .lease = &t };
    memcpy(t.score.dataset, "../../etc/passwd", 17);
    encode_refuses(&lease, "not the hash");
    t = tasks[0];
    t.kind = TASK_KIND_COUNT;
    encode_refuses(&lease, "unknown kind of task");
    t = tasks[0];
    t.device = DEVICE_ANY; /* which one is decided before it is sent */
    encode_refuses(&lease, "no device of a worker");
    m = sample[17];
    m.blob.total = 500;
    encode_refuses(&m, "inside its blob");
    m.blob.total = m.blob.offset = UINT64_MAX;
    encode_refuses(&m, "inside its blob");
    m = (struct wire_msg){ .kind = WIRE_KIND_COUNT };
    encode_refuses(&m, "unknown kind");
}

/* Packed by protobuf directly, so that our own encoder cannot protect the decoder. */
static void decode_refuses(Didact__Envelope *env, const char *says)
{
    uint8_t *buf = malloc(didact__envelope__get_packed_size(env));
    size_t   n = didact__envelope__pack(env, buf);
    refused(buf, n, -ERR_INPUT, says);
    free(buf);
}

static void the_decoder_refuses_results_with_bad_numbers(void **state)
{
    (void)state;
    double            lots[MAX_INITS + 1] = { 0 };
    Didact__LeaseRef  ref = DIDACT__LEASE_REF__INIT;
    Didact__Result    r = DIDACT__RESULT__INIT;
    Didact__Envelope  env = DIDACT__ENVELOPE__INIT;
    char              longer[300];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    ref.job = ref.attempt = 1;
    r.ref = &ref;
    r.state = TRIAL_SCORED;
    env.version = WIRE_VERSION;
    env.body_case = DIDACT__ENVELOPE__BODY_RESULT;
    env.result = &r;
    r.score = INFINITY;
    decode_refuses(&env, "score");
    r.score = 0;
    r.loss_sum = NAN;
    decode_refuses(&env, "loss_sum");
    r.loss_sum = 0;
    r.state = 99;
    decode_refuses(&env, "state");
    r.state = TRIAL_WAITING;
    decode_refuses(&env, "state");
    r.state = TRIAL_FAILED;
    r.reason = FAIL_REASON_COUNT;
    decode_refuses(&env, "reason");
    r.reason = FAIL_NAN;
    r.detail = longer;
    decode_refuses(&env, "detail");
    r.detail = (char *)"\xff\xfe";
    decode_refuses(&env, "UTF-8");
    r.detail = NULL;
    r.artifact = (char *)"not-a-hash";
    decode_refuses(&env, "artifact");
    r.artifact = NULL;
    r.n_init_score = MAX_INITS + 1;
    r.init_score = lots;
    decode_refuses(&env, "init_score");
    r.n_init_score = 0;
    uint32_t one = 1;
    r.n_checkpoint = 1;
    r.checkpoint = &one;
    decode_refuses(&env, "checkpoint");
    r.n_checkpoint = 0;
    ref.attempt = 0;
    decode_refuses(&env, "lease");
}

static void the_decoder_refuses_leases_and_answers_out_of_range(void **state)
{
    (void)state;
    Didact__LeaseRef  ref = DIDACT__LEASE_REF__INIT;
    Didact__Lease     l = DIDACT__LEASE__INIT;
    Didact__TrainTask t = DIDACT__TRAIN_TASK__INIT;
    Didact__TeachTask teach = DIDACT__TEACH_TASK__INIT;
    Didact__Envelope  env = DIDACT__ENVELOPE__INIT;
    ref.job = ref.attempt = 1;
    l.ref = &ref;
    l.task_case = DIDACT__LEASE__TASK_TRAIN;
    l.train = &t;
    t.space = (char *)"chain";
    t.arch = (char *)"x";
    t.dataset = (char *)H1;
    t.batch = 1;
    env.version = WIRE_VERSION;
    env.body_case = DIDACT__ENVELOPE__BODY_LEASE;
    env.lease = &l;
    t.lr = -INFINITY;
    decode_refuses(&env, "lr");
    t.lr = 0.1;
    t.batch = UINT32_MAX;
    decode_refuses(&env, "batch");
    t.batch = 0;
    decode_refuses(&env, "batch");
    t.batch = 1;
    l.timeout_s = NAN;
    decode_refuses(&env, "timeout_s");
    l.timeout_s = 0;
    l.device = (char *)"abacus";
    decode_refuses(&env, "device \"abacus\" is unknown");
    l.device = NULL;
    l.task_case = DIDACT__LEASE__TASK__NOT_SET;
    decode_refuses(&env, "kind of task");
    l.task_case = DIDACT__LEASE__TASK_TEACH;
    l.teach = &teach;
    teach.dataset = (char *)H1;
    static const char *const bad[] = { "", "[1]", "{\"nonsense\": 1}", "{\"meta_steps\": \"many\"}", "{\"a\":1,\"a\":2}" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        teach.config_json = (char *)bad[i];
        decode_refuses(&env, "");
    }
    Didact__ResultAck ack = DIDACT__RESULT_ACK__INIT;
    ack.ref = &ref;
    ack.outcome = 3;
    env.body_case = DIDACT__ENVELOPE__BODY_RESULT_ACK;
    env.result_ack = &ack;
    decode_refuses(&env, "outcome");
    Didact__Error err = DIDACT__ERROR__INIT;
    err.text = (char *)"x";
    err.code = ERR_COUNT;
    env.body_case = DIDACT__ENVELOPE__BODY_ERROR;
    env.error = &err;
    decode_refuses(&env, "code");
}

static void random_damage_never_crashes_and_never_passes_unchecked(void **state)
{
    (void)state;
    struct rng r;
    int        accepted = 0;
    rng_init(&r, 20, RNG_TEST, 0);
    for (int round = 0; round < 6000; round++) {
        struct errbuf   e = { 0 };
        struct wire_msg m;
        size_t          n = 0;
        uint8_t        *p = encode(&sample[rng_below(&r, N_SAMPLES)], &n);
        uint32_t        hits = 1 + rng_below(&r, 4);
        for (uint32_t h = 0; h < hits; h++)
            p[rng_below(&r, (uint32_t)n)] = (uint8_t)rng_u32(&r);
        if (rng_below(&r, 4) == 0)
            n = rng_below(&r, (uint32_t)n + 1);
        if (wire_decode(p, n, &m, &e) == 0) {
            size_t n2 = 0; /* what is accepted is a valid message: our own encoder takes it */
            free(encode(&m, &n2));
            accepted++;
            wire_msg_fini(&m);
        } else if (!e.text[0]) {
            fail_msg("round %d: refused without a word", round);
        }
        free(p);
    }
    assert_true(accepted > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_survives_the_round_trip),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(a_message_of_another_version_is_refused_and_its_number_kept),
        cmocka_unit_test(unknown_missing_and_double_bodies_are_refused),
        cmocka_unit_test(an_oversized_message_is_refused_unread),
        cmocka_unit_test(the_encoder_refuses_what_the_wire_does),
        cmocka_unit_test(the_decoder_refuses_results_with_bad_numbers),
        cmocka_unit_test(the_decoder_refuses_leases_and_answers_out_of_range),
        cmocka_unit_test(random_damage_never_crashes_and_never_passes_unchecked),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
