/* wire_unpack.c - protobuf messages to plain structs. Narrowing happens here, so lengths, counts and integers that
 * would not fit are refused here; everything else is judged by wire_check afterwards. */
#include "common/wire_int.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call)            \
    do {                     \
        int try_rc = (call); \
        if (try_rc < 0)      \
            return try_rc;   \
    } while (0)

static int copy_str(const char *what, char *out, size_t cap, const char *s, struct errbuf *e)
{
    size_t n = s ? strlen(s) : 0;
    if (n >= cap)
        return err_set(e, ERR_INPUT, "%s: longer than %zu bytes", what, cap - 1);
    memcpy(out, s ? s : "", n + 1);
    return 0;
}
#define COPY(field, s) copy_str(#s, field, sizeof(field), s, e)

static int dup_str(const char *what, char **out, const char *s, size_t max, struct errbuf *e)
{
    if (!s)
        return err_set(e, ERR_INPUT, "%s: missing", what);
    if (strlen(s) > max)
        return err_set(e, ERR_INPUT, "%s: longer than %zu bytes", what, max);
    *out = strdup(s);
    return *out ? 0 : err_set(e, ERR_NOMEM, "decoding a message");
}

static int count(const char *what, size_t n, int max, int *out, struct errbuf *e)
{
    if (n > (size_t)max)
        return err_set(e, ERR_INPUT, "%s: %zu of them, more than %d", what, n, max);
    *out = (int)n;
    return 0;
}

static int narrow(const char *what, uint32_t v, int *out, struct errbuf *e)
{
    if (v > INT_MAX)
        return err_set(e, ERR_INPUT, "%s: %u is out of range", what, v);
    *out = (int)v;
    return 0;
}

static struct lease_ref ref_of(const Didact__LeaseRef *r)
{
    return (struct lease_ref){ r->job, r->trial, r->attempt };
}

static int unpack_refs(const char *what, size_t n, Didact__LeaseRef **list, int *n_out, struct lease_ref **out,
                       struct errbuf *e)
{
    TRY(count(what, n, WIRE_MAX_LEASES, n_out, e));
    if (n == 0)
        return 0;
    *out = calloc(n, sizeof **out);
    if (!*out) {
        *n_out = 0;
        return err_set(e, ERR_NOMEM, "decoding a message");
    }
    for (size_t i = 0; i < n; i++)
        (*out)[i] = ref_of(list[i]);
    return 0;
}

static int unpack_hello(const Didact__WorkerHello *h, struct wire_msg *m, struct errbuf *e)
{
    TRY(COPY(m->hello.worker_id, h->worker_id));
    TRY(COPY(m->hello.name, h->name));
    TRY(COPY(m->hello.engine_version, h->engine_version));
    TRY(COPY(m->hello.device_class, h->device_class));
    TRY(COPY(m->hello.isa, h->isa));
    TRY(COPY(m->hello.host, h->host));
    m->hello.slots = h->slots;
    m->hello.mem_bytes = h->mem_bytes;
    m->hello.pid = h->pid;
    m->hello.device_bytes = h->device_bytes; /* absent: 0 */
    TRY(COPY(m->hello.device_name, h->device_name));
    return unpack_refs("holding", h->n_holding, h->holding, &m->hello.n_holding, &m->hello.holding, e);
}

static int unpack_welcome(const Didact__WorkerWelcome *w, struct wire_msg *m, struct errbuf *e)
{
    m->welcome.heartbeat_ms = w->heartbeat_ms;
    m->welcome.lease_ms = w->lease_ms;
    TRY(COPY(m->welcome.coordinator, w->coordinator));
    return unpack_refs("drop", w->n_drop, w->drop, &m->welcome.n_drop, &m->welcome.drop, e);
}

static int unpack_progress(const Didact__Progress *p, struct task_progress *o, struct errbuf *e)
{
    o->job = p->lease->job;
    o->trial = p->lease->trial;
    o->attempt = p->lease->attempt;
    o->done = p->done; /* absent optional numbers read as 0 */
    o->total = p->total;
    o->loss = p->loss;
    o->accuracy = p->accuracy;
    o->held_out = p->held_out;
    o->rate = p->rate;
    return COPY(o->checkpoint_blob, p->checkpoint_blob);
}

