/* What runs inside the jails of the tests: one act a mode, its answer on stdout. Linked statically. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* The modes of tests/escape/probe.c. */
int escape(int argc, char **argv);
int terminal(const char *mode);

static int is(const char *mode, const char *name) { return strcmp(mode, name) == 0; }

static int answer(long result) {
    if (result < 0) printf("errno %d\n", errno);
    else printf("ok\n");
    return 0;
}

static void list_descriptors(void) {
    for (int fd = 0; fd < 4096; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) printf("%d ", fd);
    }
    printf("\n");
}

static void cat(int from) {
    char buffer[65536];
    ssize_t n;
    while ((n = read(from, buffer, sizeof buffer)) > 0) {
        if (write(1, buffer, n) != n) exit(9);
    }
}

static void eat(int shared) {
    size_t step = 1 << 20;
    for (;;) {
        int flags = MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE);
        char *p = mmap(0, step, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (p == MAP_FAILED) exit(3);
        memset(p, 1, step);
    }
}

/* Children that fill sockets or pipes and stay; they hold memory that is in no address space. */
static int eat_buffers(int sockets) {
    static char block[65536];
    for (int child = 0; child < 8; child++) {
        if (fork() != 0) continue;
        int ends[2];
        while ((sockets ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) == 0) {
            int large = 4 << 20;
            setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
            fcntl(ends[1], F_SETFL, O_NONBLOCK);
            while (write(ends[1], block, sizeof block) > 0) {}
        }
        for (;;) pause();
    }
    sleep(5);
    return 5;
}

/* Reads a page here and there of what is never written: only the page tables grow. */
static void eat_tables(void) {
    size_t step = 2UL << 20, size = 64UL << 30;
    volatile char *p = mmap(0, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) exit(3);
    for (size_t at = 0; at < size; at += step) (void)p[at];
    sleep(5);
}

/* Hands its memory on to a child and ends, and so on, a little more each time: no process lives for long. */
static int eat_in_relay(void) {
    size_t step = 1 << 20;
    int ends[2];
    char byte;
    if (pipe(ends)) return 2;
    if (fork() == 0) {
        close(ends[0]);
        for (;;) {
            char *p = mmap(0, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED) _exit(3);
            memset(p, 1, step);
            pid_t next = fork();
            if (next < 0) _exit(3);
            if (next > 0) _exit(0);
        }
    }
    close(ends[1]);
    return read(ends[0], &byte, 1) == 0 ? 1 : 2;
}

