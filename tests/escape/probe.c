/* Ways out that the jail's tests try, one a mode, each with its answer on stdout. Linked into the probe of tests/sandbox. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int is(const char *mode, const char *name) { return strcmp(mode, name) == 0; }

/* What an act answered: 0 or an error number. */
static int got(long result) { return result < 0 ? errno : 0; }

static void say(const char *what, long result) {
    int answer = got(result);
    printf("%s %d\n", what, answer);
}

#ifdef __x86_64__
static long call_with_ones(long number, int old_gate) {
    long result;
    if (old_gate) {
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(-1L), "c"(-1L), "d"(-1L), "S"(-1L), "D"(-1L) : "memory");
        return result;
    }
    register long r10 __asm__("r10") = -1, r8 __asm__("r8") = -1, r9 __asm__("r9") = -1;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(-1L), "S"(-1L), "d"(-1L), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* Makes every call with all bits of all arguments set, each in a child: most can do nothing with that, whoever asks. */
static void sweep(const char *how) {
    int old_gate = is(how, "int80");
    long bits = is(how, "x32") ? 0x40000000 : 0;
    for (long number = 0; number <= 470; number++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            struct itimerval soon = {.it_value = {.tv_usec = 300000}};
            setitimer(ITIMER_REAL, &soon, 0);
            long result = call_with_ones(number | bits, old_gate);
            /* Without the C library: after vfork two processes stand on this stack. */
            long code = result < 0 && result > -4096 ? -result : 0;
            __asm__ volatile("syscall" : : "a"((long)SYS_exit_group), "D"(code) : "rcx", "r11", "memory");
        }
        int status = 0;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        if (WIFSIGNALED(status)) printf("%ld signal %d\n", number, WTERMSIG(status));
        else printf("%ld exit %d\n", number, WEXITSTATUS(status));
    }
}
#endif

static void try_socket(long family, long kind, long protocol) {
    int fd = syscall(SYS_socket, family, kind, protocol);
    printf("%ld %ld %ld %d\n", family, kind, protocol, fd < 0 ? errno : 0);
    if (fd >= 0) close(fd);
}

static void families(void) {
    for (long family = 0; family <= 60; family++)
        for (long kind = 0; kind <= 10; kind++) try_socket(family, kind, 0);
    for (long protocol = 0; protocol <= 31; protocol++) try_socket(AF_NETLINK, SOCK_RAW, protocol);
    for (long family = AF_INET; family <= AF_INET6; family += AF_INET6 - AF_INET)
        for (long protocol = 0; protocol <= 262; protocol++) {
            try_socket(family, SOCK_STREAM, protocol);
            try_socket(family, SOCK_DGRAM, protocol);
            try_socket(family, SOCK_RAW, protocol);
        }
}

/* At every mount there is: make a file or open it for writing, make it writable, take it away. */
static void mounts(void) {
    FILE *table = fopen("/proc/self/mountinfo", "r");
    char line[8192], at[4096], file[4200];
    while (table && fgets(line, sizeof line, table)) {
        if (sscanf(line, "%*d %*d %*s %*s %4095s", at) != 1) continue;
        struct stat found;
        if (lstat(at, &found)) continue;
        int fd;
        if (S_ISDIR(found.st_mode)) {
            snprintf(file, sizeof file, "%s/made-by-the-probe", at);
            fd = open(file, O_CREAT | O_EXCL | O_WRONLY, 0600);
        } else fd = open(at, O_WRONLY);
        int made = got(fd);
        if (fd >= 0) close(fd);
        int remounted = got(mount("none", at, "", MS_REMOUNT | MS_BIND, ""));
        int taken = got(umount2(at, MNT_DETACH));
        int covered = got(mount("tmpfs", at, "tmpfs", 0, ""));
        printf("%s %s %d %d %d %d\n", at, S_ISDIR(found.st_mode) ? "dir" : "file", made, remounted, taken, covered);
    }
}

static void nodes(const char *dir) {
    char path[4096];
    snprintf(path, sizeof path, "%s/char", dir);
    say("char", mknod(path, S_IFCHR | 0666, makedev(1, 3)));
    snprintf(path, sizeof path, "%s/block", dir);
    say("block", mknod(path, S_IFBLK | 0666, makedev(7, 0)));
    snprintf(path, sizeof path, "%s/fifo", dir);
    say("fifo", mkfifo(path, 0666));
}

