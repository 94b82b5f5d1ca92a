/* wire.h - bytes of one envelope <-> plain structs. No protobuf type travels beyond wire.c.
 * Decoding checks, in order: size, version, kind, required fields, ranges, finiteness of floats, string lengths.
 * Memory: a decoded struct wire_msg owns what its pointers point to; wire_msg_fini frees it. Encoding borrows. */
#ifndef DIDACT_WIRE_H
#define DIDACT_WIRE_H

#include "common/err.h"
#include "common/job.h"

#include <stdint.h>

#define WIRE_VERSION 1
#define WIRE_MAX_BYTES (4u << 20)
#define WIRE_MAX_CSV (1u << 20)
#define WIRE_MAX_PROPOSE (1u << 19)
#define WIRE_MAX_LEASES 256

enum wire_kind {
    WIRE_NONE,
    WIRE_WORKER_HELLO, WIRE_WORKER_WELCOME, WIRE_HEARTBEAT, WIRE_HEARTBEAT_ACK, WIRE_WANT_WORK, WIRE_LEASE,
    WIRE_RESULT, WIRE_RESULT_ACK, WIRE_HAND_BACK, WIRE_GOODBYE,
    WIRE_BLOB_GET, WIRE_BLOB_CHUNK, WIRE_BLOB_PUT, WIRE_BLOB_PUT_ACK,
    WIRE_SUBMIT, WIRE_JOB_ACTION, WIRE_QUERY, WIRE_REPLY, WIRE_ERROR,
    WIRE_BOOK_ADD, WIRE_PROPOSE,
    WIRE_KIND_COUNT
};

struct lease_ref { uint64_t job, trial; uint32_t attempt; };
enum ack_outcome { ACK_RECORDED, ACK_DUPLICATE, ACK_STALE };

struct wire_msg {
    enum wire_kind kind;
    uint64_t       seq;
    union {
        struct {
            name_str worker_id, name, engine_version, device_class, isa, host;
            uint32_t slots;
            uint64_t mem_bytes, pid, device_bytes;
            name_str device_name;
            int n_holding;
            struct lease_ref *holding;
        } hello;
        struct { uint32_t heartbeat_ms, lease_ms; int n_drop; struct lease_ref *drop; name_str coordinator; } welcome;
        struct { int n_holding; struct lease_ref *holding; int n_progress; struct task_progress *progress; } heartbeat;
        struct { int n_drop; struct lease_ref *drop; } heartbeat_ack;
        struct { uint32_t n; } want_work;
        struct task *lease;
        struct { struct lease_ref ref; struct trial_result *r; } result;
        struct { struct lease_ref ref; enum ack_outcome outcome; } result_ack;
        struct { struct lease_ref ref; bool broke; } hand_back; /* broke: it may have broken the device: a death */
        struct { hash_str hash; uint64_t offset; } blob_get;
        struct { hash_str hash; uint64_t offset, total; uint8_t *data; size_t len; name_str name, kind; } blob; /* chunk and put */
        struct { hash_str hash; uint64_t have; bool complete; } blob_put_ack;
        struct { char *yaml; char file[256]; int n_set; char **set; bool dry_run; } submit;
        struct { name_str job, action; char arg[512]; } job_action; /* arg: "" where the action takes none */
        struct { char *csv; uint64_t first_row; bool check_only, remove; } book_add; /* at most WIRE_MAX_CSV bytes */
        struct { name_str job; char *json; } propose; /* at most WIRE_MAX_PROPOSE bytes */
        struct { char *path; } query;
        struct { int code; char *text, *json; } reply; /* reply and error (json NULL) */
    };
};

/* *out is malloc'ed, *len bytes. -ERR_INPUT where the struct holds what the wire refuses. */
int  wire_encode(const struct wire_msg *m, uint8_t **out, size_t *len, struct errbuf *e);
int  wire_decode(const void *bytes, size_t len, struct wire_msg *out, struct errbuf *e);
void wire_msg_fini(struct wire_msg *m);

#endif
