/* wire_check.c - ranges, finiteness, enums and text of every kind of message. */
#include "common/blob.h"
#include "common/wire_int.h"

#include <math.h>
#include <string.h>

/* Strings end up in logs, in JSON and on terminals: UTF-8 without control characters (free text may have line ends
 * and tabs). Returns false at the first byte that is neither. */
static bool clean_text(const char *s, size_t n, bool free_text)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + n;
    while (p < end) {
        unsigned c = *p++;
        if (c < 0x80) {
            if (c == 0x7f || (c < 0x20 && !(free_text && (c == '\n' || c == '\t' || c == '\r'))))
                return false;
            continue;
        }
        int      more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        uint32_t v = c & (0x3fu >> more);
        if (c < 0xc2 || c > 0xf4 || end - p < more)
            return false;
        for (int i = 0; i < more; i++, p++) {
            if ((*p & 0xc0) != 0x80)
                return false;
            v = (v << 6) | (*p & 0x3fu);
        }
        if ((more == 2 && v < 0x800) || (more == 3 && (v < 0x10000 || v > 0x10ffff)) || (v >= 0xd800 && v < 0xe000))
            return false;
    }
    return true;
}

static int buf_ok(const char *what, const char *s, size_t cap, bool may_be_empty, bool free_text, struct errbuf *e)
{
    size_t n = strnlen(s, cap);
    if (n == cap)
        return err_set(e, ERR_INPUT, "%s: longer than %zu bytes", what, cap - 1);
    if (n == 0 && !may_be_empty)
        return err_set(e, ERR_INPUT, "%s: empty", what);
    if (!clean_text(s, n, free_text))
        return err_set(e, ERR_INPUT, "%s: not printable UTF-8", what);
    return 0;
}

static int text_ok(const char *what, const char *s, size_t max, struct errbuf *e)
{
    return s ? buf_ok(what, s, max + 1, true, true, e) : err_set(e, ERR_INPUT, "%s: missing", what);
}

static int hash_ok(const char *what, const char *h, bool may_be_empty, struct errbuf *e)
{
    if (strnlen(h, HASH_HEX_LEN + 1) > HASH_HEX_LEN)
        return err_set(e, ERR_INPUT, "%s: longer than %d bytes", what, HASH_HEX_LEN);
    if ((may_be_empty && !h[0]) || blob_valid_hash(h))
        return 0;
    return err_set(e, ERR_INPUT, "%s: not the hash of a blob", what);
}

static int int_ok(const char *what, double v, double lo, double hi, struct errbuf *e)
{
    return v >= lo && v <= hi ? 0 : err_set(e, ERR_INPUT, "%s: %.0f is outside %.0f ... %.0f", what, v, lo, hi);
}

static int real_ok(const char *what, double v, double lo, double hi, struct errbuf *e)
{
    if (!isfinite(v))
        return err_set(e, ERR_INPUT, "%s: not a finite number", what);
    return v >= lo && v <= hi ? 0 : err_set(e, ERR_INPUT, "%s: %g is outside %g ... %g", what, v, lo, hi);
}

static int finite_ok(const char *what, double v, struct errbuf *e)
{
    return isfinite(v) ? 0 : err_set(e, ERR_INPUT, "%s: not a finite number", what);
}

#define TRY(call)            \
    do {                     \
        int try_rc = (call); \
        if (try_rc < 0)      \
            return try_rc;   \
    } while (0)

static int ref_ok(const struct lease_ref *r, struct errbuf *e)
{
    if (r->job == 0 || r->job > INT64_MAX || r->trial > INT64_MAX || r->attempt == 0 || r->attempt > INT32_MAX)
        return err_set(e, ERR_INPUT, "lease: job, trial or attempt is out of range");
    return 0;
}

static int refs_ok(const char *what, const struct lease_ref *r, int n, struct errbuf *e)
{
    TRY(int_ok(what, n, 0, WIRE_MAX_LEASES, e));
    for (int i = 0; i < n; i++)
        TRY(ref_ok(&r[i], e));
    return 0;
}

