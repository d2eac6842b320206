/* The program that every contestant supervises. What it does is said by its environment, since not every contestant
 * passes arguments: BENCH_STAMPS names a file that it appends "PID NANOSECONDS\n" to at its start (CLOCK_MONOTONIC), so
 * that figures come from the children and not from who supervises them. BENCH_MODE is
 *   (absent)            wait for a signal
 *   write:BYTES         rest a second, stamp the begin, write as many bytes of lines in blocks of 64 KiB, stamp the end, wait
 *   rate:LINES:SECONDS  write LINES lines a second, one write each, for SECONDS, stamp the end too, wait
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE 100
#define BLOCK (64 * 1024)

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void stamp(long long at) {
    const char *path = getenv("BENCH_STAMPS");
    char text[64];
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd < 0) _exit(111);
    int length = snprintf(text, sizeof text, "%d %lld\n", (int)getpid(), at);
    if (write(fd, text, length) != length) _exit(112);
    close(fd);
}

static void put(const char *data, size_t size) {
    while (size) {
        ssize_t done = write(1, data, size);
        if (done < 0 && errno != EINTR) _exit(113);
        if (done > 0) data += done, size -= done;
    }
}

int main(void) {
    stamp(now());
    const char *mode = getenv("BENCH_MODE");
    static char block[BLOCK + LINE];
    for (int i = 0; i < BLOCK + LINE; i++) block[i] = i % LINE == LINE - 1 ? '\n' : 'a' + i % 26;
    if (mode && !strncmp(mode, "write:", 6)) {
        long long left = atoll(mode + 6), offset = 0;
        sleep(1); /* whoever supervises is done with the start: what follows is of the log alone */
        stamp(now());
        while (left > 0) {
            size_t size = left < BLOCK ? left : BLOCK;
            put(block + offset % LINE, size);
            offset += size;
            left -= size;
        }
        stamp(now());
    } else if (mode && !strncmp(mode, "rate:", 5)) {
        long lines = atol(mode + 5), seconds = atol(strchr(mode + 5, ':') + 1);
        long long begin = now();
        for (long n = 0; n < lines * seconds; n++) {
            long long due = begin + n / 10 * 10 * 1000000000LL / lines, wait = due - now(); /* ten lines, then a rest */
            if (wait > 0) {
                struct timespec rest = {wait / 1000000000LL, wait % 1000000000LL};
                nanosleep(&rest, 0);
            }
            put(block, LINE);
        }
        stamp(now());
    }
    for (;;) pause();
}