static int unpack_heartbeat(const Didact__Heartbeat *h, struct wire_msg *m, struct errbuf *e)
{
    int n = 0;
    TRY(unpack_refs("holding", h->n_holding, h->holding, &m->heartbeat.n_holding, &m->heartbeat.holding, e));
    TRY(count("progress", h->n_progress, WIRE_MAX_LEASES, &n, e));
    if (n == 0)
        return 0;
    m->heartbeat.progress = calloc((size_t)n, sizeof *m->heartbeat.progress);
    if (!m->heartbeat.progress)
        return err_set(e, ERR_NOMEM, "decoding a message");
    m->heartbeat.n_progress = n;
    for (int i = 0; i < n; i++)
        TRY(unpack_progress(h->progress[i], &m->heartbeat.progress[i], e));
    return 0;
}

static int unpack_score(const Didact__ScoreTask *s, struct score_task *t, struct errbuf *e)
{
    const Didact__Fidelity *f = s->fidelity;
    TRY(COPY(t->space, s->space));
    TRY(COPY(t->space_hash, s->space_hash));
    TRY(COPY(t->arch, s->arch));
    TRY(COPY(t->dataset, s->dataset));
    TRY(COPY(t->curriculum, s->curriculum));
    t->seed = s->seed;
    t->zero_cost = s->zero_cost; /* absent: 0 */
    t->untrained = s->untrained;
    TRY(narrow("latency_batch", s->latency_batch, &t->latency_batch, e));
    TRY(narrow("fidelity.steps", f->steps, &t->fidelity.steps, e));
    TRY(narrow("fidelity.inits", f->first_init ? f->more_inits : f->inits, &t->fidelity.inits, e));
    TRY(narrow("fidelity.first_init", f->first_init, &t->fidelity.first_init, e));
    TRY(narrow("fidelity.valid_images", f->valid_images, &t->fidelity.valid_images, e));
    TRY(count("fidelity.checkpoint", f->n_checkpoint, MAX_CHECKPOINTS, &t->fidelity.n_checkpoints, e));
    for (int i = 0; i < t->fidelity.n_checkpoints; i++)
        TRY(narrow("fidelity.checkpoint", f->checkpoint[i], &t->fidelity.checkpoint[i], e));
    TRY(count("fidelity.lr_scale", f->n_lr_scale, MAX_SCALES, &t->fidelity.n_lr_scales, e));
    for (int i = 0; i < t->fidelity.n_lr_scales; i++)
        t->fidelity.lr_scale[i] = f->lr_scale[i];
    TRY(narrow("fidelity.channels", f->channels, &t->fidelity.proxy.channels, e));
    TRY(narrow("fidelity.cells", f->cells, &t->fidelity.proxy.cells, e));
    TRY(narrow("fidelity.downsample", f->downsample, &t->fidelity.proxy.downsample, e));
    return 0;
}

static int unpack_train(const Didact__TrainTask *s, struct train_task *t, struct errbuf *e)
{
    TRY(COPY(t->space, s->space));
    TRY(COPY(t->space_hash, s->space_hash));
    TRY(COPY(t->arch, s->arch));
    TRY(COPY(t->dataset, s->dataset));
    TRY(narrow("batch", s->batch, &t->batch, e));
    TRY(narrow("shift", s->shift, &t->shift, e));
    TRY(narrow("channels", s->channels, &t->proxy.channels, e));
    TRY(narrow("cells", s->cells, &t->proxy.cells, e));
    t->epochs = s->epochs;
    t->lr = s->lr;
    t->momentum = s->momentum;
    t->weight_decay = s->weight_decay;
    t->flip = s->flip;
    t->seed = s->seed;
    t->keep_weights = s->keep_weights;
    t->no_test = s->has_no_test && s->no_test;
    return 0;
}