/* Grows to 256 MiB while orphans end all the time, each of which wakes the init up. */
static int eat_among_orphans(void) {
    size_t step = 1 << 20;
    for (int turn = 0; turn < 256; turn++) {
        pid_t child = fork();
        if (child == 0) {
            if (fork() == 0) usleep(1000);
            _exit(0);
        }
        if (child > 0) waitpid(child, 0, 0);
        char *p = mmap(0, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return 3;
        memset(p, 1, step);
    }
    return 5;
}

static void *eat_in_thread(void *nothing) { eat(0); return nothing; }

/* Shares pages with its children, as programs do that fork workers. */
static int share_by_forking(void) {
    size_t size = 40 << 20;
    char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 3;
    memset(p, 1, size);
    for (int child = 0; child < 8; child++) if (fork() == 0) { usleep(500000); _exit(p[child] - 1); }
    int failed = 0, status;
    while (wait(&status) > 0) failed |= status;
    return failed ? 1 : 0;
}

/* The same, with workers that end and are replaced all the time. */
static int share_by_relays(void) {
    size_t size = 40 << 20;
    char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 3;
    memset(p, 1, size);
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += 3;
    int failed = 0, status, alive = 0;
    do {
        while (alive < 16) {
            int ms = 2 + 5 * alive++;
            if (fork() == 0) { usleep(ms * 1000); _exit(p[ms] - 1); }
        }
        /* Half of them end one by one, then all at once. */
        while (alive > 8 && wait(&status) > 0) { failed |= status; alive--; }
        usleep(20000);
        while (alive > 0 && wait(&status) > 0) { failed |= status; alive--; }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec);
    return failed ? 1 : 0;
}

/* Starts a program the way that lends it the address space until then. */
static int share_by_vfork(void) {
    size_t size = 40 << 20;
    char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 3;
    memset(p, 1, size);
    if (vfork() == 0) { usleep(500000); _exit(0); }
    return 0;
}

/* Memory that would outlive its mappings; then the controls, which must go on working. */
static void lasting_memory(void) {
    void *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    answer(p == MAP_FAILED ? -1 : 0);
    int zero = open("/dev/zero", O_RDWR);
    p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, zero, 0);
    answer(p == MAP_FAILED ? -1 : 0);
    answer(syscall(SYS_shmget, 0, 4096, 01600));
    answer(syscall(SYS_msgget, 0, 01600));
    answer(syscall(SYS_semget, 0, 1, 01600));
    int ends[2];
    if (pipe(ends)) exit(2);
    answer(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20));
    answer(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0));
    char byte = 1;
    answer(read(zero, &byte, 1) == 1 && byte == 0 ? 0 : -1);
    int file = open("/dev/shm/x", O_CREAT | O_RDWR, 0600);
    if (ftruncate(file, 4096)) exit(2);
    p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    answer(p == MAP_FAILED ? -1 : 0);
}

/* Acts on another process that ask for no more than its id. */
static void meddle(int pid) {
    struct rlimit none = {0, 0};
    struct sched_param plain = {0};
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    answer(syscall(SYS_prlimit64, pid, RLIMIT_CORE, &none, 0));
    answer(syscall(SYS_sched_setscheduler, pid, SCHED_BATCH, &plain));
    answer(syscall(SYS_sched_setparam, pid, &plain));
    answer(syscall(SYS_sched_setaffinity, pid, sizeof all, &all));
    answer(setpriority(PRIO_PROCESS, pid, 5));
    answer(setpriority(PRIO_USER, pid, 5));
    answer(syscall(SYS_ioprio_set, 1, pid, 3 << 13));
    answer(syscall(SYS_ioprio_set, 3, pid, 3 << 13));
}

static int bind_to(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    int result = bind(fd, (struct sockaddr *)&at, sizeof at);
    return result == 0 ? listen(fd, 1) : result;
}

static int connect_to(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&at, sizeof at);
}

/* A socket by path, or with '@' in front an abstract one. */
static socklen_t unix_address(struct sockaddr_un *at, const char *name) {
    memset(at, 0, sizeof *at);
    at->sun_family = AF_UNIX;
    strncpy(at->sun_path, name, sizeof at->sun_path - 1);
    if (*name == '@') at->sun_path[0] = 0;
    return offsetof(struct sockaddr_un, sun_path) + strlen(name) + (*name == '@' ? 0 : 1);
}

static int loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    return ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &request);
}

static void must(const char *what, long result) {
    if (result < 0) printf("%s: errno %d\n", what, errno);
}

