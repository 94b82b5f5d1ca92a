/* main.c - didact, the command line. Everything is in the library, so that tests can call it. */
#include "client/cli.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