static int unpack_teach(const Didact__TeachTask *s, struct teach_task *t, struct errbuf *e)
{
    TRY(COPY(t->dataset, s->dataset));
    TRY(COPY(t->resume, s->resume));
    t->seed = s->seed;
    if (strlen(s->config_json) > JOB_TEXT_MAX)
        return err_set(e, ERR_INPUT, "teach: configuration longer than %d bytes", JOB_TEXT_MAX);
    return wire_teach_from_json(s->config_json, t, e);
}

static int unpack_lease(const Didact__Lease *l, struct wire_msg *m, struct errbuf *e)
{
    struct task *t = m->lease = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_NOMEM, "decoding a message");
    t->job = l->ref->job;
    t->trial = l->ref->trial;
    t->attempt = l->ref->attempt;
    t->timeout_s = l->timeout_s;
    if (l->device && device_class_from(l->device) < 0)
        return err_set(e, ERR_INPUT, "lease: device \"%.63s\" is unknown", l->device);
    t->device = l->device ? (enum device_class)device_class_from(l->device) : DEVICE_CPU;
    switch (l->task_case) {
    case DIDACT__LEASE__TASK_SCORE: t->kind = TASK_SCORE; return unpack_score(l->score, &t->score, e);
    case DIDACT__LEASE__TASK_TRAIN: t->kind = TASK_TRAIN; return unpack_train(l->train, &t->train, e);
    case DIDACT__LEASE__TASK_TEACH: t->kind = TASK_TEACH; return unpack_teach(l->teach, &t->teach, e);
    default: return err_set(e, ERR_INPUT, "lease: unknown kind of task");
    }
}

static int unpack_zero_cost(const Didact__Result *s, struct zero_cost_scores *z, struct errbuf *e)
{
    size_t n = 0;
    if (s->zero_cost_known & ~ZC_ALL)
        return err_set(e, ERR_INPUT, "result: zero_cost_known %#x has scores that are not known here", s->zero_cost_known);
    z->known = s->zero_cost_known;
    for (int i = 0; i < ZC_COUNT; i++)
        if (z->known >> i & 1 && n++ < s->n_zero_cost)
            z->value[i] = s->zero_cost[n - 1];
    return n == s->n_zero_cost ? 0 : err_set(e, ERR_INPUT, "result: %zu zero-cost scores but %zu values", n, s->n_zero_cost);
}

static int unpack_result(const Didact__Result *s, struct wire_msg *m, struct errbuf *e)
{
    struct trial_result *r = m->result.r = calloc(1, sizeof *r);
    if (!r)
        return err_set(e, ERR_NOMEM, "decoding a message");
    m->result.ref = ref_of(s->ref);
    if (s->state >= TRIAL_STATE_COUNT || s->reason >= FAIL_REASON_COUNT)
        return err_set(e, ERR_INPUT, "result: state %u or reason %u is unknown", s->state, s->reason);
    r->state = (enum trial_state)s->state;
    r->reason = (enum fail_reason)s->reason;
    TRY(COPY(r->detail, s->detail));
    r->score = s->score;
    r->score_se = s->score_se;
    TRY(count("init_score", s->n_init_score, MAX_INITS, &r->n_inits, e));
    for (int i = 0; i < r->n_inits; i++)
        r->init_score[i] = s->init_score[i];
    if (s->n_checkpoint != s->n_checkpoint_score)
        return err_set(e, ERR_INPUT, "result: %zu checkpoints but %zu scores", s->n_checkpoint, s->n_checkpoint_score);
    TRY(count("checkpoint", s->n_checkpoint, MAX_CHECKPOINTS, &r->n_checkpoints, e));
    for (int i = 0; i < r->n_checkpoints; i++) {
        TRY(narrow("checkpoint", s->checkpoint[i], &r->checkpoint[i], e));
        r->checkpoint_score[i] = s->checkpoint_score[i];
    }
    r->loss_sum = s->loss_sum;
    r->lr_scale = s->lr_scale;
    r->valid_score = s->valid_score;
    TRY(unpack_zero_cost(s, &r->zero_cost, e));
    r->params = s->params;
    r->macs = s->macs;
    TRY(narrow("meta_steps", s->meta_steps, &r->meta_steps, e));
    TRY(COPY(r->artifact, s->artifact));
    TRY(COPY(r->checkpoint_blob, s->checkpoint_blob));
    r->seconds = s->seconds;
    r->mem_bytes = s->mem_bytes;
    r->latency_ms = s->latency_ms; /* absent: 0 */
    return 0;
}

