/* work: uses a working set again and again, one operation after the other, and says how fast.
 *
 *   work reads DEVICE MIB WARM SECONDS THINK    reads of 16 KiB anywhere in the first MIB of a disk
 *   work touches MIB WARM SECONDS THINK         writes of a word anywhere in so much own memory
 *
 * It works for WARM seconds, which do not count, and SECONDS that do; between two operations it
 * thinks for so many microseconds. In the end it prints how many operations there were, and then
 * the microseconds that took 50 and 99 of 100 of them, and the longest.
 *
 * Theory of operation:
 *   A read is of the kernel's page cache, or of the disk where the kernel keeps it no longer; the
 *   size is a page of InnoDB. What is read is as likely anywhere in the working set, and the kernel
 *   is told so, so that it reads nothing ahead. Latencies are counted in buckets, sixteen for each
 *   power of two: what is printed is the upper end of a bucket, at most 7 % too much.
 */

#include "bare.h"

#define BLOCK 16384UL
#define BUCKETS 1024

enum { RANDOM_ADVICE = 1, MONOTONIC = 1 };

static word buckets[BUCKETS], count, longest, state;

static word now(void)
{
    word time[2];
    call(GETTIME, (long)MONOTONIC, time);
    return time[0] * 1000000 + time[1] / 1000;
}

static word draw(word below) /* xorshift64 (Marsaglia, 2003) */
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 16) % below;
}

static word bucket(word value)
{
    word power = 0;
    while (value >> power >= 32)
        power++;
    return power * 16 + (value >> power);
}

static word upper_end(word at)
{
    word power = at < 32 ? 0 : at / 16 - 1;
    return ((at - power * 16 + 1) << power) - 1;
}

static void note(word took)
{
    word at = bucket(took);
    buckets[at < BUCKETS ? at : BUCKETS - 1]++;
    count++;
    if (took > longest)
        longest = took;
}

static word percentile(word percent)
{
    word at = 0, seen = 0;
    if (!count)
        return 0;
    for (; at < BUCKETS; at++) {
        seen += buckets[at];
        if (seen * 100 >= count * percent)
            break;
    }
    return upper_end(at) < longest ? upper_end(at) : longest;
}

static void operate(long device, char *memory, word bytes)
{
    static char buffer[BLOCK];
    if (memory)
        *(word *)(memory + draw(bytes / PAGE) * PAGE) = state;
    else if (call(PREAD, device, buffer, BLOCK, draw(bytes / BLOCK) * BLOCK) != BLOCK)
        complain("work: the disk is too small, or a read failed\n");
}

static char *own_memory(word bytes)
{
    /* PROT_READ | PROT_WRITE; MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE */
    char *memory = (char *)call(MMAP, 0L, bytes, 3L, 0x4022L, -1L, 0L);
    word at;
    if ((word)memory > -PAGE)
        complain("work: there is not so much memory\n");
    for (at = 0; at < bytes; at += PAGE) /* a half of each page compresses, as of `hold half` */
        fill_random(memory + at, PAGE / 2, state + at * 2);
    return memory;
}

void start(long *stack)
{
    char **argv = (char **)(stack + 1), *memory = 0;
    word bytes, warm, seconds, think, began, before, first;
    long device = -1;
    int reads;

    reads = stack[0] == 7 && equal(argv[1], "reads");
    if (!reads && !(stack[0] == 6 && equal(argv[1], "touches")))
        complain("work: expected reads and five words, or touches and four\n");
    state = seed();
    if (reads) {
        device = call(OPEN, argv[2], 0L);
        if (device < 0)
            complain("work: the disk cannot be opened\n");
        call(FADVISE, device, 0L, 0L, (long)RANDOM_ADVICE);
    }
    argv += reads + 2;
    bytes = number(argv[0]) * MIB;
    warm = number(argv[1]) * 1000000;
    seconds = number(argv[2]) * 1000000;
    think = number(argv[3]);
    if (!bytes)
        complain("work: expected a size in MiB\n");
    if (!reads)
        memory = own_memory(bytes);
    for (first = began = now(); began - first < warm + seconds; began = now()) {
        before = began;
        operate(device, memory, bytes);
        if (before - first >= warm)
            note(now() - before);
        pause_for_microseconds(think);
    }
    print_number(count);
    print_number(percentile(50));
    print_number(percentile(99));
    print_number(longest);
    leave(0);
}
