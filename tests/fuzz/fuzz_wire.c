/* One message of a peer: what is decoded can be encoded, and then decodes to the same bytes again. */
#include "common/wire.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_msg m, back;
    struct errbuf e = { 0 };
    uint8_t *bytes = NULL, *again = NULL;
    size_t n = 0, n2 = 0;
    if (wire_decode(data, size, &m, &e) < 0) {
        FUZZ_CHECK(e.text[0]);
        wire_msg_fini(&m);
        return 0;
    }
    int rc = wire_encode(&m, &bytes, &n, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    FUZZ_CHECK(rc == 0);
    FUZZ_CHECK(wire_decode(bytes, n, &back, &e) == 0);
    FUZZ_CHECK(wire_encode(&back, &again, &n2, &e) == 0);
    FUZZ_CHECK(n == n2 && memcmp(bytes, again, n) == 0);
    free(bytes);
    free(again);
    wire_msg_fini(&m);
    wire_msg_fini(&back);
    return 0;
}