/* What there is of a process to get hold of. */
static void reach(const char *pid) {
    const char *things[] = {"exe", "root/", "cwd/", "mem", "fd", "map_files", "environ", "ns/user", "ns/mnt", "maps"};
    char path[128];
    for (unsigned i = 0; i < sizeof things / sizeof *things; i++) {
        snprintf(path, sizeof path, "/proc/%s/%s", pid, things[i]);
        int fd = open(path, O_RDONLY);
        say(things[i], fd);
        if (fd >= 0) close(fd);
    }
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    say("exe-write", open(path, O_WRONLY));
    say("exe-both", open(path, O_RDWR));
    say("exe-cut", truncate(path, 0));
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    say("mem-write", open(path, O_RDWR));
}

static void outward(int pid) {
    say("exists", kill(pid, 0));
    say("stop", kill(pid, SIGSTOP));
    say("continue", kill(pid, SIGCONT));
    say("thread", syscall(SYS_tgkill, pid, pid, 0));
    say("queue", sigqueue(pid, 0, (union sigval){0}));
    say("pidfd", syscall(SYS_pidfd_open, pid, 0));
    say("attach", ptrace(PTRACE_SEIZE, pid, 0, 0));
}

/* The table of siblings: whose memory opens, who can be stopped, among processes of one id. */
static void siblings(void) {
    for (int shut = 0; shut < 2; shut++) {
        int ready[2];
        char byte;
        if (pipe(ready)) exit(2);
        pid_t child = fork();
        if (child == 0) {
            if (shut) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
            if (write(ready[1], "x", 1) != 1) _exit(2);
            for (;;) pause();
        }
        if (read(ready[0], &byte, 1) != 1) exit(2);
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/mem", child);
        int opened = got(open(path, O_RDWR));
        int status = 0;
        kill(child, SIGSTOP);
        waitpid(child, &status, WUNTRACED);
        printf("%s mem %d %s\n", shut ? "shut" : "open", opened, WIFSTOPPED(status) ? "stopped" : "not stopped");
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    int opened = got(open("/proc/1/mem", O_RDWR));
    kill(1, SIGSTOP);
    usleep(50000);
    char state = '?', line[512];
    FILE *stat = fopen("/proc/1/stat", "r");
    if (stat && fgets(line, sizeof line, stat)) state = strrchr(line, ')')[2];
    printf("init mem %d %s\n", opened, state == 'T' ? "stopped" : "not stopped");
}

static void terminal(void) {
    char letter = 'x', subcode = 3;
    int plain = 0;
    unsigned long high[] = {0, 1UL << 32, 0xffffffff00000000UL, 1UL << 63};
    for (unsigned i = 0; i < 4; i++) {
        say("TIOCSTI", syscall(SYS_ioctl, 0, TIOCSTI | high[i], &letter));
        say("TIOCLINUX", syscall(SYS_ioctl, 0, TIOCLINUX | high[i], &subcode));
        say("TIOCSETD", syscall(SYS_ioctl, 0, TIOCSETD | high[i], &plain));
    }
    struct winsize size;
    say("TIOCGWINSZ", ioctl(0, TIOCGWINSZ, &size));
    say("tty", open("/dev/tty", O_RDWR));
    say("console", open("/dev/console", O_RDWR));
}

static struct sockaddr_un named(const char *name, socklen_t *length) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int abstract = name[0] != '/';
    strncpy(address.sun_path + abstract, name, sizeof address.sun_path - 2);
    *length = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name);
    return address;
}

static int connect_unix(const char *name) {
    socklen_t length;
    struct sockaddr_un address = named(name, &length);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, length)) { int failed = errno; close(fd); errno = failed; return -1; }
    return fd;
}

