/* wire_pack.c - plain structs to protobuf messages. The input has passed wire_check; strings and bytes are borrowed
 * from it, message structs live in the wire_pack until it ends. */
#include "common/wire_int.h"

#include <stdlib.h>
#include <string.h>

static void *take(struct wire_pack *p, size_t n, size_t size)
{
    static const size_t n_blocks = sizeof((struct wire_pack *)0)->block / sizeof(void *);
    void *v = (size_t)p->n < n_blocks ? calloc(n ? n : 1, size) : NULL;
    if (v)
        p->block[p->n++] = v;
    else
        p->failed = true;
    return v;
}

void wire_pack_fini(struct wire_pack *p)
{
    while (p->n > 0)
        free(p->block[--p->n]);
}

/* A message struct of the given generated type, with its descriptor set. NULL when memory is out. */
#define MAKE(p, Type, prefix)                              \
    ({                                                     \
        Type *made = take((p), 1, sizeof(Type));           \
        if (made)                                          \
            prefix##__init(made);                          \
        made;                                              \
    })
#define MAKE_OR_FAIL(p, var, Type, prefix) \
    Type *var = MAKE(p, Type, prefix);     \
    if (!var)                              \
    return

#define STR(s) ((char *)(s)) /* protobuf-c has no const; packing only reads */

static void fill_ref(Didact__LeaseRef *out, struct lease_ref r)
{
    didact__lease_ref__init(out);
    out->job = r.job;
    out->trial = r.trial;
    out->attempt = r.attempt;
}

static Didact__LeaseRef *pack_ref(struct wire_pack *p, struct lease_ref r)
{
    Didact__LeaseRef *out = take(p, 1, sizeof *out);
    if (out)
        fill_ref(out, r);
    return out;
}

static Didact__LeaseRef **pack_refs(struct wire_pack *p, const struct lease_ref *r, int n)
{
    if (n == 0)
        return NULL;
    Didact__LeaseRef  *all = take(p, (size_t)n, sizeof *all);
    Didact__LeaseRef **list = take(p, (size_t)n, sizeof(Didact__LeaseRef *));
    for (int i = 0; all && list && i < n; i++) {
        fill_ref(&all[i], r[i]);
        list[i] = &all[i];
    }
    return list;
}

static void pack_hello(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    MAKE_OR_FAIL(p, h, Didact__WorkerHello, didact__worker_hello);
    h->worker_id = STR(m->hello.worker_id);
    h->name = STR(m->hello.name);
    h->engine_version = STR(m->hello.engine_version);
    h->device_class = STR(m->hello.device_class);
    h->isa = STR(m->hello.isa);
    h->host = STR(m->hello.host);
    h->slots = m->hello.slots;
    h->mem_bytes = m->hello.mem_bytes;
    h->pid = m->hello.pid;
    h->device_name = m->hello.device_name[0] ? STR(m->hello.device_name) : NULL;
    h->has_device_bytes = m->hello.device_bytes > 0;
    h->device_bytes = m->hello.device_bytes;
    h->n_holding = (size_t)m->hello.n_holding;
    h->holding = pack_refs(p, m->hello.holding, m->hello.n_holding);
    env->worker_hello = h;
}

static void pack_welcome(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    MAKE_OR_FAIL(p, w, Didact__WorkerWelcome, didact__worker_welcome);
    w->heartbeat_ms = m->welcome.heartbeat_ms;
    w->lease_ms = m->welcome.lease_ms;
    w->n_drop = (size_t)m->welcome.n_drop;
    w->drop = pack_refs(p, m->welcome.drop, m->welcome.n_drop);
    w->coordinator = STR(m->welcome.coordinator);
    env->worker_welcome = w;
}

static void fill_progress(Didact__Progress *o, Didact__LeaseRef *ref, const struct task_progress *t)
{
    didact__progress__init(o);
    fill_ref(ref, (struct lease_ref){ t->job, t->trial, t->attempt });
    o->lease = ref;
    o->has_done = o->has_total = o->has_loss = o->has_accuracy = o->has_held_out = o->has_rate = 1;
    o->done = t->done;
    o->total = t->total;
    o->loss = t->loss;
    o->accuracy = t->accuracy;
    o->held_out = t->held_out;
    o->rate = t->rate;
    o->checkpoint_blob = t->checkpoint_blob[0] ? STR(t->checkpoint_blob) : NULL;
}