static int check_hello(const struct wire_msg *m, struct errbuf *e)
{
    TRY(buf_ok("worker_id", m->hello.worker_id, sizeof(name_str), false, false, e));
    TRY(buf_ok("name", m->hello.name, sizeof(name_str), false, false, e));
    TRY(buf_ok("engine_version", m->hello.engine_version, sizeof(name_str), false, false, e));
    TRY(buf_ok("device_class", m->hello.device_class, sizeof(name_str), false, false, e));
    TRY(buf_ok("isa", m->hello.isa, sizeof(name_str), false, false, e));
    TRY(buf_ok("host", m->hello.host, sizeof(name_str), false, false, e));
    TRY(int_ok("slots", m->hello.slots, 1, WIRE_MAX_LEASES, e));
    TRY(int_ok("mem_bytes", (double)m->hello.mem_bytes, 0, (double)INT64_MAX, e));
    TRY(int_ok("pid", (double)m->hello.pid, 0, (double)INT64_MAX, e));
    TRY(buf_ok("device_name", m->hello.device_name, sizeof(name_str), true, false, e));
    TRY(int_ok("device_bytes", (double)m->hello.device_bytes, 0, (double)INT64_MAX, e));
    return refs_ok("holding", m->hello.holding, m->hello.n_holding, e);
}

static int check_welcome(const struct wire_msg *m, struct errbuf *e)
{
    TRY(int_ok("heartbeat_ms", m->welcome.heartbeat_ms, 10, 600000, e));
    TRY(int_ok("lease_ms", m->welcome.lease_ms, 10, 7 * 86400000.0, e));
    TRY(buf_ok("coordinator", m->welcome.coordinator, sizeof(name_str), true, false, e));
    return refs_ok("drop", m->welcome.drop, m->welcome.n_drop, e);
}

static int check_heartbeat(const struct wire_msg *m, struct errbuf *e)
{
    TRY(refs_ok("holding", m->heartbeat.holding, m->heartbeat.n_holding, e));
    TRY(int_ok("progress", m->heartbeat.n_progress, 0, WIRE_MAX_LEASES, e));
    for (int i = 0; i < m->heartbeat.n_progress; i++) {
        const struct task_progress *p = &m->heartbeat.progress[i];
        struct lease_ref            r = { p->job, p->trial, p->attempt };
        TRY(ref_ok(&r, e));
        TRY(finite_ok("progress.done", p->done, e));
        TRY(finite_ok("progress.total", p->total, e));
        TRY(finite_ok("progress.loss", p->loss, e));
        TRY(finite_ok("progress.accuracy", p->accuracy, e));
        TRY(finite_ok("progress.held_out", p->held_out, e));
        TRY(finite_ok("progress.rate", p->rate, e));
        TRY(hash_ok("progress.checkpoint_blob", p->checkpoint_blob, true, e));
    }
    return 0;
}

static int check_score(const struct score_task *t, struct errbuf *e)
{
    const struct fidelity *f = &t->fidelity;
    TRY(buf_ok("space", t->space, sizeof(name_str), false, false, e));
    TRY(hash_ok("space_hash", t->space_hash, true, e));
    TRY(buf_ok("arch", t->arch, sizeof t->arch, false, false, e));
    TRY(hash_ok("dataset", t->dataset, false, e));
    TRY(hash_ok("curriculum", t->curriculum, false, e));
    TRY(int_ok("fidelity.steps", f->steps, 0, WIRE_MAX_STEPS, e));
    TRY(int_ok("fidelity.first_init", f->first_init, 0, MAX_INITS - 1, e));
    TRY(int_ok("fidelity.inits", f->inits, 1, MAX_INITS - f->first_init, e));
    TRY(int_ok("fidelity.valid_images", f->valid_images, 0, WIRE_MAX_IMAGES, e));
    TRY(int_ok("fidelity.n_checkpoints", f->n_checkpoints, 0, MAX_CHECKPOINTS, e));
    for (int i = 0; i < f->n_checkpoints; i++)
        TRY(int_ok("fidelity.checkpoint", f->checkpoint[i], 0, WIRE_MAX_STEPS, e));
    TRY(int_ok("fidelity.n_lr_scales", f->n_lr_scales, 0, MAX_SCALES, e));
    for (int i = 0; i < f->n_lr_scales; i++)
        TRY(real_ok("fidelity.lr_scale", f->lr_scale[i], 0, 1e6, e));
    TRY(int_ok("fidelity.channels", f->proxy.channels, 0, PROXY_MAX_CHANNELS, e));
    TRY(int_ok("fidelity.cells", f->proxy.cells, 0, PROXY_MAX_CELLS, e));
    TRY(int_ok("fidelity.downsample", f->proxy.downsample, 0, PROXY_MAX_DOWNSAMPLE, e));
    if (t->zero_cost & ~ZC_ALL)
        return err_set(e, ERR_INPUT, "zero_cost %#x has scores that are not known here", t->zero_cost);
    return int_ok("latency_batch", t->latency_batch, 0, LATENCY_MAX_BATCH, e);
}