static void connect_to(const char *host, int port) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int is_four = inet_pton(AF_INET, host, &four.sin_addr) == 1;
    if (!is_four && inet_pton(AF_INET6, host, &six.sin6_addr) != 1) exit(2);
    for (int kind = SOCK_STREAM; kind <= SOCK_DGRAM; kind++) {
        int fd = socket(is_four ? AF_INET : AF_INET6, kind | SOCK_NONBLOCK, 0);
        long result = is_four ? connect(fd, (struct sockaddr *)&four, sizeof four)
                              : connect(fd, (struct sockaddr *)&six, sizeof six);
        if (result < 0 && errno == EINPROGRESS) result = 0;
        say(kind == SOCK_STREAM ? "stream" : "datagram", result);
        close(fd);
    }
}

/* Hands an open file of the output to whoever listens. */
static int pass_descriptor(const char *socket_path, const char *file) {
    int passed = open(file, O_CREAT | O_RDWR, 0644);
    if (passed < 0 || write(passed, "before", 6) != 6) return 2;
    int to = connect_unix(socket_path);
    if (to < 0) { say("connect", to); return 3; }
    char byte = 'x', space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec io = {&byte, 1};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(part), &passed, sizeof passed);
    return sendmsg(to, &message, 0) == 1 ? 0 : 4;
}

static void make(const char *name, const char *content) {
    int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0 || write(fd, content, strlen(content)) < 0) exit(2);
    close(fd);
}

