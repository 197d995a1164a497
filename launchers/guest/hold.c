/* hold: keeps memory of one kind in use until it is killed. The part of `eat` that a shell cannot do.
 *
 *   hold zero|same|random|half|churn MIB    anonymous memory of this process
 *   hold grow MIB MIB_PER_SECOND        the same, a little more every tenth of a second
 *   hold cache MIB                      page cache of /dev/nullb0, which the kernel may take back
 *
 * Prints the pid of the process that holds, and ends when the memory is resident: with 0, or with
 * 128 + the signal that ended the holder before (137: out of memory), or with 1 for a wrong use.
 *
 * Theory of operation:
 *   Every page is written, since reading alone maps the kernel's one shared page of zeros.
 *   zero    equal to the zero page; same: equal everywhere, in every guest, but not zero;
 *   random  unlike any other page, and does not compress: xorshift64 (Marsaglia, 2003) from a seed
 *           of the kernel's; the loop is assembly, since tcc's own would take a test's time.
 *   half    the first half of each page is random and the rest zeros: compresses to a half, as
 *           what programs hold does at the least;
 *   churn   random, then one word of each page changes ten times a second, as KSM dislikes.
 *   cache   null_blk without memory of its own takes what is written at once, and the kernel keeps
 *           it like any disk's blocks: unlike any other page, as files are (a host swaps pages of
 *           zeros out for nothing). The cache goes when the last holder closes the device; each
 *           has its own 64 GiB of it.
 */

#include "bare.h"

static void fill(const char *kind, char *start, word bytes)
{
    word at, i, first = seed();
    if (equal(kind, "zero"))
        for (at = 0; at < bytes; at += PAGE)
            start[at] = 0;
    else if (equal(kind, "same"))
        for (at = 0; at < bytes; at += PAGE)
            for (i = 0; i < PAGE; i += sizeof(word))
                *(word *)(start + at + i) = 0x5A5A5A5A5A5A5A5AUL;
    else if (equal(kind, "half"))
        for (at = 0; at < bytes; at += PAGE)
            fill_random(start + at, PAGE / 2, first + at * 2);
    else if (bytes)
        fill_random(start, bytes, first);
}

static void rewrite(char *start, word bytes)
{
    word at, value = seed();
    for (at = 0; at < bytes; at += PAGE)
        *(word *)(start + at) = value + at;
}

static void fill_cache(word bytes)
{
    static char buffer[65536];
    word base = (word)(call(GETPID) % 1024) << 36, at;
    long device = call(OPEN, "/dev/nullb0", 2L); /* O_RDWR */
    if (device < 0)
        leave(1);
    for (at = 0; at < bytes; at += sizeof buffer) {
        fill("random", buffer, sizeof buffer);
        if (call(PWRITE, device, buffer, sizeof buffer, base + at) != sizeof buffer)
            leave(1);
    }
    if (call(FSYNC, device)) /* only what is written back is the kernel's to take */
        leave(1);
}

static void tell_ready(long pipe)
{
    call(WRITE, pipe, "r", 1L);
    call(CLOSE, pipe);
}

static void grow(char *start, word bytes, word rate, long pipe)
{
    word held = 0, step = rate * MIB / 10 & -PAGE;
    if (!step)
        step = PAGE;
    tell_ready(pipe);
    while (held < bytes) {
        if (step > bytes - held)
            step = bytes - held;
        fill("random", start + held, step);
        held += step;
        pause_for(100);
    }
}

static void hold(const char *kind, word bytes, word rate, long pipe)
{
    /* PROT_READ | PROT_WRITE; MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE */
    char *start = equal(kind, "cache") || !bytes
        ? 0 : (char *)call(MMAP, 0L, bytes, 3L, 0x4022L, -1L, 0L);
    if ((word)start > -PAGE)
        leave(1);
    if (equal(kind, "cache"))
        fill_cache(bytes);
    else if (equal(kind, "grow"))
        grow(start, bytes, rate, pipe);
    else
        fill(kind, start, bytes);
    tell_ready(pipe);
    for (;;) {
        pause_for(100);
        if (equal(kind, "churn"))
            rewrite(start, bytes);
    }
}

static void be_first_to_go(void)
{
    long file = call(OPEN, "/proc/self/oom_score_adj", 1L);
    call(WRITE, file, "1000", 4L);
    call(CLOSE, file);
}

void start(long *stack)
{
    long argc = stack[0], child, fd;
    char **argv = (char **)(stack + 1), got;
    int pipe[2], status = 0;
    word bytes, rate;

    if (argc < 3)
        complain("eat: expected a kind and a size in MiB\n");
    bytes = number(argv[2]) * MIB;
    rate = argc > 3 ? number(argv[3]) : 0;
    call(PIPE, pipe);
    child = call(FORK);
    if (child < 0)
        complain("eat: cannot fork\n");
    if (child == 0) {
        call(SETSID);
        for (fd = 0; fd < 3; fd++)
            call(CLOSE, fd);
        call(CLOSE, (long)pipe[0]);
        be_first_to_go();
        hold(argv[1], bytes, rate, (long)pipe[1]);
    }
    print_number(child);
    call(CLOSE, (long)pipe[1]);
    if (call(READ, (long)pipe[0], &got, 1L) == 1)
        leave(0);
    call(WAIT4, child, &status, 0L, 0L);
    leave(status & 127 ? 128 + (status & 127) : 1);
}
