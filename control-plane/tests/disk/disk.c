/*
 * A disk under a process: what a process does to the files of one directory is written down, and may be made to fail.
 *
 * Loaded with LD_PRELOAD by the tests beside this file; they compile it and read what it writes (trace.rs).
 *
 *   GANTRY_DISK_ROOT   the directory, as an absolute path
 *   GANTRY_DISK_TRACE  where to write down every change below it, and what is said on standard output, in order
 *   GANTRY_DISK_FAIL   "NUMBER ERRNO once" or "NUMBER ERRNO on": let this change fail, counted from 1; it alone, or it
 *                      and every later one. A write that is to fail is cut in half, and the next one fails.
 *
 * What always holds: a change and its record are one step under one lock, so the order of the records is the order of
 * the changes, and a record is there before its caller goes on. fsync and fdatasync do not reach the real disk: whether
 * something survives is decided by whoever reads the trace. sync_file_range counts for nothing.
 *
 * Ways to change a file that are not written down here end the process, so that none goes unseen. Descriptors that are
 * inherited, threads that use raw system calls, and io_uring are not seen: nothing under test has them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* As trace.rs reads it. */
struct record {
    uint64_t what;
    uint64_t file;
    uint64_t offset;
    uint64_t name_bytes;
    uint64_t data_bytes;
};

/* Files that one child has had open: the database, checkpoints, snapshots of sled; a few hundred in the longest run. */
#define FILES_MAX 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_bytes;
static dev_t root_device;
static int trace = -1;
static long changes, fail_at, fail_errno;
static int fail_on, write_was_cut;
static ino_t files[FILES_MAX];
static size_t file_count;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static void stop(const char *why) {
    dprintf(2, "disk.c: %s is not modelled\n", why);
    _exit(86);
}

__attribute__((constructor)) static void prepare(void) {
    const char *directory = getenv("GANTRY_DISK_ROOT"), *path = getenv("GANTRY_DISK_TRACE");
    const char *fail = getenv("GANTRY_DISK_FAIL");
    struct stat status;
    if (!directory || !path) return;
    if (strlen(directory) >= sizeof root || stat(directory, &status)) stop("this root");
    strcpy(root, directory);
    root_bytes = strlen(root);
    root_device = status.st_dev;
    trace = REAL(open64)(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) stop("this trace");
    char until[8] = "";
    if (fail && (sscanf(fail, "%ld %ld %7s", &fail_at, &fail_errno, until) != 3)) stop("this failure");
    fail_on = !strcmp(until, "on");
}

/* The name below the root, without a leading slash; NULL for what lies elsewhere. */
static const char *below(const char *path) {
    if (trace < 0 || !path || strncmp(path, root, root_bytes)) return NULL;
    if (path[root_bytes] == 0) return path + root_bytes;
    return path[root_bytes] == '/' ? path + root_bytes + 1 : NULL;
}

static void put(char what, uint64_t file, uint64_t offset, const char *name, const void *data, size_t bytes) {
    struct record record = {(unsigned char)what, file, offset, name ? strlen(name) : 0, bytes};
    struct iovec parts[] = {
        {&record, sizeof record}, {(void *)name, record.name_bytes}, {(void *)data, bytes}};
    size_t all = sizeof record + record.name_bytes + bytes;
    int saved = errno;
    if (REAL(writev)(trace, parts, 3) != (ssize_t)all) stop("a trace that cannot be written");
    errno = saved;
}

/* Counts a change; whether it is to fail. */
static int fails(const char *name) {
    changes += 1;
    int hit = fail_at && (changes == fail_at || (fail_on && changes > fail_at));
    if (!hit) return 0;
    put('E', 0, changes, name, NULL, 0);
    errno = fail_errno;
    return 1;
}

static void remember(ino_t inode) {
    for (size_t at = 0; at < file_count; at++)
        if (files[at] == inode) return;
    if (file_count == FILES_MAX) stop("so many files");
    files[file_count++] = inode;
}

/* Whether a descriptor is a file below the root; 2 for a directory. */
static int watched(int fd, struct stat *status) {
    if (trace < 0 || fd == trace || fstat(fd, status) || status->st_dev != root_device) return 0;
    if (S_ISDIR(status->st_mode)) return 2;
    if (!S_ISREG(status->st_mode)) return 0;
    for (size_t at = file_count; at > 0; at--)
        if (files[at - 1] == status->st_ino) return 1;
    return 0;
}