/* What ordinary programs do with files: prints only what fails. */
static int use_files(const char *dir) {
    must("enter", chdir(dir));
    must("mkdir", mkdir("a", 0755));
    must("mkdir", mkdir("b", 0755));
    int fd = open("a/file", O_CREAT | O_RDWR, 0644);
    must("make", fd);
    must("write", write(fd, "text", 4));
    must("ftruncate", ftruncate(fd, 2));
    must("truncate", truncate("a/file", 1));
    must("open anew", open("a/file", O_WRONLY | O_TRUNC));
    must("rename across", rename("a/file", "b/file"));
    must("link across", link("b/file", "a/link"));
    must("rename a directory", rename("a", "b/a"));
    must("symlink", symlink("file", "b/symlink"));
    must("fifo", mkfifo("b/fifo", 0644));
    must("temporary file", open("b", O_TMPFILE | O_RDWR, 0600));
    struct sockaddr_un at;
    socklen_t size = unix_address(&at, "b/socket");
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    must("bind by path", bind(server, (struct sockaddr *)&at, size));
    must("listen by path", listen(server, 1));
    must("connect by path", connect(client, (struct sockaddr *)&at, size));
    size = unix_address(&at, "@of-this-run");
    server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    must("bind abstract", bind(server, (struct sockaddr *)&at, size));
    must("listen abstract", listen(server, 1));
    must("connect abstract", connect(client, (struct sockaddr *)&at, size));
    must("unlink", unlink("b/file"));
    must("rmdir", unlink("b/a/link") || rmdir("b/a"));
    fd = open("program", O_CREAT | O_RDWR, 0755);
    must("program", write(fd, "#!/bin/none\n", 12));
    must("exclusive", open("program", O_RDONLY));
    must("/dev/null", open("/dev/null", O_RDWR | O_TRUNC));
    must("/dev/shm", open("/dev/shm/x", O_CREAT | O_RDWR, 0600));
    int random;
    must("ioctl of /dev/random", ioctl(open("/dev/random", O_RDONLY), 0x80045200 /* RNDGETENTCNT */, &random));
    pid_t child = fork();
    if (child == 0) for (;;) pause();
    must("signal a child", kill(child, SIGKILL));
    must("wait", wait(0));
    printf("done\n");
    return 0;
}

static void hostile_output(const char *dir) {
    if (chdir(dir)) exit(2);
    int fd = open("report.xml", O_CREAT | O_WRONLY, 0644);
    if (write(fd, "<ok/>", 5) != 5) exit(2);
    close(fd);
    if (symlink("/etc/shadow", "link") || symlink("/etc", "dirlink") || mkfifo("fifo", 0666)) exit(2);
    if (mkdir("shut", 0755)) exit(2);
    fd = open("shut/inner", O_CREAT | O_WRONLY, 0644);
    if (write(fd, "inner", 5) != 5) exit(2);
    close(fd);
    if (chmod("shut/inner", 0) || chmod("shut", 0)) exit(2);
    fd = open("bad\nname", O_CREAT | O_WRONLY, 0644);
    close(fd);
    /* A child that goes on writing after the main process is gone. */
    if (fork() == 0) {
        setsid();
        for (unsigned n = 0;; n++) {
            fd = open("report.xml", O_WRONLY | O_TRUNC);
            if (fd >= 0) { dprintf(fd, "<changed n='%u'/>", n); close(fd); }
        }
    }
}

/* A connection over TCP, or -1. */
static int dial(const char *address, int port) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int is_four = inet_pton(AF_INET, address, &four.sin_addr) == 1;
    if (!is_four && inet_pton(AF_INET6, address, &six.sin6_addr) != 1) exit(9);
    int fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    void *where = is_four ? (void *)&four : (void *)&six;
    return connect(fd, where, is_four ? sizeof four : sizeof six) == 0 ? fd : -1;
}

/* Sends a text to a port of loopback and prints what comes back until the other side closes. */
static int ask(int port, const char *text) {
    int fd = dial("127.0.0.1", port);
    if (fd < 0) { printf("errno %d\n", errno); return 1; }
    signal(SIGPIPE, SIG_IGN);
    if (write(fd, text, strlen(text)) < 0) { printf("errno %d\n", errno); return 1; }
    fflush(stdout);
    cat(fd);
    return 0;
}

/* Paths that two threads write over each other while a third opens what is there. */
static char shifting[8192];
static void *shift(void *what) {
    const char *path = what;
    for (;;) {
        strcpy(shifting + 4080, path);
        memset(shifting + 4080, 'x', strlen(path));
    }
    return 0;
}

