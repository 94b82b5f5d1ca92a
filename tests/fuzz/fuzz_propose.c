/* The body of a request for proposals: whatever comes, it is refused with words, or is so many texts that can be proposed. */
#include "coordinator/coord.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proposals p;
    struct errbuf e = { 0 };
    if (proposals_parse((const char *)data, size, &p, &e) < 0) {
        FUZZ_CHECK(e.text[0] && !p.v && !p.doc);
        return 0;
    }
    FUZZ_CHECK(p.n >= 1 && p.n <= ASK_MAX_BATCH && p.request);
    for (size_t i = 0; i < p.n; i++) {
        const char *text[] = { p.v[i].arch, p.v[i].tag };
        for (int k = 0; k < 2; k++)
            for (const char *c = text[k]; *c; c++) /* no terminal or log is written to by it */
                FUZZ_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
    proposals_fini(&p);
    return 0;
}
