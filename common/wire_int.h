/* wire_int.h - what the files of wire share; nobody else includes it. */
#ifndef DIDACT_WIRE_INT_H
#define DIDACT_WIRE_INT_H

#include "common/wire.h"
#include "didact.pb-c.h"

/* Bounds of what a peer may say. All of them are far above what Didact itself sends. */
#define WIRE_MAX_STEPS   1000000
#define WIRE_MAX_IMAGES  10000000
#define WIRE_MAX_BATCH   65536
#define WIRE_MAX_BLOB    (1ull << 40)
#define WIRE_MAX_SET     256
#define WIRE_MAX_SET_LEN 4096
#define WIRE_MAX_PATH    4096
#define WIRE_MAX_TEXT    65536
#define WIRE_MAX_JSON    (WIRE_MAX_BYTES - 2 * WIRE_MAX_TEXT)

/* The rules of every kind, applied before packing and after unpacking: a message that one side builds is one that
 * the other accepts. */
int wire_check(const struct wire_msg *m, struct errbuf *e);

/* Memory of one encoding: freed as a whole. */
struct wire_pack {
    void *block[64];
    int   n;
    bool  failed;
};
int  wire_pack_body(struct wire_pack *p, const struct wire_msg *m, Didact__Envelope *env, struct errbuf *e);
void wire_pack_fini(struct wire_pack *p);

/* Fills *out (zeroed by the caller) as far as it gets; the caller frees it on failure too. */
int wire_unpack_body(const Didact__Envelope *env, struct wire_msg *out, struct errbuf *e);

/* The `teach` section of a job as JSON text (malloc'ed), and back. */
int wire_teach_to_json(const struct teach_task *t, char **out, struct errbuf *e);
int wire_teach_from_json(const char *json, struct teach_task *t, struct errbuf *e);

#endif