static int copy_data(const ProtobufCBinaryData *d, struct wire_msg *m, struct errbuf *e)
{
    m->blob.len = d->len;
    if (d->len == 0)
        return 0;
    m->blob.data = malloc(d->len);
    if (!m->blob.data)
        return err_set(e, ERR_NOMEM, "decoding a message");
    memcpy(m->blob.data, d->data, d->len);
    return 0;
}

static int unpack_chunk(const Didact__BlobChunk *c, struct wire_msg *m, struct errbuf *e)
{
    TRY(COPY(m->blob.hash, c->hash));
    m->blob.offset = c->offset;
    m->blob.total = c->total;
    return copy_data(&c->data, m, e);
}

static int unpack_put(const Didact__BlobPut *c, struct wire_msg *m, struct errbuf *e)
{
    TRY(COPY(m->blob.hash, c->hash));
    TRY(COPY(m->blob.name, c->name));
    TRY(COPY(m->blob.kind, c->kind));
    m->blob.offset = c->offset;
    m->blob.total = c->total;
    return copy_data(&c->data, m, e);
}

static int unpack_submit(const Didact__Submit *s, struct wire_msg *m, struct errbuf *e)
{
    int n = 0;
    TRY(dup_str("yaml", &m->submit.yaml, s->yaml, JOB_TEXT_MAX, e));
    TRY(COPY(m->submit.file, s->file));
    m->submit.dry_run = s->dry_run;
    TRY(count("set", s->n_set, WIRE_MAX_SET, &n, e));
    m->submit.set = calloc(s->n_set ? s->n_set : 1, sizeof(char *));
    if (!m->submit.set)
        return err_set(e, ERR_NOMEM, "decoding a message");
    for (; m->submit.n_set < n; m->submit.n_set++)
        TRY(dup_str("set", &m->submit.set[m->submit.n_set], s->set[m->submit.n_set], WIRE_MAX_SET_LEN, e));
    return 0;
}

static int unpack_reply(uint32_t code, const char *text, const char *json, struct wire_msg *m, struct errbuf *e)
{
    TRY(narrow("code", code, &m->reply.code, e));
    TRY(dup_str("text", &m->reply.text, text, WIRE_MAX_TEXT, e));
    return json ? dup_str("json", &m->reply.json, json, WIRE_MAX_JSON, e) : 0;
}

static int unpack_result_ack(const Didact__ResultAck *a, struct wire_msg *m, struct errbuf *e)
{
    if (a->outcome > ACK_STALE)
        return err_set(e, ERR_INPUT, "outcome: %u is unknown", a->outcome);
    m->result_ack.ref = ref_of(a->ref);
    m->result_ack.outcome = (enum ack_outcome)a->outcome;
    return 0;
}

static int unpack_client(const Didact__Envelope *env, struct wire_msg *m, struct errbuf *e)
{
    switch (env->body_case) {
    case DIDACT__ENVELOPE__BODY_SUBMIT: m->kind = WIRE_SUBMIT; return unpack_submit(env->submit, m, e);
    case DIDACT__ENVELOPE__BODY_BOOK_ADD:
        m->kind = WIRE_BOOK_ADD;
        m->book_add.first_row = env->book_add->first_row;
        m->book_add.check_only = env->book_add->check_only;
        m->book_add.remove = env->book_add->remove;
        return dup_str("csv", &m->book_add.csv, env->book_add->csv, WIRE_MAX_CSV, e);
    case DIDACT__ENVELOPE__BODY_JOB_ACTION:
        m->kind = WIRE_JOB_ACTION;
        TRY(COPY(m->job_action.job, env->job_action->job));
        TRY(COPY(m->job_action.action, env->job_action->action));
        return COPY(m->job_action.arg, env->job_action->arg);
    case DIDACT__ENVELOPE__BODY_PROPOSE:
        m->kind = WIRE_PROPOSE;
        TRY(COPY(m->propose.job, env->propose->job));
        return dup_str("json", &m->propose.json, env->propose->json, WIRE_MAX_PROPOSE, e);
    case DIDACT__ENVELOPE__BODY_QUERY:
        m->kind = WIRE_QUERY;
        return dup_str("path", &m->query.path, env->query->path, WIRE_MAX_PATH, e);
    case DIDACT__ENVELOPE__BODY_REPLY:
        m->kind = WIRE_REPLY;
        return unpack_reply(env->reply->code, env->reply->text, env->reply->json, m, e);
    case DIDACT__ENVELOPE__BODY_ERROR:
        m->kind = WIRE_ERROR;
        return unpack_reply(env->error->code, env->error->text, NULL, m, e);
    default: return err_set(e, ERR_INPUT, "unknown kind of message");
    }
}