static void pack_heartbeat(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    int n = m->heartbeat.n_progress;
    MAKE_OR_FAIL(p, h, Didact__Heartbeat, didact__heartbeat);
    h->n_holding = (size_t)m->heartbeat.n_holding;
    h->holding = pack_refs(p, m->heartbeat.holding, m->heartbeat.n_holding);
    env->heartbeat = h;
    if (n == 0)
        return;
    Didact__Progress  *all = take(p, (size_t)n, sizeof *all);
    Didact__LeaseRef  *ref = take(p, (size_t)n, sizeof *ref);
    Didact__Progress **list = take(p, (size_t)n, sizeof(Didact__Progress *));
    if (!all || !ref || !list)
        return;
    for (int i = 0; i < n; i++) {
        fill_progress(&all[i], &ref[i], &m->heartbeat.progress[i]);
        list[i] = &all[i];
    }
    h->n_progress = (size_t)n;
    h->progress = list;
}

static Didact__Fidelity *pack_fidelity(struct wire_pack *p, const struct fidelity *f)
{
    Didact__Fidelity *o = MAKE(p, Didact__Fidelity, didact__fidelity);
    uint32_t         *at = take(p, MAX_CHECKPOINTS, sizeof *at);
    if (!o || !at)
        return NULL;
    for (int i = 0; i < f->n_checkpoints; i++)
        at[i] = (uint32_t)f->checkpoint[i];
    o->steps = (uint32_t)f->steps;
    o->inits = f->first_init ? 0 : (uint32_t)f->inits;
    if ((o->has_first_init = o->has_more_inits = f->first_init > 0)) {
        o->first_init = (uint32_t)f->first_init;
        o->more_inits = (uint32_t)f->inits;
    }
    o->valid_images = (uint32_t)f->valid_images;
    o->n_checkpoint = (size_t)f->n_checkpoints;
    o->checkpoint = at;
    o->n_lr_scale = (size_t)f->n_lr_scales;
    o->lr_scale = (double *)f->lr_scale;
    if ((o->has_channels = f->proxy.channels > 0))
        o->channels = (uint32_t)f->proxy.channels;
    if ((o->has_cells = f->proxy.cells > 0))
        o->cells = (uint32_t)f->proxy.cells;
    if ((o->has_downsample = f->proxy.downsample > 0))
        o->downsample = (uint32_t)f->proxy.downsample;
    return o;
}

static void pack_score(struct wire_pack *p, const struct score_task *t, Didact__Lease *l)
{
    MAKE_OR_FAIL(p, s, Didact__ScoreTask, didact__score_task);
    s->space = STR(t->space);
    s->space_hash = t->space_hash[0] ? STR(t->space_hash) : NULL;
    s->arch = STR(t->arch);
    s->dataset = STR(t->dataset);
    s->curriculum = STR(t->curriculum);
    s->fidelity = pack_fidelity(p, &t->fidelity);
    s->seed = t->seed;
    s->has_zero_cost = t->zero_cost != 0;
    s->zero_cost = t->zero_cost;
    if ((s->has_latency_batch = t->latency_batch > 0))
        s->latency_batch = (uint32_t)t->latency_batch;
    s->untrained = s->has_untrained = t->untrained;
    l->task_case = DIDACT__LEASE__TASK_SCORE;
    l->score = s;
}

static void pack_train(struct wire_pack *p, const struct train_task *t, Didact__Lease *l)
{
    MAKE_OR_FAIL(p, s, Didact__TrainTask, didact__train_task);
    s->space = STR(t->space);
    s->space_hash = t->space_hash[0] ? STR(t->space_hash) : NULL;
    s->arch = STR(t->arch);
    s->dataset = STR(t->dataset);
    s->epochs = t->epochs;
    s->batch = (uint32_t)t->batch;
    s->lr = t->lr;
    s->momentum = t->momentum;
    s->weight_decay = t->weight_decay;
    if ((s->has_channels = t->proxy.channels > 0))
        s->channels = (uint32_t)t->proxy.channels;
    if ((s->has_cells = t->proxy.cells > 0))
        s->cells = (uint32_t)t->proxy.cells;
    s->flip = t->flip;
    s->shift = (uint32_t)t->shift;
    s->seed = t->seed;
    s->keep_weights = t->keep_weights;
    s->has_no_test = t->no_test;
    s->no_test = t->no_test;
    l->task_case = DIDACT__LEASE__TASK_TRAIN;
    l->train = s;
}