static void hostile_tree(const char *dir) {
    if (chdir(dir)) exit(2);
    make("report.xml", "lower");
    make("Report.xml", "title");
    make("REPORT.XML", "upper");
    make("-rf", "dash");
    make(" ", "blank");
    make("...", "dots");
    make("bad\xff\xfename", "no text");
    make("bell\a", "control");
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = 0;
    make(longest, "long");
    make("twice", "linked");
    if (link("twice", "twice again")) exit(2);
    say("setuid", chmod("twice", 06755));
    say("setuid-open", open("made", O_CREAT | O_WRONLY, 04755));
    say("capability", syscall(SYS_setxattr, "twice", "security.capability", "\1\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0));
    nodes(".");
    if (symlink("/etc/passwd", "absolute") || symlink("../../../../etc", "upward") || symlink("loop", "loop")) exit(2);
    socklen_t length;
    struct sockaddr_un address = named("/x", &length);
    strcpy(address.sun_path, "socket");
    if (bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address)) exit(2);
}

/* A directory of each mode that its owner can give it, with a file in it. */
static void shut_tree(const char *dir) {
    if (chdir(dir)) exit(2);
    for (int mode = 0; mode < 8; mode++) {
        char name[16], inner[32];
        snprintf(name, sizeof name, "mode-%d", mode);
        snprintf(inner, sizeof inner, "%s/inner", name);
        if (mkdir(name, 0755)) exit(2);
        make(inner, name);
        if (chmod(inner, 0) || chmod(name, mode << 6)) exit(2);
    }
    if (chmod(".", 0500)) exit(2);
}

static void deep_tree(const char *dir, int levels) {
    if (chdir(dir)) exit(2);
    for (int level = 0; level < levels; level++) if (mkdir("d", 0755) || chdir("d")) exit(2);
}

static void *wait_forever(void *nothing) { for (;;) pause(); return nothing; }

static void print_file(const char *path) {
    int fd = open(path, O_RDONLY);
    char block[4096];
    ssize_t n;
    printf("%s %d:", path, got(fd));
    while (fd >= 0 && (n = read(fd, block, sizeof block)) > 0)
        for (ssize_t i = 0; i < n; i++) putchar(block[i] ? block[i] : ' ');
    putchar('\n');
    if (fd >= 0) close(fd);
}

int escape(int argc, char **argv) {
    const char *mode = argv[1];
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
#ifdef __x86_64__
    if (is(mode, "sweep")) { sweep(argv[2]); return 0; }
#endif
    if (is(mode, "families")) { families(); return 0; }
    if (is(mode, "mounts")) { mounts(); return 0; }
    if (is(mode, "nodes")) { nodes(argv[2]); return 0; }
    if (is(mode, "reach")) { reach(argv[2]); return 0; }
    if (is(mode, "outward")) { outward(atoi(argv[2])); return 0; }
    if (is(mode, "siblings")) { siblings(); return 0; }
    if (is(mode, "terminal")) { terminal(); return 0; }
    if (is(mode, "listen")) {
        socklen_t length;
        struct sockaddr_un address = named(argv[2], &length);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 8)) return 3;
        make(argv[3], "");
        for (;;) pause();
    }
    if (is(mode, "join")) { say("connect", connect_unix(argv[2])); return 0; }
    if (is(mode, "connect")) { connect_to(argv[2], atoi(argv[3])); return 0; }
    if (is(mode, "pass")) return pass_descriptor(argv[2], argv[3]);
    if (is(mode, "hostile")) { hostile_tree(argv[2]); return 0; }
    if (is(mode, "shut")) { shut_tree(argv[2]); return 0; }
    if (is(mode, "deep")) { deep_tree(argv[2], atoi(argv[3])); return 0; }
    if (is(mode, "sparse")) {
        if (chdir(argv[2])) return 2;
        int fd = open("sparse", O_CREAT | O_WRONLY, 0644);
        say("sparse", ftruncate(fd, 1L << 40));
        return 0;
    }
    if (is(mode, "threads")) {
        int made = 0, failed = 0;
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 1 << 16);
        while (made < 5000 && (failed = pthread_create(&thread, &small, wait_forever, 0)) == 0) made++;
        printf("%d errno %d\n", made, failed);
        return 0;
    }
    if (is(mode, "files")) {
        int made = 0, failed = 0;
        char path[128];
        while (made < 100000) {
            snprintf(path, sizeof path, "%s/%d", argv[2], made);
            int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
            if (fd < 0) { failed = errno; break; }
            close(fd);
            made++;
        }
        printf("%d errno %d\n", made, failed);
        return 0;
    }
    if (is(mode, "descriptors")) {
        int made = 0;
        while (made < 1000000 && open("/dev/null", O_RDONLY) >= 0) made++;
        printf("%d errno %d\n", made, errno);
        return 0;
    }
    if (is(mode, "leaks")) {
        DIR *all = opendir("/proc");
        for (struct dirent *e; all && (e = readdir(all));) {
            if (e->d_name[0] < '0' || e->d_name[0] > '9') continue;
            char path[320];
            const char *files[] = {"cmdline", "environ", "comm"};
            for (int i = 0; i < 3; i++) {
                snprintf(path, sizeof path, "/proc/%s/%s", e->d_name, files[i]);
                print_file(path);
            }
        }
        for (int fd = 0; fd < 4096; fd++) {
            char path[64], target[4096];
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(path, target, sizeof target - 1);
            if (n >= 0) printf("fd %d %.*s\n", fd, (int)n, target);
        }
        return 0;
    }
    if (is(mode, "stat")) {
        for (int i = 2; i < argc; i++) {
            struct stat found;
            int failed = got(lstat(argv[i], &found));
            if (failed) printf("%s errno %d\n", argv[i], failed);
            else printf("%s %o %u:%u\n", argv[i], found.st_mode & S_IFMT, major(found.st_rdev), minor(found.st_rdev));
        }
        return 0;
    }
    if (is(mode, "where")) {
        char here[4096];
        printf("%s\n", getcwd(here, sizeof here) ? here : "nowhere");
        DIR *d = opendir(".");
        for (struct dirent *e; d && (e = readdir(d));) printf("%s\n", e->d_name);
        d = opendir("..");
        for (struct dirent *e; d && (e = readdir(d));) printf("%s\n", e->d_name);
        return 0;
    }
    if (is(mode, "linger")) {
        /* A daemon, forked twice, that ignores what it can and goes on writing. */
        if (fork() == 0) {
            setsid();
            if (fork() != 0) _exit(0);
            for (int s = 1; s < 32; s++) signal(s, SIG_IGN);
            int fd = open(argv[2], O_CREAT | O_WRONLY | O_APPEND, 0644);
            for (;;) { if (write(fd, ".", 1) != 1) _exit(1); usleep(1000); }
        }
        struct stat found;
        while (stat(argv[2], &found) || found.st_size == 0) usleep(1000);
        return 0;
    }
    if (is(mode, "inject")) {
        printf("\033]0;title\a\033[2J\033[31mred\r\xc2\x9b" "31m\xe2\x80\xae" "reversed\n");
        return 0;
    }
    (void)argc;
    fprintf(stderr, "no mode %s\n", mode);
    return 99;
}