static int check_train(const struct train_task *t, struct errbuf *e)
{
    TRY(buf_ok("space", t->space, sizeof(name_str), false, false, e));
    TRY(hash_ok("space_hash", t->space_hash, true, e));
    TRY(buf_ok("arch", t->arch, sizeof t->arch, false, false, e));
    TRY(hash_ok("dataset", t->dataset, false, e));
    TRY(real_ok("epochs", t->epochs, 0, 1e6, e));
    TRY(int_ok("batch", t->batch, 1, WIRE_MAX_BATCH, e));
    TRY(real_ok("lr", t->lr, 0, 1e6, e));
    TRY(real_ok("momentum", t->momentum, 0, 1, e));
    TRY(real_ok("weight_decay", t->weight_decay, 0, 1e6, e));
    TRY(int_ok("channels", t->proxy.channels, 0, PROXY_MAX_CHANNELS, e));
    TRY(int_ok("cells", t->proxy.cells, 0, PROXY_MAX_CELLS, e));
    return int_ok("shift", t->shift, 0, 4096, e);
}

static int check_lease(const struct wire_msg *m, struct errbuf *e)
{
    const struct task *t = m->lease;
    if (!t)
        return err_set(e, ERR_INPUT, "lease: no task");
    struct lease_ref r = { t->job, t->trial, t->attempt };
    TRY(ref_ok(&r, e));
    TRY(real_ok("timeout_s", t->timeout_s, 0, 1e9, e));
    if ((unsigned)t->device >= DEVICE_ANY)
        return err_set(e, ERR_INPUT, "lease: device %d is no device of a worker", (int)t->device);
    switch (t->kind) {
    case TASK_SCORE: return check_score(&t->score, e);
    case TASK_TRAIN: return check_train(&t->train, e);
    case TASK_TEACH: /* the configuration is checked by the job parser on the way in */
        TRY(hash_ok("dataset", t->teach.dataset, false, e));
        return hash_ok("resume", t->teach.resume, true, e);
    default: return err_set(e, ERR_INPUT, "lease: unknown kind of task");
    }
}

static int check_result(const struct wire_msg *m, struct errbuf *e)
{
    const struct trial_result *r = m->result.r;
    if (!r)
        return err_set(e, ERR_INPUT, "result: no content");
    TRY(ref_ok(&m->result.ref, e));
    if (r->state != TRIAL_SCORED && r->state != TRIAL_FAILED)
        return err_set(e, ERR_INPUT, "result: state %d is neither scored nor failed", (int)r->state);
    if ((unsigned)r->reason >= FAIL_REASON_COUNT || (r->state == TRIAL_FAILED) != (r->reason != FAIL_NONE))
        return err_set(e, ERR_INPUT, "result: reason %d does not go with its state", (int)r->reason);
    TRY(buf_ok("detail", r->detail, sizeof r->detail, true, true, e));
    TRY(finite_ok("score", r->score, e));
    TRY(finite_ok("score_se", r->score_se, e));
    TRY(int_ok("n_inits", r->n_inits, 0, MAX_INITS, e));
    for (int i = 0; i < r->n_inits; i++)
        TRY(finite_ok("init_score", r->init_score[i], e));
    TRY(int_ok("n_checkpoints", r->n_checkpoints, 0, MAX_CHECKPOINTS, e));
    for (int i = 0; i < r->n_checkpoints; i++) {
        TRY(int_ok("checkpoint", r->checkpoint[i], 0, WIRE_MAX_STEPS, e));
        TRY(finite_ok("checkpoint_score", r->checkpoint_score[i], e));
    }
    TRY(finite_ok("loss_sum", r->loss_sum, e));
    TRY(finite_ok("lr_scale", r->lr_scale, e));
    TRY(finite_ok("valid_score", r->valid_score, e));
    for (int i = 0; i < ZC_COUNT; i++)
        TRY(finite_ok(zero_cost_table[i].name, r->zero_cost.value[i], e));
    TRY(int_ok("params", (double)r->params, 0, (double)INT64_MAX, e));
    TRY(int_ok("macs", (double)r->macs, 0, (double)INT64_MAX, e));
    TRY(int_ok("meta_steps", r->meta_steps, 0, INT32_MAX, e));
    TRY(hash_ok("artifact", r->artifact, true, e));
    TRY(hash_ok("checkpoint_blob", r->checkpoint_blob, true, e));
    TRY(real_ok("seconds", r->seconds, 0, 1e12, e));
    TRY(real_ok("latency_ms", r->latency_ms, 0, 1e12, e));
    return int_ok("mem_bytes", (double)r->mem_bytes, 0, (double)INT64_MAX, e);
}

