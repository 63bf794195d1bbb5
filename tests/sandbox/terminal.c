/* Acts of the probe that need a terminal. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

static int is(const char *mode, const char *name) { return strcmp(mode, name) == 0; }

static void say(const char *text) { if (write(2, text, strlen(text)) < 0) _exit(9); }

static void on_signal(int number) {
    if (number == SIGINT) say("interrupted\n");
    if (number == SIGCONT) say("continued\n");
    if (number == SIGWINCH) {
        struct winsize size;
        char line[64];
        if (ioctl(2, TIOCGWINSZ, &size)) _exit(9);
        snprintf(line, sizeof line, "size %dx%d\n", size.ws_row, size.ws_col);
        say(line);
    }
}

/* What the terminal of each stream is. */
static int seat(void) {
    struct winsize size = {0};
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC), why = errno;
    for (int fd = 0; fd < 3; fd++) printf("%d %s\n", fd, isatty(fd) ? ttyname(fd) ? ttyname(fd) : "nameless" : "no");
    printf("tty %s\n", tty >= 0 ? "opens" : strerror(why));
    if (tty >= 0) {
        ioctl(tty, TIOCGWINSZ, &size);
        printf("size %dx%d\n", size.ws_row, size.ws_col);
        printf("foreground %d\n", tcgetpgrp(tty) == getpgrp());
    }
    printf("another %s\n", open("/dev/pts/1", O_RDWR | O_NOCTTY) >= 0 ? "opens" : strerror(errno));
    printf("kind %s\n", getenv("TERM") ? getenv("TERM") : "none");
    return 0;
}

/* Says what it reads, line by line, and what happens to it. */
static int converse(void) {
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    char line[256];
    sigaction(SIGINT, &act, 0);
    sigaction(SIGCONT, &act, 0);
    sigaction(SIGWINCH, &act, 0);
    say("ready\n");
    while (fgets(line, sizeof line, stdin)) {
        if (is(line, "quit\n")) return 7;
        if (is(line, "stop\n")) { say("stopping\n"); kill(getpid(), SIGSTOP); continue; }
        if (is(line, "silent\n")) {
            struct termios modes;
            tcgetattr(0, &modes);
            modes.c_lflag &= ~ECHO;
            tcsetattr(0, TCSADRAIN, &modes);
            say("silence\n");
            continue;
        }
        fprintf(stderr, "got %s", line);
    }
    say("the end\n");
    return 0;
}

/* Asks on the terminal, whatever the streams are. */
static int ask(void) {
    char line[256];
    FILE *tty = fopen("/dev/tty", "r+");
    if (!tty) { printf("no terminal: %s\n", strerror(errno)); return 3; }
    setvbuf(tty, 0, _IONBF, 0);
    fprintf(tty, "secret? ");
    if (!fgets(line, sizeof line, tty)) return 4;
    fprintf(stderr, "told %s", line);
    return 0;
}

/* Tries to get more of what is behind a stream than was handed in. */
static int behind(void) {
    char byte;
    struct stat found;
    fstat(0, &found);
    printf("is a file %d\n", S_ISREG(found.st_mode));
    printf("for writing %s\n", open("/proc/self/fd/0", O_WRONLY) >= 0 && S_ISREG(found.st_mode) ? "opens" : "no");
    printf("truncated %d\n", ftruncate(0, 0) == 0);
    printf("mode changed %d\n", S_ISREG(found.st_mode) && fchmod(0, 0777) == 0);
    if (read(0, &byte, 1) != 1) return 5;
    printf("read %c\n", byte);
    return 0;
}

static int inode(void) {
    struct stat found;
    if (fstat(1, &found)) return 9;
    printf("inode %lu\n", (unsigned long)found.st_ino);
    return 0;
}

int terminal(const char *mode) {
    if (is(mode, "inode")) return inode();
    if (is(mode, "seat")) return seat();
    if (is(mode, "converse")) return converse();
    if (is(mode, "ask-terminal")) return ask();
    if (is(mode, "behind")) return behind();
    return -1;
}
