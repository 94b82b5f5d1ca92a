/* keys_int.h - what keys.c and keys_auth.c share; nobody else includes it. */
#ifndef DIDACT_KEYS_INT_H
#define DIDACT_KEYS_INT_H

#include "common/keys.h"

#define Z85_LEN      40
#define KEY_FILE_MAX 4096

struct key_file {
    char          public_key[Z85_LEN + 1], secret_key[Z85_LEN + 1]; /* "" : the file has none */
    enum key_role role;
};

/* `secret`: a secret part is required, must belong to the public one, and the file must be private to its owner. */
int key_file_read(const char *path, bool secret, struct key_file *k, struct errbuf *e);

#endif