static int check_blob(const struct wire_msg *m, struct errbuf *e)
{
    TRY(hash_ok("hash", m->blob.hash, false, e));
    if (m->blob.len > BLOB_CHUNK)
        return err_set(e, ERR_INPUT, "chunk: %zu bytes, more than %d", m->blob.len, BLOB_CHUNK);
    if (m->blob.len && !m->blob.data)
        return err_set(e, ERR_INPUT, "chunk: no data");
    if (m->blob.total > WIRE_MAX_BLOB || m->blob.offset > m->blob.total || m->blob.len > m->blob.total - m->blob.offset)
        return err_set(e, ERR_INPUT, "chunk: does not lie inside its blob");
    TRY(buf_ok("name", m->blob.name, sizeof(name_str), true, false, e));
    return buf_ok("kind", m->blob.kind, sizeof(name_str), true, false, e);
}

static int check_submit(const struct wire_msg *m, struct errbuf *e)
{
    TRY(text_ok("yaml", m->submit.yaml, JOB_TEXT_MAX, e));
    TRY(buf_ok("file", m->submit.file, sizeof m->submit.file, true, false, e));
    TRY(int_ok("set", m->submit.n_set, 0, WIRE_MAX_SET, e));
    for (int i = 0; i < m->submit.n_set; i++)
        TRY(text_ok("set", m->submit.set[i], WIRE_MAX_SET_LEN, e));
    return 0;
}

static int check_reply(const struct wire_msg *m, struct errbuf *e)
{
    TRY(int_ok("code", m->reply.code, 0, ERR_COUNT - 1, e));
    TRY(text_ok("text", m->reply.text, WIRE_MAX_TEXT, e));
    if (m->kind == WIRE_ERROR && (m->reply.code == 0 || m->reply.json))
        return err_set(e, ERR_INPUT, "error: needs a code and takes no document");
    return m->reply.json ? text_ok("json", m->reply.json, WIRE_MAX_JSON, e) : 0;
}

int wire_check(const struct wire_msg *m, struct errbuf *e)
{
    switch (m->kind) {
    case WIRE_WORKER_HELLO: return check_hello(m, e);
    case WIRE_WORKER_WELCOME: return check_welcome(m, e);
    case WIRE_HEARTBEAT: return check_heartbeat(m, e);
    case WIRE_HEARTBEAT_ACK: return refs_ok("drop", m->heartbeat_ack.drop, m->heartbeat_ack.n_drop, e);
    case WIRE_WANT_WORK: return int_ok("want_work", m->want_work.n, 0, WIRE_MAX_LEASES, e);
    case WIRE_LEASE: return check_lease(m, e);
    case WIRE_RESULT: return check_result(m, e);
    case WIRE_RESULT_ACK:
        TRY(int_ok("outcome", m->result_ack.outcome, ACK_RECORDED, ACK_STALE, e));
        return ref_ok(&m->result_ack.ref, e);
    case WIRE_HAND_BACK: return ref_ok(&m->hand_back.ref, e);
    case WIRE_GOODBYE: return 0;
    case WIRE_BLOB_GET:
        TRY(int_ok("offset", (double)m->blob_get.offset, 0, (double)WIRE_MAX_BLOB, e));
        return hash_ok("hash", m->blob_get.hash, false, e);
    case WIRE_BLOB_CHUNK:
    case WIRE_BLOB_PUT: return check_blob(m, e);
    case WIRE_BLOB_PUT_ACK:
        TRY(int_ok("have", (double)m->blob_put_ack.have, 0, (double)WIRE_MAX_BLOB, e));
        return hash_ok("hash", m->blob_put_ack.hash, false, e);
    case WIRE_SUBMIT: return check_submit(m, e);
    case WIRE_JOB_ACTION:
        TRY(buf_ok("job", m->job_action.job, sizeof(name_str), false, false, e));
        TRY(buf_ok("action", m->job_action.action, sizeof(name_str), false, false, e));
        return buf_ok("arg", m->job_action.arg, sizeof m->job_action.arg, true, true, e);
    case WIRE_BOOK_ADD:
        TRY(int_ok("first_row", (double)m->book_add.first_row, 0, 1e15, e));
        return text_ok("csv", m->book_add.csv, WIRE_MAX_CSV, e);
    case WIRE_PROPOSE:
        TRY(buf_ok("job", m->propose.job, sizeof(name_str), false, false, e));
        return text_ok("json", m->propose.json, WIRE_MAX_PROPOSE, e);
    case WIRE_QUERY: return text_ok("path", m->query.path, WIRE_MAX_PATH, e);
    case WIRE_REPLY:
    case WIRE_ERROR: return check_reply(m, e);
    case WIRE_NONE:
    case WIRE_KIND_COUNT: break;
    }
    return err_set(e, ERR_INPUT, "unknown kind of message");
}