static int opened(const char *path, int flags, mode_t mode) {
    const char *name = below(path);
    if (!name) return REAL(open64)(path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before, after;
    int there = !stat(path, &before);
    int changing = ((flags & O_CREAT) && !there) || (there && (flags & O_TRUNC) && before.st_size > 0);
    int fd = changing && fails(name) ? -1 : REAL(open64)(path, flags, mode);
    if (fd >= 0 && !fstat(fd, &after) && S_ISREG(after.st_mode)) {
        remember(after.st_ino);
        if (!there) put('C', after.st_ino, 0, name, NULL, 0);
        else if ((flags & O_TRUNC) && before.st_size > 0) put('T', after.st_ino, 0, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(symbol)                                          \
    int symbol(const char *path, int flags, ...) {            \
        va_list rest;                                         \
        va_start(rest, flags);                                \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                         \
        return opened(path, flags, mode);                     \
    }
OPEN(open)
OPEN(open64)

/* Writes under the lock; `offset` < 0: where the descriptor stands. */
static ssize_t wrote(int fd, const void *data, size_t bytes, off_t offset) {
    struct stat status;
    int kind = fd == 1 ? 0 : watched(fd, &status);
    int says = trace >= 0 && fd == 1;
    if (!says && kind != 1)
        return offset < 0 ? REAL(write)(fd, data, bytes) : REAL(pwrite64)(fd, data, bytes, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (says) {
        put('S', 0, 0, NULL, data, bytes);
        done = REAL(write)(fd, data, bytes);
    } else {
        int cut = changes + 1 == fail_at && bytes > 1 && !write_was_cut;
        if (cut) {
            /* The rest of it is the one that fails. */
            write_was_cut = 1;
            bytes /= 2;
            changes += 1;
            fail_at += 1;
        }
        off_t at = offset;
        if (at < 0) at = fcntl(fd, F_GETFL) & O_APPEND ? fstat(fd, &status), status.st_size : lseek(fd, 0, SEEK_CUR);
        if (cut || !fails("")) {
            done = offset < 0 ? REAL(write)(fd, data, bytes) : REAL(pwrite64)(fd, data, bytes, offset);
            if (done > 0) put('W', status.st_ino, at, NULL, data, done);
        }
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t bytes) { return wrote(fd, data, bytes, -1); }
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return wrote(fd, data, bytes, offset); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) { return wrote(fd, data, bytes, offset); }

static int resized(int fd, off_t length) {
    struct stat status;
    if (watched(fd, &status) != 1) return REAL(ftruncate64)(fd, length);
    pthread_mutex_lock(&lock);
    int done = fails("") ? -1 : REAL(ftruncate64)(fd, length);
    if (!done) put('T', status.st_ino, length, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length) { return resized(fd, length); }
int ftruncate64(int fd, off_t length) { return resized(fd, length); }

static int synced(int fd, int (*otherwise)(int)) {
    struct stat status;
    char link[64], path[PATH_MAX];
    int kind = watched(fd, &status);
    if (!kind) return otherwise(fd);
    const char *name = NULL;
    if (kind == 2) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t bytes = readlink(link, path, sizeof path - 1);
        path[bytes < 0 ? 0 : bytes] = 0;
        name = below(path);
        if (!name) return otherwise(fd);
    }
    pthread_mutex_lock(&lock);
    int failed = fails(name ? name : "");
    if (!failed) put(name ? 'D' : 'F', status.st_ino, 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return failed ? -1 : 0;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

int sync_file_range(int fd, off_t offset, off_t bytes, unsigned flags) {
    struct stat status;
    if (watched(fd, &status) != 1) return REAL(sync_file_range)(fd, offset, bytes, flags);
    pthread_mutex_lock(&lock);
    int failed = fails("");
    if (!failed) put('G', status.st_ino, 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return failed ? -1 : 0;
}

int rename(const char *from, const char *to) {
    const char *old = below(from), *new = below(to);
    if (!old && !new) return REAL(rename)(from, to);
    if (!old || !new) stop("a rename over the edge");
    pthread_mutex_lock(&lock);
    int done = fails(new) ? -1 : REAL(rename)(from, to);
    if (!done) put('R', 0, 0, old, new, strlen(new));
    pthread_mutex_unlock(&lock);
    return done;
}

#define REMOVE(symbol, what)                              \
    int symbol(const char *path) {                        \
        const char *name = below(path);                   \
        if (!name) return REAL(symbol)(path);             \
        pthread_mutex_lock(&lock);                        \
        int done = fails(name) ? -1 : REAL(symbol)(path); \
        if (!done) put(what, 0, 0, name, NULL, 0);        \
        pthread_mutex_unlock(&lock);                      \
        return done;                                      \
    }
REMOVE(unlink, 'U')
REMOVE(rmdir, 'X')

int mkdir(const char *path, mode_t mode) {
    const char *name = below(path);
    struct stat status;
    if (!name || !stat(path, &status)) return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&lock);
    int done = fails(name) ? -1 : REAL(mkdir)(path, mode);
    if (!done) put('M', 0, 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

/* What the trace would miss. */

static void refuse_file(int fd, const char *what) {
    struct stat status;
    if (watched(fd, &status) == 1) stop(what);
}

static void *mapped(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE)) refuse_file(fd, "a writable shared mapping");
    return REAL(mmap64)(at, bytes, protection, flags, fd, offset);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return mapped(at, bytes, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return mapped(at, bytes, protection, flags, fd, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    refuse_file(fd, "writev");
    return REAL(writev)(fd, parts, count);
}

ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t bytes, unsigned flags) {
    refuse_file(out, "copy_file_range");
    return REAL(copy_file_range)(in, from, out, to, bytes, flags);
}

int fallocate64(int fd, int mode, off_t offset, off_t bytes) {
    refuse_file(fd, "fallocate");
    return REAL(fallocate64)(fd, mode, offset, bytes);
}

int link(const char *from, const char *to) {
    if (below(from) || below(to)) stop("link");
    return REAL(link)(from, to);
}

int unlinkat(int fd, const char *path, int flags) {
    struct stat status;
    if (below(path) || (fd >= 0 && watched(fd, &status))) stop("unlinkat");
    return REAL(unlinkat)(fd, path, flags);
}