static int pack_teach(struct wire_pack *p, const struct teach_task *t, Didact__Lease *l, struct errbuf *e)
{
    Didact__TeachTask *s = MAKE(p, Didact__TeachTask, didact__teach_task);
    char              *json = NULL;
    if (!s)
        return err_set(e, ERR_NOMEM, "encoding a message");
    int rc = wire_teach_to_json(t, &json, e);
    if (rc < 0)
        return rc;
    p->block[p->n++] = json; /* a lease takes a handful of the blocks */
    s->dataset = STR(t->dataset);
    s->resume = t->resume[0] ? STR(t->resume) : NULL;
    s->seed = t->seed;
    s->config_json = json;
    l->task_case = DIDACT__LEASE__TASK_TEACH;
    l->teach = s;
    return 0;
}

static int pack_lease(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env, struct errbuf *e)
{
    const struct task *t = m->lease;
    Didact__Lease     *l = MAKE(p, Didact__Lease, didact__lease);
    if (!l)
        return err_set(e, ERR_NOMEM, "encoding a message");
    l->ref = pack_ref(p, (struct lease_ref){ t->job, t->trial, t->attempt });
    l->timeout_s = t->timeout_s;
    l->device = t->device == DEVICE_CPU ? NULL : STR(device_class_name(t->device));
    env->lease = l;
    switch (t->kind) {
    case TASK_SCORE: pack_score(p, &t->score, l); return 0;
    case TASK_TRAIN: pack_train(p, &t->train, l); return 0;
    default: return pack_teach(p, &t->teach, l, e);
    }
}

static void pack_zero_cost(struct wire_pack *p, const struct zero_cost_scores *z, Didact__Result *o)
{
    if (!z->known)
        return;
    o->zero_cost = take(p, ZC_COUNT, sizeof *o->zero_cost);
    for (int i = 0; i < ZC_COUNT && o->zero_cost; i++)
        if (z->known >> i & 1)
            o->zero_cost[o->n_zero_cost++] = z->value[i];
    o->has_zero_cost_known = true;
    o->zero_cost_known = z->known;
}

static void pack_result(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    const struct trial_result *r = m->result.r;
    uint32_t                  *at = take(p, MAX_CHECKPOINTS, sizeof *at);
    MAKE_OR_FAIL(p, o, Didact__Result, didact__result);
    if (!at)
        return;
    for (int i = 0; i < r->n_checkpoints; i++)
        at[i] = (uint32_t)r->checkpoint[i];
    o->ref = pack_ref(p, m->result.ref);
    o->state = (uint32_t)r->state;
    o->reason = (uint32_t)r->reason;
    o->detail = r->detail[0] ? STR(r->detail) : NULL;
    o->score = r->score;
    o->score_se = r->score_se;
    o->n_init_score = (size_t)r->n_inits;
    o->init_score = (double *)r->init_score;
    o->n_checkpoint = o->n_checkpoint_score = (size_t)r->n_checkpoints;
    o->checkpoint = at;
    o->checkpoint_score = (double *)r->checkpoint_score;
    o->loss_sum = r->loss_sum;
    o->lr_scale = r->lr_scale;
    o->valid_score = r->valid_score;
    o->params = r->params;
    o->macs = r->macs;
    o->meta_steps = (uint32_t)r->meta_steps;
    o->artifact = r->artifact[0] ? STR(r->artifact) : NULL;
    o->checkpoint_blob = r->checkpoint_blob[0] ? STR(r->checkpoint_blob) : NULL;
    o->seconds = r->seconds;
    o->mem_bytes = r->mem_bytes;
    pack_zero_cost(p, &r->zero_cost, o);
    o->has_latency_ms = r->latency_ms > 0;
    o->latency_ms = r->latency_ms;
    env->result = o;
}

static void pack_chunk(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    MAKE_OR_FAIL(p, c, Didact__BlobChunk, didact__blob_chunk);
    c->hash = STR(m->blob.hash);
    c->offset = m->blob.offset;
    c->total = m->blob.total;
    c->data = (ProtobufCBinaryData){ m->blob.len, m->blob.data };
    env->blob_chunk = c;
}

