/* space_file.h - a search space of the user's own, from YAML: a chain of slots with choices, and conditions between them.
 * docs/spaces.md ("Your own space") is the description for users; share/spaces has an example.
 *
 * A choice is a key with several values, named SLOT.KEY (norm, act and head have no slot). A slot with `when` is there only while earlier
 * choices have the values it names; a key that the chosen operation does not read is no choice. An architecture is the text of its
 * live choices, "body.op=sep body.width=16", in the order of the file: equal texts are equal choices. */
#ifndef DIDACT_SPACE_FILE_H
#define DIDACT_SPACE_FILE_H

#include "common/space.h"

#define SPACE_FILE_MAX     65536 /* bytes */
#define SPACE_FILE_NAME    46    /* characters of a name: an identity fits where names of spaces do */
#define SPACE_FILE_ID_HASH 16    /* hex characters of the content's hash in an identity, "mine@0123456789abcdef" */
#define SPACE_FILES_MAX    1024  /* registered in one process */

/* A fresh space, freed by space_file_free; its name is its identity. -ERR_INPUT lists the first few problems with their lines; also where
 * the architecture of all first values does not build on an image of 1x28x28. `file` is only for messages. Safe to share between threads. */
int  space_file_parse(const char *yaml, size_t len, const char *file, struct space **out, struct errbuf *e);
void space_file_free(struct space *s); /* NULL is fine */
const char *space_file_name(const struct space *s); /* what the file calls it, without the hash */

/* The registry of this process (space_registry.c): what is in it stays as long as the process. Any thread.
 * space_file_register: parse, and have space_find know it; the same content again is the same space. -ERR_BUSY where the registry is full. */
int  space_file_register(const char *yaml, size_t len, const char *file, const struct space **out, struct errbuf *e);
int  space_file_load(const char *path, const struct space **out, struct errbuf *e); /* the same, from a file */
const struct space *space_file_find(const char *identity);                          /* NULL: not registered */

/* Does this text mean a file rather than the name of a space? It has a '/', or ends in .yaml or .yml. */
bool space_is_path(const char *text);
/* Is `text` an identity, or the beginning of a hash, that goes with this content? */
bool space_means_hash(const char *text, const char *hash);

#endif
