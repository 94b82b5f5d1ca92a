/* A job file; bytes behind a first 0 are one --set. What is accepted survives the way to JSON and back, as it is stored. */
#include "common/job.h"
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct job_spec *s = calloc(2, sizeof *s);
    struct errbuf e = { 0 };
    char *text = fuzz_text(data, size);
    size_t n = strlen(text);
    FUZZ_CHECK(s);
    int rc = jobfile_parse(text, n, "job.yaml", &s[0], &e);
    FUZZ_CHECK(rc == 0 || e.text[0]);
    if (rc == 0 && n < size) {
        s[1] = s[0];
        rc = jobfile_set(&s[0], text + n + 1, &e);
        FUZZ_CHECK(rc == 0 || memcmp(&s[0], &s[1], sizeof *s) == 0); /* bad input changes nothing */
    }
    if (rc == 0) {
        json_t *j = job_to_json(&s[0]), *again = NULL;
        FUZZ_CHECK(j);
        rc = job_from_json(&s[1], j, &e);
        if (rc < 0)
            fprintf(stderr, "%s\n", e.text);
        FUZZ_CHECK(rc == 0);
        again = job_to_json(&s[1]);
        FUZZ_CHECK(json_equal(j, again));
        json_decref(j);
        json_decref(again);
    }
    free(text);
    free(s);
    return 0;
}