static int unpack_blob(const Didact__Envelope *env, struct wire_msg *m, struct errbuf *e)
{
    switch (env->body_case) {
    case DIDACT__ENVELOPE__BODY_BLOB_GET:
        m->kind = WIRE_BLOB_GET;
        m->blob_get.offset = env->blob_get->offset;
        return COPY(m->blob_get.hash, env->blob_get->hash);
    case DIDACT__ENVELOPE__BODY_BLOB_CHUNK: m->kind = WIRE_BLOB_CHUNK; return unpack_chunk(env->blob_chunk, m, e);
    case DIDACT__ENVELOPE__BODY_BLOB_PUT: m->kind = WIRE_BLOB_PUT; return unpack_put(env->blob_put, m, e);
    case DIDACT__ENVELOPE__BODY_BLOB_PUT_ACK:
        m->kind = WIRE_BLOB_PUT_ACK;
        m->blob_put_ack.have = env->blob_put_ack->have;
        m->blob_put_ack.complete = env->blob_put_ack->complete;
        return COPY(m->blob_put_ack.hash, env->blob_put_ack->hash);
    default: return unpack_client(env, m, e);
    }
}

int wire_unpack_body(const Didact__Envelope *env, struct wire_msg *m, struct errbuf *e)
{
    switch (env->body_case) {
    case DIDACT__ENVELOPE__BODY_WORKER_HELLO: m->kind = WIRE_WORKER_HELLO; return unpack_hello(env->worker_hello, m, e);
    case DIDACT__ENVELOPE__BODY_WORKER_WELCOME:
        m->kind = WIRE_WORKER_WELCOME;
        return unpack_welcome(env->worker_welcome, m, e);
    case DIDACT__ENVELOPE__BODY_HEARTBEAT: m->kind = WIRE_HEARTBEAT; return unpack_heartbeat(env->heartbeat, m, e);
    case DIDACT__ENVELOPE__BODY_HEARTBEAT_ACK:
        m->kind = WIRE_HEARTBEAT_ACK;
        return unpack_refs("drop", env->heartbeat_ack->n_drop, env->heartbeat_ack->drop, &m->heartbeat_ack.n_drop,
                           &m->heartbeat_ack.drop, e);
    case DIDACT__ENVELOPE__BODY_WANT_WORK:
        m->kind = WIRE_WANT_WORK;
        m->want_work.n = env->want_work->n;
        return 0;
    case DIDACT__ENVELOPE__BODY_LEASE: m->kind = WIRE_LEASE; return unpack_lease(env->lease, m, e);
    case DIDACT__ENVELOPE__BODY_RESULT: m->kind = WIRE_RESULT; return unpack_result(env->result, m, e);
    case DIDACT__ENVELOPE__BODY_RESULT_ACK: m->kind = WIRE_RESULT_ACK; return unpack_result_ack(env->result_ack, m, e);
    case DIDACT__ENVELOPE__BODY_HAND_BACK:
        m->kind = WIRE_HAND_BACK;
        m->hand_back.ref = ref_of(env->hand_back->ref);
        m->hand_back.broke = env->hand_back->broke;
        return 0;
    case DIDACT__ENVELOPE__BODY_GOODBYE: m->kind = WIRE_GOODBYE; return 0;
    default: return unpack_blob(env, m, e);
    }
}