static int race(int turns) {
    static char *paths[] = {"/etc/release", "/proc/self/../../etc/x", "/tmp/a/../../nothing", "../../../../../../bin"};
    pthread_t thread;
    for (int i = 0; i < 4; i++) if (pthread_create(&thread, 0, shift, paths[i])) return 2;
    for (int i = 0; i < turns; i++) {
        open(shifting + 4080, O_RDWR | O_CREAT, 0600);
        unlink(shifting + 4080);
        mkdir((char *)(unsigned long)i, 0700);
        rename((char *)-1L, shifting + sizeof shifting - 1);
    }
    printf("done\n");
    return 0;
}

static void *refused_without_end(void *nothing) {
    for (;;) ptrace(PTRACE_ATTACH, 1, 0, 0);
    return nothing;
}

/* Processes that die while a call of theirs is being answered. */
static int die_refused(int count) {
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            for (int j = 0; j < 3; j++) if (pthread_create(&thread, 0, refused_without_end, 0)) _exit(2);
            usleep(i * 37 % 1000);
            _exit(0);
        }
        if (i % 2) kill(child, SIGKILL);
        waitpid(child, 0, 0);
    }
    printf("done\n");
    return 0;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "true";
    setvbuf(stdout, 0, _IOLBF, 0);
    if (is(mode, "true")) return 0;
    if (is(mode, "exit")) return atoi(argv[2]);
    if (is(mode, "sleep")) { printf("sleeping\n"); fflush(stdout); for (;;) pause(); }
    if (is(mode, "stubborn")) {
        for (int s = 1; s < 32; s++) signal(s, SIG_IGN);
        printf("sleeping\n");
        for (;;) pause();
    }
    if (is(mode, "signal")) { raise(atoi(argv[2])); return 0; }
    if (is(mode, "say")) {
        for (int i = 2; i < argc; i++) printf("%s\n", argv[i]);
        fprintf(stderr, "to stderr\n");
        return 0;
    }
    if (is(mode, "env")) { for (char **e = environ; *e; e++) printf("%s\n", *e); return 0; }
    if (is(mode, "fds")) { list_descriptors(); return 0; }
    if (is(mode, "cat")) {
        int fd = argc > 2 ? open(argv[2], O_RDONLY) : 0;
        if (fd < 0) { printf("errno %d\n", errno); return 1; }
        cat(fd);
        return 0;
    }
    if (is(mode, "ls")) {
        DIR *d = opendir(argv[2]);
        if (!d) { printf("errno %d\n", errno); return 1; }
        for (struct dirent *e; (e = readdir(d));) printf("%s\n", e->d_name);
        return 0;
    }
    if (is(mode, "write")) return answer(open(argv[2], O_CREAT | O_WRONLY | O_TRUNC, 0644));
    if (is(mode, "append")) return answer(open(argv[2], O_WRONLY | O_APPEND));
    if (is(mode, "store")) {
        int fd = open(argv[2], O_CREAT | O_WRONLY | O_TRUNC, 0644);
        if (fd < 0) { printf("errno %d\n", errno); return 1; }
        return write(fd, argv[3], strlen(argv[3])) == (ssize_t)strlen(argv[3]) ? 0 : 1;
    }
    if (is(mode, "fill")) {
        int fd = open(argv[2], O_CREAT | O_WRONLY, 0644);
        static char block[65536];
        long total = 0;
        ssize_t n;
        signal(SIGXFSZ, SIG_IGN);
        while ((n = write(fd, block, sizeof block)) > 0) total += n;
        printf("%ld errno %d\n", total, errno);
        return 0;
    }
    if (is(mode, "dial")) return answer(dial(argv[2], atoi(argv[3])));
    if (is(mode, "ask")) return ask(atoi(argv[2]), argv[3]);
    if (is(mode, "hold")) {
        for (int i = atoi(argv[3]); i > 0; i--) {
            int fd = dial("127.0.0.1", atoi(argv[2]));
            if (fd < 0 || write(fd, argv[4], strlen(argv[4])) < 0) return 1;
        }
        printf("holding\n");
        for (;;) pause();
    }
    if (is(mode, "syscall")) {
        long a[7] = {0};
        for (int i = 2; i < argc && i < 9; i++) a[i - 2] = strtol(argv[i], 0, 0);
        return answer(syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]));
    }
    if (is(mode, "chmod")) {
        close(open("/tmp/x", O_CREAT | O_WRONLY, 0644));
        return answer(chmod("/tmp/x", strtol(argv[2], 0, 8)));
    }
    if (is(mode, "ids")) {
        printf("%d %d %d pid %d ppid %d groups %d\n", getuid(), geteuid(), getgid(), getpid(), getppid(), getgroups(0, 0));
        return 0;
    }
    if (is(mode, "cwd")) { printf("%s\n", getcwd(0, 0)); return 0; }
    if (is(mode, "hostname")) { char b[99]; gethostname(b, 99); printf("%s\n", b); return 0; }
    if (is(mode, "openinit")) {
        answer(open("/proc/1/mem", O_RDWR));
        answer(open("/proc/1/exe", O_RDONLY));
        answer(open("/proc/1/root/", O_RDONLY));
        answer(open("/proc/1/fd/3", O_RDWR));
        answer(ptrace(PTRACE_ATTACH, 1, 0, 0));
        return 0;
    }
    if (is(mode, "bind")) return answer(bind_to(atoi(argv[2])));
    if (is(mode, "connectto")) return answer(connect_to(atoi(argv[2])));
    if (is(mode, "loup")) { answer(loopback_up()); answer(bind_to(8080)); return answer(connect_to(8080)); }
    if (is(mode, "unixto")) {
        struct sockaddr_un at;
        socklen_t size = unix_address(&at, argv[2]);
        return answer(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&at, size));
    }
    if (is(mode, "usefiles")) return use_files(argv[2]);
    if (is(mode, "chroot")) return answer(chroot(argv[2]));
    if (is(mode, "shutfile")) {
        close(open("/tmp/shut", O_CREAT | O_WRONLY, 0));
        return answer(open("/tmp/shut", O_RDWR));
    }
    if (is(mode, "unlink")) return answer(unlink(argv[2]));
    if (is(mode, "rmdir")) return answer(rmdir(argv[2]));
    if (is(mode, "signalinit")) return answer(kill(1, 0));
    if (is(mode, "stderragain")) return answer(open("/dev/stderr", O_WRONLY | O_APPEND));
    if (is(mode, "statusofchild")) {
        if (fork() == 0) { cat(open("/proc/self/status", O_RDONLY)); _exit(0); }
        wait(0);
        return 0;
    }
    if (is(mode, "killinit")) { kill(1, SIGKILL); kill(1, SIGSTOP); kill(1, SIGTERM); printf("alive\n"); return 0; }
    if (is(mode, "killall")) { kill(-1, SIGSTOP); kill(-1, SIGKILL); printf("alive\n"); return 0; }
    if (is(mode, "forkbomb")) {
        for (;;) {
            pid_t p = fork();
            if (p < 0 && argc > 2) return 7;
        }
    }
    if (is(mode, "forks")) {
        int want = atoi(argv[2]), made = 0;
        for (int i = 0; i < want; i++) {
            pid_t p = fork();
            if (p < 0) break;
            if (p == 0) for (;;) pause();
            made++;
        }
        printf("%d errno %d\n", made, made < want ? errno : 0);
        return 0;
    }
    if (is(mode, "eat")) eat(0);
    if (is(mode, "eatshared")) eat(1);
    if (is(mode, "eatinchildren")) {
        for (int i = 0; i < 8; i++) if (fork() == 0) eat(0);
        int failed = 0, status;
        while (wait(&status) > 0) failed |= status;
        return failed ? 1 : 0;
    }
    if (is(mode, "eatinrelay")) return eat_in_relay();
    if (is(mode, "eatamongorphans")) return eat_among_orphans();
    if (is(mode, "eatsockets")) return eat_buffers(1);
    if (is(mode, "eatpipes")) return eat_buffers(0);
    if (is(mode, "eattables")) { eat_tables(); return 5; }
    if (is(mode, "eatheadless")) {
        pthread_t thread;
        if (pthread_create(&thread, 0, eat_in_thread, 0)) return 2;
        syscall(SYS_exit, 0);
    }
    if (is(mode, "sharebyfork")) return share_by_forking();
    if (is(mode, "sharebyrelays")) return share_by_relays();
    if (is(mode, "sharebyvfork")) return share_by_vfork();
    if (is(mode, "lasting")) { lasting_memory(); return 0; }
    if (is(mode, "meddle")) { meddle(atoi(argv[2])); return 0; }
    if (is(mode, "refusals")) {
        for (int i = 0; i < atoi(argv[2]); i++) {
            char path[64];
            socket(1000 + i, SOCK_STREAM, 0);
            snprintf(path, sizeof path, "/%d\033", i);
            mkdir(path, 0755);
        }
        printf("done\n");
        return 0;
    }
    if (is(mode, "execute")) { execv(argv[2], argv + 2); return answer(-1); }
    if (is(mode, "race")) return race(atoi(argv[2]));
    if (is(mode, "dierefused")) return die_refused(atoi(argv[2]));
    if (is(mode, "refusedforever")) {
        for (int i = 0; i < 8; i++) {
            pthread_t thread;
            if (fork() == 0) refused_without_end(0);
            if (pthread_create(&thread, 0, refused_without_end, 0)) return 2;
        }
        printf("begun\n");
        refused_without_end(0);
    }
    if (is(mode, "hog")) {
        /* For a while by the wall clock as much processor time as there is to be had, which it tells. */
        struct timespec now, end, used;
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_sec += atoi(argv[2]);
        do clock_gettime(CLOCK_MONOTONIC, &now);
        while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        printf("%ld\n", (long)used.tv_sec * 1000 + used.tv_nsec / 1000000);
        return 0;
    }
    if (is(mode, "spin")) for (volatile unsigned long n = 0;; n++) {}
    if (is(mode, "flood")) {
        static char block[65536];
        memset(block, 'A', sizeof block);
        for (;;) if (write(1, block, sizeof block) < 0) return 4;
    }
    if (is(mode, "flood-n")) {
        long n = atol(argv[2]);
        for (long i = 0; i < n; i++) printf("line %ld\n", i);
        return 0;
    }
    if (is(mode, "daemon")) {
        if (fork() == 0) {
            setsid();
            if (fork() != 0) _exit(0);
            for (int s = 1; s < 32; s++) signal(s, SIG_IGN);
            for (;;) pause();
        }
        usleep(20000);
        printf("left one behind\n");
        return 0;
    }
    if (is(mode, "trap")) {
        /* Ends with the number of the first signal that comes. */
        sigset_t all;
        int got;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, 0);
        printf("ready\n");
        fflush(stdout);
        sigwait(&all, &got);
        return got;
    }
    if (is(mode, "output")) { hostile_output(argv[2]); return 0; }
    if (is(mode, "exehole")) {
        /* CVE-2019-5736: reopen one's own executable for writing. */
        answer(open("/proc/self/exe", O_RDWR));
        answer(open(argv[0], O_RDWR));
        return 0;
    }
#ifdef __x86_64__
    if (is(mode, "int80")) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
        printf("ok %ld\n", result);
        return 0;
    }
    if (is(mode, "x32")) { printf("ok %ld\n", syscall(0x40000000 | 39)); return 0; }
#endif
    {
        int code = terminal(mode);
        if (code >= 0) return code;
    }
    return escape(argc, argv);
}
