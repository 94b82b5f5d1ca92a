/* pages.c - all trials of a job, however many: lists are answered page by page. */
#include "client/verbs.h"

int each_trial(struct conn *conn, const char *job, const char *sort, int (*on)(void *arg, const json_t *trial), void *arg, struct errbuf *e)
{
    enum { PAGE = 500 };
    for (long long offset = 0;; offset += PAGE) {
        json_t *doc, *t;
        size_t i;
        int rc = conn_query(conn, &doc, e, "jobs/%s/trials?sort=%s&offset=%lld&limit=%d", job, sort, offset, PAGE);
        if (rc < 0)
            return rc;
        json_array_foreach(json_object_get(doc, "trials"), i, t)
            if (rc == 0)
                rc = on(arg, t);
        size_t got = json_array_size(json_object_get(doc, "trials"));
        json_decref(doc);
        if (rc < 0 || got < PAGE)
            return rc;
    }
}
