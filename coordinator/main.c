/* main.c - didactd. */
#include "common/log.h"
#include "coordinator/coord.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    struct opts o;
    struct errbuf e;
    int rc = opts_parse(&o, argc, argv, &e);
    if (rc < 0) {
        fprintf(stderr, "didactd: %s\n", e.text);
        return err_exit_status(rc);
    }
    if (o.help) {
        opts_usage();
        return 0;
    }
    if (o.version) {
        printf("didactd %s\n", DIDACT_VERSION);
        return 0;
    }
    log_init("didactd", (enum log_level)o.log_level);
    if (o.print_config) {
        opts_print(&o);
        return 0;
    }
    rc = opts_check_exposure(&o, &e);
    if (rc < 0) {
        fprintf(stderr, "didactd: %s\n", e.text);
        return err_exit_status(rc);
    }
    return coord_run(&o);
}
