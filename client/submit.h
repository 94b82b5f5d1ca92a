/* submit.h - which flag of teach, search and verify is which key of the job file. */
#ifndef DIDACT_CLIENT_SUBMIT_H
#define DIDACT_CLIENT_SUBMIT_H

#include <stdbool.h>

struct submit_key {
    const char *section;  /* "fidelity"; "" at the top */
    const char *key, *flag;
    bool        list;     /* the flag may be repeated; the key is a list */
};
extern const struct submit_key submit_keys[]; /* ends with a NULL flag */

#endif
