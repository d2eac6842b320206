/* The limit of what any supervisor can do on this machine: posix_spawn in a loop, waitpid in a loop, nothing else.
 * Usage: spawner COUNT PROGRAM. Starts COUNT copies, starts again whatever dies, one more at SIGHUP; at SIGTERM it
 * kills all, reaps them, and ends. */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static volatile sig_atomic_t ending, more;

static void on_signal(int number) {
    if (number == SIGHUP) more = 1;
    else ending = 1;
}

static pid_t start(char *program) {
    char *arguments[] = {program, 0};
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t pid;
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (posix_spawn(&pid, program, 0, &attributes, arguments, environ)) _exit(111);
    posix_spawnattr_destroy(&attributes);
    return pid;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long count = atol(argv[1]);
    pid_t *pids = calloc(count + 1, sizeof *pids);
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGTERM, &act, 0);
    sigaction(SIGHUP, &act, 0);
    for (long i = 0; i < count; i++) pids[i] = start(argv[2]);
    for (;;) {
        pid_t dead = waitpid(-1, 0, 0);
        if (ending) break;
        if (more) more = 0, pids[count++] = start(argv[2]);
        if (dead > 0)
            for (long i = 0; i < count; i++)
                if (pids[i] == dead) {
                    pids[i] = start(argv[2]);
                    break;
                }
    }
    for (long i = 0; i < count; i++) kill(pids[i], SIGTERM);
    while (waitpid(-1, 0, 0) > 0 || errno == EINTR) {}
    return 0;
}