static void pack_put(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    MAKE_OR_FAIL(p, c, Didact__BlobPut, didact__blob_put);
    c->hash = STR(m->blob.hash);
    c->offset = m->blob.offset;
    c->total = m->blob.total;
    c->data = (ProtobufCBinaryData){ m->blob.len, m->blob.data };
    c->name = m->blob.name[0] ? STR(m->blob.name) : NULL;
    c->kind = m->blob.kind[0] ? STR(m->blob.kind) : NULL;
    env->blob_put = c;
}

static void pack_book_add(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    MAKE_OR_FAIL(p, b, Didact__BookAdd, didact__book_add);
    b->csv = m->book_add.csv;
    b->first_row = m->book_add.first_row;
    b->has_check_only = 1;
    b->check_only = m->book_add.check_only;
    b->has_remove = b->remove = m->book_add.remove;
    env->book_add = b;
}

static void pack_submit(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    MAKE_OR_FAIL(p, s, Didact__Submit, didact__submit);
    s->yaml = m->submit.yaml;
    s->file = m->submit.file[0] ? STR(m->submit.file) : NULL;
    s->n_set = (size_t)m->submit.n_set;
    s->set = m->submit.set;
    s->has_dry_run = 1;
    s->dry_run = m->submit.dry_run;
    env->submit = s;
}

/* The small ones: a few fields each. */
static void pack_small(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    if (m->kind == WIRE_HEARTBEAT_ACK) {
        MAKE_OR_FAIL(p, o, Didact__HeartbeatAck, didact__heartbeat_ack);
        o->n_drop = (size_t)m->heartbeat_ack.n_drop;
        o->drop = pack_refs(p, m->heartbeat_ack.drop, m->heartbeat_ack.n_drop);
        env->heartbeat_ack = o;
    } else if (m->kind == WIRE_WANT_WORK) {
        MAKE_OR_FAIL(p, o, Didact__WantWork, didact__want_work);
        o->n = m->want_work.n;
        env->want_work = o;
    } else if (m->kind == WIRE_RESULT_ACK) {
        MAKE_OR_FAIL(p, o, Didact__ResultAck, didact__result_ack);
        o->ref = pack_ref(p, m->result_ack.ref);
        o->outcome = (uint32_t)m->result_ack.outcome;
        env->result_ack = o;
    } else if (m->kind == WIRE_HAND_BACK) {
        MAKE_OR_FAIL(p, o, Didact__HandBack, didact__hand_back);
        o->ref = pack_ref(p, m->hand_back.ref);
        o->has_broke = o->broke = m->hand_back.broke;
        env->hand_back = o;
    } else if (m->kind == WIRE_GOODBYE) {
        env->goodbye = MAKE(p, Didact__Goodbye, didact__goodbye);
    } else if (m->kind == WIRE_BLOB_GET) {
        MAKE_OR_FAIL(p, o, Didact__BlobGet, didact__blob_get);
        o->hash = STR(m->blob_get.hash);
        o->offset = m->blob_get.offset;
        env->blob_get = o;
    } else if (m->kind == WIRE_BLOB_PUT_ACK) {
        MAKE_OR_FAIL(p, o, Didact__BlobPutAck, didact__blob_put_ack);
        o->hash = STR(m->blob_put_ack.hash);
        o->have = m->blob_put_ack.have;
        o->complete = m->blob_put_ack.complete;
        env->blob_put_ack = o;
    }
}

static void pack_client(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env)
{
    if (m->kind == WIRE_JOB_ACTION) {
        MAKE_OR_FAIL(p, o, Didact__JobAction, didact__job_action);
        o->job = STR(m->job_action.job);
        o->action = STR(m->job_action.action);
        o->arg = m->job_action.arg[0] ? STR(m->job_action.arg) : NULL;
        env->job_action = o;
    } else if (m->kind == WIRE_PROPOSE) {
        MAKE_OR_FAIL(p, o, Didact__Propose, didact__propose);
        o->job = STR(m->propose.job);
        o->json = m->propose.json;
        env->propose = o;
    } else if (m->kind == WIRE_QUERY) {
        MAKE_OR_FAIL(p, o, Didact__Query, didact__query);
        o->path = m->query.path;
        env->query = o;
    } else if (m->kind == WIRE_REPLY) {
        MAKE_OR_FAIL(p, o, Didact__Reply, didact__reply);
        o->code = (uint32_t)m->reply.code;
        o->text = m->reply.text;
        o->json = m->reply.json;
        env->reply = o;
    } else {
        MAKE_OR_FAIL(p, o, Didact__Error, didact__error);
        o->code = (uint32_t)m->reply.code;
        o->text = m->reply.text;
        env->error = o;
    }
}

