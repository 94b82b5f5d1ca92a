/* space_file.h - a search space of the user's own, from YAML: a chain of slots with choices, and conditions between them.
 * docs/spaces.md ("Your own space") is the description for users; share/spaces has an example.
 *
 * A choice is a key with several values, named SLOT.KEY (norm, act and head have no slot). A slot with `when` is there only while earlier
 * choices have the values it names; a key that the chosen operation does not read is no choice. An architecture is the text of its
 * live choices, "body.op=sep body.width=16", in the order of the file: equal texts are equal choices. */
#ifndef DIDACT_SPACE_FILE_H
#define DIDACT_SPACE_FILE_H

#include "common/space.h"

#define SPACE_FILE_MAX 65536 /* bytes */

/* A fresh space, freed by space_file_free. -ERR_INPUT lists the first few problems with their lines; also where the architecture of
 * all first values does not build on an image of 1x28x28. `file` is only for messages. Safe to share between threads. */
int  space_file_parse(const char *yaml, size_t len, const char *file, struct space **out, struct errbuf *e);
void space_file_free(struct space *s); /* NULL is fine */

#endif
