/* wire.c - the envelope. Before protobuf sees a byte, `peek` walks the outermost fields by hand: that gives the
 * version and the number of the question even where the body is of a kind we do not know, so that the answer can say
 * so. Unpacking runs under a memory budget, because a small message of many empty fields unpacks into a large one. */
#include "common/wire.h"

#include "common/wire_int.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define BODY_FIRST 10 /* envelope fields of these numbers are bodies; see didact.proto */
#define BODY_LAST  69
#define UNPACK_MAX (48u << 20)

/* ---- outermost fields ---- */
struct peek {
    uint64_t version, seq;
    bool     has_version, has_seq;
    int      n_bodies;
};

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64 && *p < end; shift += 7) {
        uint8_t b = *(*p)++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool peek(const uint8_t *p, size_t len, struct peek *k)
{
    const uint8_t *end = p + len;
    while (p < end) {
        uint64_t tag, v = 0;
        if (!varint(&p, end, &tag))
            return false;
        switch (tag & 7) {
        case 0:
            if (!varint(&p, end, &v))
                return false;
            break;
        case 1: v = 8; break;
        case 2:
            if (!varint(&p, end, &v))
                return false;
            break;
        case 5: v = 4; break;
        default: return false;
        }
        if ((tag & 7) != 0) {
            if (v > (uint64_t)(end - p))
                return false;
            p += v;
            if (tag >> 3 >= BODY_FIRST && tag >> 3 <= BODY_LAST)
                k->n_bodies++;
        } else if (tag >> 3 == 1) {
            k->version = v;
            k->has_version = true;
        } else if (tag >> 3 == 2) {
            k->seq = v;
            k->has_seq = true;
        }
    }
    return true;
}

/* ---- memory of one unpacking ---- */
struct budget { size_t left; };

static void *budget_alloc(void *arg, size_t n)
{
    struct budget *b = arg;
    if (n > b->left)
        return NULL;
    b->left -= n;
    return malloc(n ? n : 1);
}

static void budget_free(void *arg, void *p)
{
    (void)arg;
    free(p);
}

/* ---- the teach section ---- */
/* The job parser knows the keys; a whole job is built around the section so that it can be asked. */
static json_t *teach_shell(const struct teach_task *t, const struct teach_cfg *cfg, struct errbuf *e)
{
    struct job_spec *s = calloc(1, sizeof *s);
    json_t          *j = NULL;
    if (s) {
        job_defaults(s, JOB_TEACH);
        memcpy(s->name, "teach", sizeof "teach");
        memcpy(s->dataset, "dataset", sizeof "dataset");
        memcpy(s->dataset_hash, t->dataset, sizeof s->dataset_hash);
        if (cfg)
            s->teach = *cfg;
        j = job_to_json(s);
    }
    free(s);
    if (!j)
        err_set(e, ERR_NOMEM, "teach: configuration");
    return j;
}

int wire_teach_to_json(const struct teach_task *t, char **out, struct errbuf *e)
{
    json_t *j = teach_shell(t, &t->cfg, e);
    json_t *section = json_object_get(j, "teach");
    if (t->cfg.inits == 1) /* a worker that does not know the key does the same without it */
        json_object_del(section, "inits");
    *out = section ? json_dumps(section, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(j);
    return *out ? 0 : err_set(e, ERR_INPUT, "teach: the configuration holds what JSON cannot say");
}

int wire_teach_from_json(const char *text, struct teach_task *t, struct errbuf *e)
{
    int              rc = 0;
    json_error_t     je;
    struct job_spec *s = calloc(1, sizeof *s);
    json_t          *section = json_loads(text, JSON_REJECT_DUPLICATES, &je);
    json_t          *j = NULL;
    if (!s) {
        rc = err_set(e, ERR_NOMEM, "decoding a message");
        goto done;
    }
    if (!json_is_object(section)) {
        rc = err_set(e, ERR_INPUT, "teach: configuration is not a JSON object: %s", section ? "other type" : je.text);
        goto done;
    }
    j = teach_shell(t, NULL, e);
    if (!j || json_object_set(j, "teach", section) < 0) {
        rc = err_set(e, ERR_NOMEM, "decoding a message");
        goto done;
    }
    rc = job_from_json(s, j, e);
    if (rc == 0)
        t->cfg = s->teach;
done:
    json_decref(section);
    json_decref(j);
    free(s);
    return rc;
}

/* ---- the public calls ---- */
int wire_encode(const struct wire_msg *m, uint8_t **out, size_t *len, struct errbuf *e)
{
    struct wire_pack p = { .n = 0 };
    Didact__Envelope env = DIDACT__ENVELOPE__INIT;
    size_t           need;
    int              rc = wire_check(m, e);

    *out = NULL;
    *len = 0;
    if (rc < 0)
        return rc;
    env.version = WIRE_VERSION;
    env.seq = m->seq;
    rc = wire_pack_body(&p, m, &env, e);
    if (rc < 0)
        goto done;
    need = didact__envelope__get_packed_size(&env);
    if (need > WIRE_MAX_BYTES) {
        rc = err_set(e, ERR_INPUT, "message of %zu bytes, more than %u", need, WIRE_MAX_BYTES);
        goto done;
    }
    *out = malloc(need);
    if (!*out) {
        rc = err_set(e, ERR_NOMEM, "encoding a message");
        goto done;
    }
    *len = didact__envelope__pack(&env, *out);
done:
    wire_pack_fini(&p);
    return rc;
}

int wire_decode(const void *bytes, size_t len, struct wire_msg *out, struct errbuf *e)
{
    struct peek k = { 0 };
    memset(out, 0, sizeof *out);
    if (len > WIRE_MAX_BYTES)
        return err_set(e, ERR_INPUT, "message of %zu bytes, more than %u", len, WIRE_MAX_BYTES);
    if (!peek(bytes, len, &k) || !k.has_version || !k.has_seq)
        return err_set(e, ERR_INPUT, "message of %zu bytes is truncated or damaged", len);
    out->seq = k.seq;
    if (k.version != WIRE_VERSION)
        return err_set(e, ERR_VERSION, "message of wire version %llu; this program speaks %d",
                       (unsigned long long)k.version, WIRE_VERSION);
    if (k.n_bodies != 1)
        return err_set(e, ERR_INPUT, "message with %d bodies instead of one", k.n_bodies);

    struct budget       b = { .left = 65536 + 32 * len };
    ProtobufCAllocator  alloc = { budget_alloc, budget_free, &b };
    if (b.left > UNPACK_MAX)
        b.left = UNPACK_MAX;
    Didact__Envelope *env = didact__envelope__unpack(&alloc, len, bytes);
    if (!env)
        return err_set(e, ERR_INPUT, "message of %zu bytes is damaged or lacks a required field", len);
    out->seq = env->seq;
    int rc = wire_unpack_body(env, out, e);
    didact__envelope__free_unpacked(env, &alloc);
    if (rc == 0)
        rc = wire_check(out, e);
    if (rc < 0) {
        uint64_t seq = out->seq;
        wire_msg_fini(out);
        out->seq = seq;
    }
    return rc;
}

void wire_msg_fini(struct wire_msg *m)
{
    switch (m->kind) {
    case WIRE_WORKER_HELLO: free(m->hello.holding); break;
    case WIRE_WORKER_WELCOME: free(m->welcome.drop); break;
    case WIRE_HEARTBEAT:
        free(m->heartbeat.holding);
        free(m->heartbeat.progress);
        break;
    case WIRE_HEARTBEAT_ACK: free(m->heartbeat_ack.drop); break;
    case WIRE_LEASE: free(m->lease); break;
    case WIRE_RESULT: free(m->result.r); break;
    case WIRE_BLOB_CHUNK:
    case WIRE_BLOB_PUT: free(m->blob.data); break;
    case WIRE_SUBMIT:
        free(m->submit.yaml);
        for (int i = 0; i < m->submit.n_set; i++)
            free(m->submit.set[i]);
        free(m->submit.set);
        break;
    case WIRE_BOOK_ADD: free(m->book_add.csv); break;
    case WIRE_PROPOSE: free(m->propose.json); break;
    case WIRE_QUERY: free(m->query.path); break;
    case WIRE_REPLY:
    case WIRE_ERROR:
        free(m->reply.text);
        free(m->reply.json);
        break;
    default: break;
    }
    memset(m, 0, sizeof *m);
}
