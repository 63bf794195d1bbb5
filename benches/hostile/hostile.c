/* What packages do that mean harm to the machine: forks without end, memory, disk and output. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char block[65536];

int main(int count, char **words) {
    const char *mode = count > 1 ? words[1] : "";
    memset(block, 'x', sizeof block);
    signal(SIGXFSZ, SIG_IGN);
    if (!strcmp(mode, "forks")) {
        for (;;) if (fork() == 0) for (;;) fork();
    }
    if (!strcmp(mode, "memory")) {
        for (;;) {
            char *more = malloc(1 << 20);
            if (more) memset(more, 1, 1 << 20);
        }
    }
    if (!strcmp(mode, "disk")) {
        /* Full and empty, over and over, for a second; then full and left so. */
        time_t end = time(0) + 2;
        while (time(0) < end) {
            int file = open("/tmp/full", O_WRONLY | O_CREAT | O_TRUNC, 0600);
            while (write(file, block, sizeof block) > 0) continue;
            close(file);
        }
        return 0;
    }
    if (!strcmp(mode, "output")) {
        for (;;) if (write(1, block, sizeof block) < 0) return 1;
    }
    return 2;
}