int wire_pack_body(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env, struct errbuf *e)
{
    static const Didact__Envelope__BodyCase body[WIRE_KIND_COUNT] = {
        [WIRE_WORKER_HELLO] = DIDACT__ENVELOPE__BODY_WORKER_HELLO,
        [WIRE_WORKER_WELCOME] = DIDACT__ENVELOPE__BODY_WORKER_WELCOME,
        [WIRE_HEARTBEAT] = DIDACT__ENVELOPE__BODY_HEARTBEAT,
        [WIRE_HEARTBEAT_ACK] = DIDACT__ENVELOPE__BODY_HEARTBEAT_ACK,
        [WIRE_WANT_WORK] = DIDACT__ENVELOPE__BODY_WANT_WORK,
        [WIRE_LEASE] = DIDACT__ENVELOPE__BODY_LEASE,
        [WIRE_RESULT] = DIDACT__ENVELOPE__BODY_RESULT,
        [WIRE_RESULT_ACK] = DIDACT__ENVELOPE__BODY_RESULT_ACK,
        [WIRE_HAND_BACK] = DIDACT__ENVELOPE__BODY_HAND_BACK,
        [WIRE_GOODBYE] = DIDACT__ENVELOPE__BODY_GOODBYE,
        [WIRE_BLOB_GET] = DIDACT__ENVELOPE__BODY_BLOB_GET,
        [WIRE_BLOB_CHUNK] = DIDACT__ENVELOPE__BODY_BLOB_CHUNK,
        [WIRE_BLOB_PUT] = DIDACT__ENVELOPE__BODY_BLOB_PUT,
        [WIRE_BLOB_PUT_ACK] = DIDACT__ENVELOPE__BODY_BLOB_PUT_ACK,
        [WIRE_SUBMIT] = DIDACT__ENVELOPE__BODY_SUBMIT,
        [WIRE_JOB_ACTION] = DIDACT__ENVELOPE__BODY_JOB_ACTION,
        [WIRE_QUERY] = DIDACT__ENVELOPE__BODY_QUERY,
        [WIRE_REPLY] = DIDACT__ENVELOPE__BODY_REPLY,
        [WIRE_ERROR] = DIDACT__ENVELOPE__BODY_ERROR,
        [WIRE_BOOK_ADD] = DIDACT__ENVELOPE__BODY_BOOK_ADD,
        [WIRE_PROPOSE] = DIDACT__ENVELOPE__BODY_PROPOSE,
    };
    int rc = 0;
    env->body_case = body[m->kind];
    switch (m->kind) {
    case WIRE_WORKER_HELLO: pack_hello(p, m, env); break;
    case WIRE_WORKER_WELCOME: pack_welcome(p, m, env); break;
    case WIRE_HEARTBEAT: pack_heartbeat(p, m, env); break;
    case WIRE_LEASE: rc = pack_lease(p, m, env, e); break;
    case WIRE_RESULT: pack_result(p, m, env); break;
    case WIRE_BLOB_CHUNK: pack_chunk(p, m, env); break;
    case WIRE_BLOB_PUT: pack_put(p, m, env); break;
    case WIRE_SUBMIT: pack_submit(p, m, env); break;
    case WIRE_BOOK_ADD: pack_book_add(p, m, env); break;
    case WIRE_JOB_ACTION:
    case WIRE_PROPOSE:
    case WIRE_QUERY:
    case WIRE_REPLY:
    case WIRE_ERROR: pack_client(p, m, env); break;
    default: pack_small(p, m, env); break;
    }
    if (rc == 0 && p->failed)
        rc = err_set(e, ERR_NOMEM, "encoding a message");
    return rc;
}
