/* Lies to one process, by LD_PRELOAD: what its clocks show, and what becomes of its files. Loaded by tests/liar.py.
 *
 * What is lied is in a file that the test changes and everybody maps (LIAR_CONTROL): a lie begins and ends in all processes
 * at once, without a system call. Without the file, or with zeros in it, the truth is told. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PATHS 4
enum { WRITING = 1, SYNCING = 2, RENAMING = 4, READING = 8, CREATING = 16 };

/* The layout is tests/liar.py's too. */
struct lies {
    int64_t realtime, boottime;              /* added to these clocks, nanoseconds */
    int64_t error;                           /* the errno of calls that fail; 0: none does */
    int64_t kinds;                           /* which calls: the bits above */
    int64_t told;                            /* counted up with each call that failed */
    char paths[PATHS][256];                  /* ... on files whose paths begin so */
};

static struct lies *lies;
static const struct lies truth;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LIAR_CONTROL");
    int fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *lies, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (found != MAP_FAILED) lies = found;
}

static const struct lies *now(void) { return lies ? lies : &truth; }

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

/* Clocks */

static void add(struct timespec *at, int64_t nanoseconds) {
    int64_t sum = at->tv_sec * INT64_C(1000000000) + at->tv_nsec + nanoseconds;
    at->tv_sec = sum / 1000000000;
    at->tv_nsec = sum % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int done = REAL(clock_gettime)(clock, at);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) add(at, now()->realtime);
    if (!done && (clock == CLOCK_BOOTTIME || clock == CLOCK_BOOTTIME_ALARM)) add(at, now()->boottime);
    return done;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec shown;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &shown);
    at->tv_sec = shown.tv_sec;
    at->tv_usec = shown.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec shown;
    clock_gettime(CLOCK_REALTIME, &shown);
    if (at) *at = shown.tv_sec;
    return shown.tv_sec;
}

/* "Now" is the kernel's clock in these: it is replaced by what the clock shows here. */
static const struct timespec *shown_instead(const struct timespec *given, struct timespec made[2]) {
    if (!now()->realtime) return given;
    for (int each = 0; each < 2; each++) {
        if (given) made[each] = given[each];
        if (!given || given[each].tv_nsec == UTIME_NOW) clock_gettime(CLOCK_REALTIME, &made[each]);
    }
    return made;
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    struct timespec made[2];
    return REAL(utimensat)(folder, path, shown_instead(times, made), flags);
}

int futimens(int fd, const struct timespec times[2]) {
    struct timespec made[2];
    return REAL(futimens)(fd, shown_instead(times, made));
}

/* Files */

static int is_meant(const char *path) {
    for (int each = 0; each < PATHS; each++) {
        const char *beginning = now()->paths[each];
        if (*beginning && strncmp(path, beginning, strlen(beginning)) == 0) return 1;
    }
    return 0;
}

static int fails(int kind, const char *path) {
    if (!now()->error || !(now()->kinds & kind) || !is_meant(path)) return 0;
    __atomic_fetch_add(&lies->told, 1, __ATOMIC_RELAXED);
    errno = (int)now()->error;
    return 1;
}

static int fails_on(int kind, int fd) {
    char link[64], path[4096];
    if (!now()->error || !(now()->kinds & kind)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int before = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(kind, path);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return fails_on(WRITING, fd) ? -1 : REAL(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails_on(WRITING, fd) ? -1 : REAL(writev)(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return fails_on(WRITING, fd) ? -1 : REAL(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    return fails_on(WRITING, fd) ? -1 : REAL(pwrite)(fd, bytes, count, at);
}

int ftruncate(int fd, off_t length) { return fails_on(WRITING, fd) ? -1 : REAL(ftruncate)(fd, length); }
int ftruncate64(int fd, off_t length) { return fails_on(WRITING, fd) ? -1 : REAL(ftruncate)(fd, length); }

ssize_t read(int fd, void *bytes, size_t count) {
    return fails_on(READING, fd) ? -1 : REAL(read)(fd, bytes, count);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t at) {
    return fails_on(READING, fd) ? -1 : REAL(pread)(fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t at) {
    return fails_on(READING, fd) ? -1 : REAL(pread)(fd, bytes, count, at);
}

int fsync(int fd) { return fails_on(SYNCING, fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_on(SYNCING, fd) ? -1 : REAL(fdatasync)(fd); }

int rename(const char *from, const char *to) { return fails(RENAMING, to) ? -1 : REAL(rename)(from, to); }

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return fails(RENAMING, to) ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags) {
    return fails(RENAMING, to) ? -1 : REAL(renameat2)(from_folder, from, to_folder, to, flags);
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    if ((flags & (O_CREAT | O_TRUNC)) && fails(CREATING, path)) return -1;
    return REAL(openat)(folder, path, flags, mode);
}

#define MODE(flags) ({ mode_t mode = 0; if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } mode; })

int open(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return opened(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int folder, const char *path, int flags, ...) { return opened(folder, path, flags, MODE(flags)); }
int openat64(int folder, const char *path, int flags, ...) { return opened(folder, path, flags, MODE(flags)); }
